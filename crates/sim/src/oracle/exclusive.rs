//! `exclusive`: at no moment do two workers, whose deaths are not proven, run the same task.
//!
//! The boxes alone are the truth: a claim is a successful compare-and-swap, and lasts until DONE or until the worker is gone
//! and the core has the event for it. It never asks the core.

use std::collections::BTreeMap;

use bulkhead_proto::ids::WorkerId;

use crate::report::{Verdict, broken};
use crate::task::TaskId;
use crate::worker::FakeWorker;

/// Counts claims.
#[derive(Debug, Default)]
pub struct ExclusiveOracle {
    /// Claims seen.
    pub claims: u64,
}

impl ExclusiveOracle {
    /// A worker has claimed a task.
    ///
    /// # Errors
    /// Another one runs it.
    pub fn claimed(
        &mut self,
        by: WorkerId,
        task: TaskId,
        workers: &BTreeMap<WorkerId, FakeWorker>,
    ) -> Verdict {
        self.claims += 1;
        let other = workers.values().find(|worker| worker.id != by && worker.pages.runs(task));
        match other {
            Some(other) => broken(
                "exclusive",
                format!("worker {by} claims {task:?} while worker {} runs it ({:?})", other.id, other.life),
            ),
            None => Ok(()),
        }
    }
}
