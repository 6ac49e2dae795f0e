//! A job or part together with its batch: what the machine asks about a run before it is offered.
//!
//! [`JobTable::entry`] finds both once, however many of these questions follow. `candidate.rs` asks them for each run that a
//! worker might take.

use bulkhead_proto::job::OutputMode;

use crate::job::batch::Batch;
use crate::job::entry::Job;
use crate::job::list::Key;
use crate::job::state::TaskKind;
use crate::job::table::JobTable;
use crate::turn::{TaskLimits, Turn};

/// A job or part, and the batch that it is of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TaskEntry<'a> {
    pub(super) job: &'a Job,
    pub(super) batch: &'a Batch,
}

impl JobTable {
    /// The entry at this place.
    pub(super) fn entry(&self, key: Key) -> TaskEntry<'_> {
        let job = &self[key];
        TaskEntry { job, batch: &self.batches[job.batch as usize] }
    }
}

impl TaskEntry<'_> {
    /// Whether its next task needs a descriptor of the daemon's own: an output, a log, a plan, results.
    pub(super) fn needs_descriptor(&self) -> bool {
        self.job.task_kind != TaskKind::Whole
            || self.batch.logs
            || self.batch.policy.output == OutputMode::Descriptor
    }

    /// Whether its next task may ask for an output while it runs.
    pub(super) fn may_ask(&self) -> bool {
        let is_of_job = matches!(self.job.task_kind, TaskKind::Whole | TaskKind::Merge);
        is_of_job && matches!(self.batch.policy.output, OutputMode::Auto | OutputMode::Arena)
    }

    /// Whether the time that it may wait for its first attempt is over, and it had none.
    pub(super) fn has_expired(&self, turn: &Turn) -> bool {
        let at_ns = self.batch.expiry.at_ns();
        at_ns.is_some_and(|at_ns| at_ns <= turn.now_ns()) && self.job.never_began()
    }

    /// Whether nothing may share a ring with it: a watched task is measured by its worker's figures, and files behind
    /// another task would be held by a worker that does not use them.
    pub(super) fn is_for_itself(&self) -> bool {
        TaskLimits::watches(&self.batch.policy)
            || self.job.has_files()
            || self.job.task_kind != TaskKind::Whole
    }
}
