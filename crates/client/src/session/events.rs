//! What a session tells its caller: events, how a turn ended, and why a job was not submitted.
//!
//! Plain values. Each token has exactly one [`SessionEvent::Job`].

use std::fmt;

use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::client::view::{JobDetail, Status, WorkerRow};
use bulkhead_proto::ids::JobId;
use bulkhead_proto::limits::INLINE_MAX_BYTES;

use crate::batch::JobInput;
use crate::output::JobEnd;

/// Something that the leader returns.
#[derive(Debug)]
pub enum SessionEvent {
    /// What became of a job. No other event follows for its token.
    Job {
        /// The caller's token.
        token: u64,
        /// What became of it.
        end: SessionEnd,
    },
    /// A job that [`crate::Session::cancel_waiting`] named goes on: a worker has begun it. Its [`SessionEvent::Job`] is still to come.
    RunsOn {
        /// The caller's token.
        token: u64,
    },
    /// How far a job is, from time to time while it runs, if [`crate::SessionOptions::progress`] asks for it.
    Progress {
        /// The caller's token.
        token: u64,
        /// The job.
        job: JobId,
        /// How much is done, in a unit that the kind chooses: parts, frames, bytes.
        done: u64,
        /// How much there is in all, in the same unit; 0 if it is not known.
        total: u64,
    },
    /// The daemon keeps the results of the jobs that were told before this event until [`crate::Session::received`] says that they
    /// are where the caller wants them. Only with [`crate::SessionOptions::held`].
    Held {
        /// The number up to which it keeps them, for that call.
        through: u64,
    },
    /// The daemon does not take an arena or a context of this session: what names it is refused.
    NotRegistered {
        /// Its number, counted over all that this session registered.
        number: u32,
        /// Why.
        refusal: Refusal,
    },
    /// Why jobs of this session do not start, or that they start again: a text of the daemon for people.
    Notice(String),
    /// The answer to [`crate::Session::ask`]. Each question has exactly one.
    Answer {
        /// The caller's number for the question.
        question: u64,
        /// The answer.
        answer: SessionAnswer,
    },
}

/// What a session asks the daemon beside its jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionQuestion {
    /// Everything that the daemon shows of one job.
    Job(JobId),
    /// Its workers.
    Workers,
    /// Its state.
    Status,
}

/// The answer to a [`SessionQuestion`].
#[derive(Debug)]
pub enum SessionAnswer {
    /// Everything that the daemon shows of the job.
    Job(Box<JobDetail>),
    /// Its workers.
    Workers(Vec<WorkerRow>),
    /// Its state.
    Status(Box<Status>),
    /// The daemon does not answer it.
    Refused(Refusal),
    /// The connection ended before it was answered.
    Lost,
}

/// What became of a job.
#[derive(Debug)]
pub enum SessionEnd {
    /// It ended; also `cancelled`.
    Ended(JobEnd),
    /// The daemon did not accept it, or it was forgotten before its end was sent.
    Refused(Refusal),
    /// It was cancelled before it was sent, or before a busy daemon accepted it.
    Withdrawn,
    /// The connection ended before its end was told: the job may have run.
    Lost,
}

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionTurn {
    /// There are events.
    Heard,
    /// The moment has passed.
    TimedOut,
    /// A [`crate::SessionWaker`] woke it.
    Woken,
    /// Another thread waits to lead, and this leader steps aside.
    Wanted,
    /// A signal arrived that [`crate::Interrupts`] watches. The session goes on, with this leader or the next.
    Interrupted,
}

/// Jobs that were not submitted, and why. Nothing was done.
#[derive(Debug)]
pub struct NotSubmitted {
    /// What the first of them met that cannot be submitted.
    pub why: SubmitFault,
    /// All of them, as they were.
    pub jobs: Vec<(u64, JobInput)>,
}

impl NotSubmitted {
    /// Whether the jobs can be submitted when others have left the session: [`crate::Session::wait_for_room`].
    pub fn is_full(&self) -> bool {
        matches!(self.why, SubmitFault::Full { .. })
    }

    /// The input of the job, if [`crate::Session::submit`] was called with it: there is one.
    pub fn into_input(mut self) -> JobInput {
        self.jobs.pop().map(|(_, input)| input).unwrap_or_default()
    }
}

/// Why a job cannot be submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubmitFault {
    /// As many jobs, or as many bytes of inputs, are under way as the session's options allow.
    Full {
        /// The bound that was met: jobs, or bytes.
        limit: usize,
        /// Whether the bound counts bytes.
        of_bytes: bool,
    },
    /// The input is longer than an inline input may be.
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// A job with this token has not been told.
    TokenInUse {
        /// The token.
        token: u64,
    },
    /// The connection has ended.
    Closed,
}

impl fmt::Display for SubmitFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { limit, of_bytes: false } => {
                write!(out, "{limit} jobs are under way in this session (jobs_max): wait for events")
            }
            Self::Full { limit, of_bytes: true } => {
                write!(
                    out,
                    "{limit} bytes of inputs wait to be accepted in this session (bytes_max): wait for events"
                )
            }
            Self::TooLong { bytes } => {
                write!(out, "the input is {bytes} bytes long, the limit is {INLINE_MAX_BYTES} bytes")
            }
            Self::TokenInUse { token } => {
                write!(out, "a job with the token {token} is under way: choose another token")
            }
            Self::Closed => out.write_str("the daemon is gone: open another session"),
        }
    }
}

impl fmt::Display for NotSubmitted {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.why.fmt(out)
    }
}

impl std::error::Error for NotSubmitted {}
