//! Kinds whose jobs are split: plan, run the parts, merge what they left.
//!
//! Each of the three is a task of its own in some worker, so nothing but bytes goes from one to the next: a plan's
//! parts, the results of the parts, and the one output that all may write in place. The worker runtime calls them;
//! they know nothing of offers or stages.

use crate::{PackedParts, TaskContext, TaskFailure};

/// How a job is split.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// What every later task of the job gets to see, at most 1 MiB.
    pub common: Vec<u8>,
    /// One for each run task, at most `bulkhead_proto::limits::PARTS_MAX`.
    pub parts: Vec<Vec<u8>>,
}

/// What a task after the plan knows of its job.
#[derive(Clone, Copy, Debug)]
pub struct Planned<'a> {
    /// The job's input.
    pub input: &'a [u8],
    /// [`Split::common`].
    pub common: &'a [u8],
}

/// The code of a kind that plans. Tasks of it run at the same time in several workers, and one whose worker died runs
/// again, so all of them must do the same when they are done twice.
pub trait FanOut: Send + Sync {
    /// Splits the job. It writes nothing to `task`, but may give the output that is written in place its length.
    ///
    /// # Errors
    /// [`TaskFailure`] when the input is bad: the job fails before a part was run.
    fn plan(&self, input: &[u8], task: &mut dyn TaskContext) -> Result<Split, TaskFailure>;

    /// Does one part. What it writes to `task` is its result, at most `bulkhead_proto::limits::INLINE_MAX_BYTES`.
    ///
    /// # Errors
    /// [`TaskFailure`] when the part cannot be done: the job fails with it, once its retries are used up.
    fn run(&self, job: Planned<'_>, part: &[u8], task: &mut dyn TaskContext) -> Result<(), TaskFailure>;

    /// Joins the results, which stand in the order of the parts. What it writes to `task` is the output of the job,
    /// unless that was written in place.
    ///
    /// # Errors
    /// [`TaskFailure`] when they cannot be joined.
    fn merge(
        &self,
        job: Planned<'_>,
        parts: &PackedParts<'_>,
        results: &PackedParts<'_>,
        task: &mut dyn TaskContext,
    ) -> Result<(), TaskFailure>;
}

impl<K: FanOut + ?Sized> FanOut for &K {
    fn plan(&self, input: &[u8], task: &mut dyn TaskContext) -> Result<Split, TaskFailure> {
        (**self).plan(input, task)
    }

    fn run(&self, job: Planned<'_>, part: &[u8], task: &mut dyn TaskContext) -> Result<(), TaskFailure> {
        (**self).run(job, part, task)
    }

    fn merge(
        &self,
        job: Planned<'_>,
        parts: &PackedParts<'_>,
        results: &PackedParts<'_>,
        task: &mut dyn TaskContext,
    ) -> Result<(), TaskFailure> {
        (**self).merge(job, parts, results, task)
    }
}
