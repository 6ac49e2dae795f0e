//! How far jobs are, on its way to whoever wants to hear it.
//!
//! It comes now and then, at most a few times a second for each job, and only if somebody listens; it is never a
//! promise, and nothing depends on it. Driven by the run that submitted the jobs.

use std::fmt;

use bulkhead_proto::ids::JobId;

/// How far an unended job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobProgress {
    /// The place of its input, from 0.
    pub index: u64,
    /// Which job.
    pub job: JobId,
    /// So much of it is done, in a unit of its own: parts, frames, bytes...
    pub done: u64,
    /// ...of so much, or of 0 when that cannot be told.
    pub total: u64,
}

/// Who hears it, if anybody does.
#[derive(Default)]
pub(crate) struct ProgressListener<'c> {
    hear: Option<Box<dyn FnMut(JobProgress) + 'c>>,
}

impl<'c> ProgressListener<'c> {
    /// JobProgress is for this one.
    pub(crate) fn set(&mut self, hear: impl FnMut(JobProgress) + 'c) {
        self.hear = Some(Box::new(hear));
    }

    /// Whether anybody listens.
    pub(crate) fn is_there(&self) -> bool {
        self.hear.is_some()
    }

    /// Some came.
    pub(crate) fn hear(&mut self, progress: JobProgress) {
        if let Some(hear) = &mut self.hear {
            hear(progress);
        }
    }
}

impl fmt::Debug for ProgressListener<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ProgressListener").field("is_there", &self.is_there()).finish()
    }
}
