//! Changes of a whole batch: its jobs expire, its client is gone, or its last job is removed.
//!
//! Alarms and clients remember a batch by the number of its first job and its count. Each method looks the jobs up by
//! number and skips those that a retry has moved to a batch of their own.

use bulkhead_proto::ids::JobId;

use crate::job::batch::Batch;
use crate::job::list::Key;
use crate::job::{BatchGone, Jobs};
use crate::turn::{Alarm, Turn};

impl Jobs {
    /// Detaches an attached batch whose client is gone: its jobs live on for a while.
    ///
    /// # Panics
    /// If the batch is in no client's list, or was detached before.
    pub(crate) fn detach(&mut self, first: JobId, count: u32) {
        let key = self.jobs_from(first, first, count).find(|key| self.table.batch(*key).watched);
        let key = key.expect("a batch that its client keeps a note of has a job");
        let batch = self.table[key].batch;
        let was_attached = std::mem::replace(&mut self.table.batches[batch as usize].attached, false);
        assert!(was_attached, "the batch of job {first} is detached once");
    }

    /// The jobs of a batch that are still in it, from this number on.
    pub(super) fn jobs_from(&self, next: JobId, first: JobId, count: u32) -> impl Iterator<Item = Key> + '_ {
        let end = JobId(first.0 + u64::from(count));
        // Gaps are skipped: of a batch of thousands one job may be left.
        let mut next = next;
        let of_batch = std::iter::from_fn(move || {
            let (number, key) = self.table.next_from(next).filter(|(number, _)| *number < end)?;
            next = JobId(number.0 + 1);
            Some(key)
        });
        of_batch.filter(move |key| self.table.batch(*key).first == first)
    }
}

/// The last job of a batch was removed or moved: cancels its expiry, and returns it if it is in a client's list.
pub(super) fn batch_gone(turn: &mut Turn, gone: Option<Batch>) -> Option<BatchGone> {
    let mut batch = gone?;
    turn.cancel(&mut batch.expiry, Alarm::Expiry(batch.first, batch.count));
    batch.watched.then_some(BatchGone { client: batch.client, first: batch.first })
}
