//! How a job ends: exactly one outcome, and what it left.
//!
//! An outcome is given once and never taken back, unless somebody asks for a retry. Decided by the core alone.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::client::plain::Plain;
use crate::client::why::Part;
use crate::codec::{Decode, Encode};
use crate::ids::JobId;
use crate::job::Payload;

/// The one way in which a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    /// It ran to its end; its output is there.
    Done,
    /// Its own code said no, `retries_max` times and once more.
    Failed {
        /// What its code said.
        message: String,
        /// The exit code of the program that it was, as a shell tells it; `None` if it was none.
        code: Option<u8>,
    },
    /// It killed its workers `crashes_max` times and is quarantined: `retry` or `forget` ends that.
    Crashed {
        /// The deaths charged to it.
        crashes: u8,
        /// The last of them, in words.
        last: String,
    },
    /// One attempt took longer than its limit.
    TimedOut {
        /// Which limit it met.
        limit: TimeLimit,
        /// How much that is.
        limit_ms: u64,
        /// The part whose attempt it was, of a job that runs in parts.
        part: Option<Part>,
    },
    /// Its client, its owner or an administrator took it back.
    Cancelled,
    /// It waited longer than it was worth.
    Expired,
    /// The service stopped before it ended.
    Lost {
        /// Why the service could not end it.
        reason: String,
    },
}

impl Outcome {
    /// The word for it, as the CLI, logs and metrics use it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed { .. } => "failed",
            Self::Crashed { .. } => "crashed",
            Self::TimedOut { .. } => "timed-out",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Lost { .. } => "lost",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done | Self::Cancelled | Self::Expired => out.write_str(self.word()),
            Self::Failed { message, .. } => write!(out, "failed: {}", Plain(message)),
            Self::Crashed { crashes: 1, last } => {
                write!(out, "crashed: killed 1 worker, by {last}; quarantined")
            }
            Self::Crashed { crashes, last } => {
                write!(out, "crashed: killed {crashes} workers, last one by {last}; quarantined")
            }
            Self::TimedOut { limit, limit_ms, part: None } => write!(out, "timed out: {limit} {limit_ms} ms"),
            Self::TimedOut { limit, limit_ms, part: Some(part) } => {
                write!(out, "timed out: {part} {limit} {limit_ms} ms")
            }
            Self::Lost { reason } => write!(out, "lost: {reason}"),
        }
    }
}

/// A limit of time that an attempt may meet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeLimit {
    /// On the clock.
    #[default]
    Wall,
    /// Since its last progress.
    NoProgress,
    /// On the processors.
    Cpu,
}

impl fmt::Display for TimeLimit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Wall => "ran longer than",
            Self::NoProgress => "made no progress for",
            Self::Cpu => "used more processor time than",
        })
    }
}

/// What a finished job left behind, as it travels to a client: its result, or what it had written when it failed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Output {
    /// No output: the job is not `done`, or failed and left none.
    None,
    /// The bytes themselves.
    Inline(Payload),
    /// A descriptor, attached to the frame that carries this, sealed against change; its size in bytes.
    Descriptor {
        /// Size in bytes.
        bytes: u64,
    },
}

/// A job's end, as a client gets it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Ended {
    /// Which job.
    pub job: JobId,
    /// How it ended.
    pub outcome: Outcome,
    /// What it left.
    pub output: Output,
    /// Attempts that were started.
    pub attempts: u32,
}
