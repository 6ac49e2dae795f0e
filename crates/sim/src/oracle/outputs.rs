//! `outputs`: each descriptor that the shell holds is attached only while held, and dropped exactly once.
//!
//! It follows reports, replies and actions, and compares with what the shell holds at the end. `ledger.rs` knows which job
//! an output belongs to.

use std::collections::BTreeMap;

use bulkhead_core::event::{Event, Leftover, TaskResult};
use bulkhead_proto::client::message::Reply;
use bulkhead_proto::client::outcome;
use bulkhead_proto::ids::OutputId;

use crate::report::{Verdict, broken};

/// All outputs that were ever held; true while they are.
#[derive(Debug, Default)]
pub struct OutputOracle {
    held: BTreeMap<OutputId, bool>,
}

impl OutputOracle {
    /// A report may bring an output.
    pub fn told(&mut self, event: &Event) {
        if let Event::Finished { report, .. } = event
            && let TaskResult::Held { output, .. }
            | TaskResult::InArena { output, .. }
            | TaskResult::Planned { output, .. }
            | TaskResult::Failed { output: Leftover::Held { output, .. }, .. } = report.result
        {
            self.held.insert(output, true);
        }
    }

    /// The core drops an output.
    ///
    /// # Errors
    /// It was never held, or dropped before.
    pub fn dropped(&mut self, output: OutputId) -> Verdict {
        match self.held.get_mut(&output) {
            Some(held) if *held => {
                *held = false;
                Ok(())
            }
            _ => broken("outputs", format!("output {output} is dropped, but not held")),
        }
    }

    /// A reply leaves with or without a descriptor.
    ///
    /// # Errors
    /// The reply and its descriptor do not go together.
    pub fn attached(&self, reply: &Reply, output: Option<OutputId>) -> Verdict {
        let entries: &[outcome::JobEnded] = reply.ends().unwrap_or_default();
        let named =
            entries.iter().filter(|ended| matches!(ended.output, outcome::JobOutput::Descriptor { .. }));
        let named = named.count();
        let fits = match output {
            Some(output) => named == 1 && entries.len() == 1 && self.held.contains_key(&output),
            None => named == 0,
        };
        if fits { Ok(()) } else { broken("outputs", format!("{output:?} does not go with {reply:?}")) }
    }

    /// All jobs are forgotten: nothing may be held any more.
    ///
    /// # Errors
    /// Something is.
    pub fn finish(&self, in_shell: usize) -> Verdict {
        let left = self.held.values().filter(|held| **held).count();
        if left + in_shell > 0 {
            return broken("outputs", format!("{left} outputs held, {in_shell} in the shell, no job left"));
        }
        Ok(())
    }
}
