//! Kinds whose jobs are split: plan the parts, run each, merge the results.
//!
//! Each of the three is a task of its own in some worker, so only bytes pass from one to the next: the parts of the
//! plan, the results of the parts, and the one output that all may write in place. They know nothing of offers or
//! stages. Driven by the worker runtime.

use crate::{PackedParts, TaskContext, TaskFailure};

/// How a job is split.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// Data for every later task of the job, at most 1 MiB.
    pub common: Vec<u8>,
    /// The data of each part, at most `bulkhead_proto::limits::PARTS_MAX` of them.
    pub parts: Vec<Vec<u8>>,
}

/// The data of the job that the run tasks and the merge get.
#[derive(Clone, Copy, Debug)]
pub struct Planned<'a> {
    /// The job's input.
    pub input: &'a [u8],
    /// [`Split::common`].
    pub common: &'a [u8],
}

/// The code of a kind that plans. Its tasks run at the same time in several workers, and a task whose worker died runs
/// again. So every function must have the same effect when it is called twice with the same arguments.
pub trait FanOut: Send + Sync {
    /// Splits the job. It must not write to `task`, but may set the length of the output that is written in place.
    ///
    /// # Errors
    /// [`TaskFailure`] when the input is bad: the job fails before a part was run.
    fn plan(&self, input: &[u8], task: &mut dyn TaskContext) -> Result<Split, TaskFailure>;

    /// Does one part. The bytes that it writes to `task` are its result, at most
    /// `bulkhead_proto::limits::INLINE_MAX_BYTES`.
    ///
    /// # Errors
    /// [`TaskFailure`] when the part cannot be done: the job fails with it, once its retries are used up.
    fn run(&self, job: Planned<'_>, part: &[u8], task: &mut dyn TaskContext) -> Result<(), TaskFailure>;

    /// Joins the results, in the order of the parts. The bytes that it writes to `task` are the output of the job,
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
