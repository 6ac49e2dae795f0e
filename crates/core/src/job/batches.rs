//! Changes of a whole batch: its jobs expire, its client is gone, or its last job is removed.
//!
//! Alarms and clients remember a batch by the number of its first job and its count. Each method looks the jobs up by
//! number and skips those that a retry has moved to a batch of their own.

use bulkhead_proto::ids::JobId;

use crate::job::batch::Batch;
use crate::job::list::Key;
use crate::job::run::TaskRun;
use crate::job::state::Phase;
use crate::job::{BatchGone, Jobs};
use crate::turn::{Alarm, Turn};

impl Jobs {
    /// The jobs of a batch that have expired: still queued, and without an attempt.
    pub(crate) fn expired(&self, turn: &Turn, first: JobId, count: u32) -> Vec<TaskRun> {
        let of_batch =
            (first.0..first.0 + u64::from(count)).filter_map(|number| self.table.find(JobId(number)));
        let is_over = |key: &Key| {
            let at_ns = self.table.batch(*key).expiry.at_ns();
            let job = &self.table[*key];
            at_ns.is_some_and(|at_ns| at_ns <= turn.now_ns())
                && job.never_began()
                && job.state.phase() == Phase::Queued
        };
        of_batch.filter(is_over).map(|key| self.table.run(key)).collect()
    }

    /// Detaches an attached batch whose client is gone: its jobs live on for a while.
    ///
    /// # Panics
    /// If the batch is in no client's list, or was detached before.
    pub(crate) fn detach(&mut self, first: JobId, count: u32) {
        let key = self.watched_jobs(first, count).next();
        let key = key.expect("a batch that its client keeps a note of has a job");
        let batch = self.table[key].batch;
        let was_attached = std::mem::replace(&mut self.table.batches[batch as usize].attached, false);
        assert!(was_attached, "the batch of job {first} is detached once");
    }

    /// The jobs of a batch in a client's list that have not ended.
    pub(crate) fn of_watched_batch(&self, first: JobId, count: u32) -> Vec<TaskRun> {
        let unended = self.watched_jobs(first, count).filter(|key| self.table[*key].end().is_none());
        unended.map(|key| self.table.run(key)).collect()
    }

    fn watched_jobs(&self, first: JobId, count: u32) -> impl Iterator<Item = Key> + '_ {
        let numbers = first.0..first.0 + u64::from(count);
        numbers.filter_map(|number| self.table.find(JobId(number))).filter(move |key| {
            let batch = self.table.batch(*key);
            batch.watched && batch.first == first
        })
    }
}

/// The last job of a batch was removed or moved: cancels its expiry, and returns it if it is in a client's list.
pub(super) fn batch_gone(turn: &mut Turn, gone: Option<Batch>) -> Option<BatchGone> {
    let mut batch = gone?;
    turn.cancel(&mut batch.expiry, Alarm::Expiry(batch.first, batch.count));
    batch.watched.then_some(BatchGone { client: batch.client, first: batch.first })
}
