//! Why a fact does not fit the durable state. It then changes nothing.
//!
//! Made by `durable_job.rs`, `fold.rs` and the journal, which answers with it. A misfit is a defect of its maker, but for three:
//! a key that is taken, facts about the jobs of a submit that could not be stored, and facts about jobs that retention has
//! removed in the meantime.

use std::fmt;

use bulkhead_proto::ids::{Fence, JobId};

/// Why a fact does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// There is no such job.
    Unknown(JobId),
    /// A job has this number already.
    Known(JobId),
    /// The user's key names another submit.
    KeyTaken {
        /// The first job of the submit that has the key.
        first: JobId,
        /// How many jobs that submit had.
        count: u32,
        /// Whether that submit asked for the same: then this is a repeated submit.
        is_same: bool,
    },
    /// The attempt with this fence has ended before, or a later one has begun.
    OldFence {
        /// The job.
        job: JobId,
        /// The fence of the fact.
        fence: Fence,
        /// The highest fence known.
        known: Fence,
    },
    /// An earlier attempt was started and has no end.
    AttemptOpen(JobId),
    /// The attempt was not started, so it cannot be given back.
    NotStarted(JobId),
    /// The job has ended.
    HasEnded(JobId),
    /// The job has not ended.
    NotEnded(JobId),
    /// The job is done, so its input is gone.
    IsDone(JobId),
}

impl fmt::Display for Misfit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(job) => write!(out, "there is no job {job}"),
            Self::Known(job) => write!(out, "there is a job {job} already"),
            Self::KeyTaken { first, count, is_same } => {
                let what = if *is_same { "the same submit" } else { "a different submit" };
                let last = first.0 + u64::from(*count) - 1;
                match count {
                    1 => write!(out, "its key names {what}, job {first}"),
                    _ => write!(out, "its key names {what}, jobs {first} to {last}"),
                }
            }
            Self::OldFence { job, fence, known } => {
                write!(out, "attempt {fence} of job {job} has ended, or a later one has begun ({known})")
            }
            Self::AttemptOpen(job) => write!(out, "an earlier attempt of job {job} has no end"),
            Self::NotStarted(job) => {
                write!(out, "an attempt of job {job} that was not started is given back")
            }
            Self::HasEnded(job) => write!(out, "job {job} has ended"),
            Self::NotEnded(job) => write!(out, "job {job} has not ended"),
            Self::IsDone(job) => write!(out, "job {job} is done and cannot be run again"),
        }
    }
}

impl std::error::Error for Misfit {}
