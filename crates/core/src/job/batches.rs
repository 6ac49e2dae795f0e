//! What happens to the jobs of a batch together: they expire, lose their client, or are all gone.
//!
//! A batch is found by the number of its first job and its count, as alarms and clients remember it; each method looks
//! its jobs up by number and leaves out those that have got a batch of their own since.

use bulkhead_proto::ids::JobId;

use crate::job::batch::Batch;
use crate::job::list::Key;
use crate::job::run::Run;
use crate::job::state::Phase;
use crate::job::{BatchGone, Jobs};
use crate::turn::{Alarm, Turn};

impl Jobs {
    /// The jobs of a batch that have waited for their first attempt for too long.
    pub(crate) fn expired(&self, turn: &Turn, first: JobId, count: u32) -> Vec<Run> {
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

    /// The client of an attached batch is gone: its jobs live on for a while, as if they were not attached.
    ///
    /// # Panics
    /// If no client keeps a note of such a batch, or if it was detached before.
    pub(crate) fn detach(&mut self, first: JobId, count: u32) {
        let key = self.watched_jobs(first, count).next();
        let key = key.expect("a batch that its client keeps a note of has a job");
        let batch = self.table[key].batch;
        let was_attached = std::mem::replace(&mut self.table.batches[batch as usize].attached, false);
        assert!(was_attached, "the batch of job {first} is detached once");
    }

    /// The jobs of a batch that a client kept a note of, and that have not ended. A job that somebody asked to run again
    /// since is not that client's any more: it has a batch of its own.
    pub(crate) fn of_watched_batch(&self, first: JobId, count: u32) -> Vec<Run> {
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

/// The last job of a batch is gone, or left it: its expiry is over. Gives it if its client keeps a note of it.
pub(super) fn batch_gone(turn: &mut Turn, gone: Option<Batch>) -> Option<BatchGone> {
    let mut batch = gone?;
    turn.cancel(&mut batch.expiry, Alarm::Expiry(batch.first, batch.count));
    batch.watched.then_some(BatchGone { client: batch.client, first: batch.first })
}
