//! `arenas`: the core offers a task with `OutputMode::Arena` only while its user holds less in arenas than it may; and it does so
//! while nobody holds anything there.
//!
//! It follows offers, reports and what the shell frees, and never asks the core. `outputs` sees that each block is dropped once.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_core::action::Action;
use bulkhead_core::config::Config;
use bulkhead_core::event::{Event, TaskResult};
use bulkhead_proto::ids::{OutputId, Seq, WorkerId};
use bulkhead_proto::job::OutputMode;

use crate::oracle::ledger::JobOracle;
use crate::report::{Verdict, broken};
use crate::task::TaskId;

/// All blocks that were not dropped, and the offers that may bring one.
#[derive(Debug, Default)]
pub struct ArenaOracle {
    most: u64,
    offers: BTreeMap<(WorkerId, Seq), u32>,
    /// Whose each block is, and its bytes.
    blocks: BTreeMap<OutputId, (u32, u64)>,
    /// Those that the core has dropped: the account holds them until the shell has freed them, but for those of reports that came
    /// too late, which were never counted.
    dropped: BTreeSet<OutputId>,
}

impl ArenaOracle {
    /// An oracle that knows of no block.
    pub fn new(config: &Config) -> Self {
        Self { most: config.arena_bytes_max, ..Self::default() }
    }

    /// Follows an event.
    pub fn told(&mut self, event: &Event) {
        match event {
            Event::Finished { worker, seq, report } => {
                let uid = self.offers.remove(&(*worker, *seq));
                if let (Some(uid), TaskResult::InArena { output, bytes }) = (uid, &report.result) {
                    self.blocks.insert(*output, (uid, *bytes));
                }
            }
            Event::OutputFreed { output } => {
                self.blocks.remove(output);
                self.dropped.remove(output);
            }
            Event::Died { worker, .. } => self.offers.retain(|(of, _), _| of != worker),
            _ => {}
        }
    }

    /// Follows an action.
    ///
    /// # Errors
    /// It may use the arena, and has no right to; or it may not, and there is room.
    pub fn decided(&mut self, action: &Action, ledger: &JobOracle) -> Verdict {
        if let Action::DropOutput { output } = action
            && self.blocks.contains_key(output)
        {
            self.dropped.insert(*output);
        }
        let Action::Offer { worker, seq, task } = action else { return Ok(()) };
        let Some(job) = ledger.task(TaskId::own(task.job)) else { return Ok(()) };
        let (uid, wanted) = (job.uid, job.output(task.stage));
        let held = |of: Option<u32>| -> u64 {
            let blocks = self.blocks.iter().filter(|(output, _)| !self.dropped.contains(output));
            blocks.filter(|(_, (uid, _))| of.is_none_or(|of| of == *uid)).map(|(_, (_, bytes))| bytes).sum()
        };
        // A user who holds less than a 64th always comes to a little more, so only the plain cases are judged.
        let (own, all) = (held(Some(uid)), held(None));
        let is_told = task.output == OutputMode::Arena;
        let is_full = own >= self.most || own >= self.most / 64 && all >= self.most + self.most / 8;
        if is_told && is_full {
            let what =
                format!("user {uid} holds {own} bytes in arenas, all {all}, and {} is allowed", self.most);
            return broken("arenas", what);
        }
        if wanted == OutputMode::Arena && !is_told && self.blocks.is_empty() && self.most > 0 {
            return broken("arenas", format!("no arena is used, and {} bytes are free", self.most));
        }
        if is_told {
            self.offers.insert((*worker, *seq), uid);
        }
        Ok(())
    }
}
