//! One accepted batch of attached jobs: which of its jobs have ended, and the input index of each.
//!
//! Pure. With it the client notices an end that breaks the protocol: one of a job that is not in the batch, or that has
//! ended before. Driven by `run.rs`.

use bulkhead_proto::ids::JobId;

/// An accepted batch.
#[derive(Debug)]
pub(crate) struct AcceptedBatch {
    first_index: u64,
    first: u64,
    ended: Vec<bool>,
    left: usize,
}

impl AcceptedBatch {
    /// `count` jobs from number `first` on, whose inputs have the indexes from `first_index` on.
    pub(crate) fn new(first_index: u64, first: u64, count: usize) -> Self {
        Self { first_index, first, ended: vec![false; count], left: count }
    }

    /// Whether all jobs have ended.
    pub(crate) fn is_over(&self) -> bool {
        self.left == 0
    }

    /// The jobs that have not ended.
    pub(crate) fn jobs_left(&self) -> impl Iterator<Item = JobId> + '_ {
        (self.first..).zip(&self.ended).filter(|(_, ended)| !**ended).map(|(job, _)| JobId(job))
    }

    /// The input index of a job; `None` if it is not in this batch.
    pub(crate) fn index_of(&self, job: JobId) -> Option<u64> {
        let offset = job.0.checked_sub(self.first)?;
        (offset < self.ended.len() as u64).then_some(self.first_index + offset)
    }

    /// Whether a job of this batch has ended.
    pub(crate) fn has_ended(&self, job: JobId) -> bool {
        let offset = job.0.checked_sub(self.first).and_then(|offset| usize::try_from(offset).ok());
        offset.and_then(|offset| self.ended.get(offset)).is_some_and(|ended| *ended)
    }

    /// Marks a job as ended and returns its input index; `None` if it is not in this batch or has ended before.
    pub(crate) fn end(&mut self, job: JobId) -> Option<u64> {
        let offset = job.0.checked_sub(self.first)?;
        let ended = self.ended.get_mut(usize::try_from(offset).ok()?)?;
        if std::mem::replace(ended, true) {
            return None;
        }
        self.left -= 1;
        Some(self.first_index + offset)
    }
}
