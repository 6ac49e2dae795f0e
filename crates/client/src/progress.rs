//! Delivers the progress of a run's jobs to a listener.
//!
//! The daemon sends progress at most a few times a second for each job, and only if the submit asked for it. Progress
//! is approximate; no result depends on it. Driven by `run.rs`.

use std::fmt;

use bulkhead_proto::ids::JobId;

/// The progress of a job that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobProgress {
    /// The index of its input, from 0.
    pub index: u64,
    /// The job.
    pub job: JobId,
    /// How much is done, in a unit that the kind chooses: parts, frames, bytes.
    pub done: u64,
    /// How much there is in all, in the same unit; 0 if it is not known.
    pub total: u64,
}

/// The listener for progress, if one is set.
#[derive(Default)]
pub(crate) struct ProgressListener<'c> {
    hear: Option<Box<dyn FnMut(JobProgress) + 'c>>,
}

impl<'c> ProgressListener<'c> {
    /// Sets the listener.
    pub(crate) fn set(&mut self, hear: impl FnMut(JobProgress) + 'c) {
        self.hear = Some(Box::new(hear));
    }

    /// Whether a listener is set.
    pub(crate) fn is_there(&self) -> bool {
        self.hear.is_some()
    }

    /// Calls the listener.
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
