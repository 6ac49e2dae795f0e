//! How a job ends: exactly one outcome, and its output.
//!
//! Only the core decides an outcome, and it must never change one, except that a `retry` runs the job again. Replies,
//! records and the command line carry it to clients. The texts here are part of the core's records.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::client::why::Part;
use crate::codec::{Decode, Encode};
use crate::ids::JobId;
use crate::job::Payload;
use crate::limits::{OUTPUTS_KEY, is_block};
use crate::plain::Plain;

/// The one way in which a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    /// It ran to its end and has an output.
    Done,
    /// Its own code reported an error, and no retry was left.
    Failed {
        /// The error that its code reported.
        message: String,
        /// The exit code of its program, as a shell shows it; `None` if its kind runs no program.
        code: Option<u8>,
    },
    /// `crashes_max` deaths of workers were charged to it: it is quarantined until a `retry` or a `forget`.
    Crashed {
        /// The deaths charged to it.
        crashes: u8,
        /// The last of them, as a text for people.
        last: String,
    },
    /// One attempt reached a time limit.
    TimedOut {
        /// Which limit.
        limit: TimeLimit,
        /// The value of the limit.
        limit_ms: u64,
        /// The part that reached it, if the job ran in parts.
        part: Option<Part>,
    },
    /// Its client, its owner or an administrator cancelled it.
    Cancelled,
    /// No attempt began within `expires_ms`.
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
                write!(out, "crashed: killed 1 worker, by {}; quarantined", Plain(last))
            }
            Self::Crashed { crashes, last } => {
                write!(out, "crashed: killed {crashes} workers, last one by {}; quarantined", Plain(last))
            }
            Self::TimedOut { limit, limit_ms, part: None } => write!(out, "timed out: {limit} {limit_ms} ms"),
            Self::TimedOut { limit, limit_ms, part: Some(part) } => {
                write!(out, "timed out: {part} {limit} {limit_ms} ms")
            }
            Self::Lost { reason } => write!(out, "lost: {}", Plain(reason)),
        }
    }
}

/// A time limit of an attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeLimit {
    /// Wall time.
    #[default]
    Wall,
    /// Time since its last progress.
    NoProgress,
    /// Processor time.
    Cpu,
    /// Time for which a signal has stopped its program.
    ProgramStopped,
}

impl fmt::Display for TimeLimit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Wall => "ran longer than",
            Self::NoProgress => "made no progress for",
            Self::Cpu => "used more processor time than",
            Self::ProgramStopped => "ran a program that a signal had stopped for",
        })
    }
}

/// The output of an ended job in a reply: its result, or what it had written when it failed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum JobOutput {
    /// No output: the job is not `done`, or failed without output.
    None,
    /// The bytes.
    Inline(Payload),
    /// A descriptor, attached to the frame of this reply and sealed against changes.
    Descriptor {
        /// Size in bytes.
        bytes: u64,
    },
    /// It was in memory and went to make room.
    Gone(OutputGone),
    /// A block of an arena.
    Block(ResultBlock),
}

/// A result in the arena of the worker that made it. The worker does not write there again until all clients that were told of
/// the block have freed it ([`crate::client::message::Request::Freed`]); a worker that breaks this harms who reads the
/// bytes, so only clients of the worker's own user are told of blocks.
///
/// When a connection ends, the daemon waits [`crate::limits::BLOCK_LEASE_MS`] from the moment at which the client had received
/// all that was sent, and then the blocks are free. A client that copied a block more than [`crate::limits::BLOCK_CHECK_MS`] after it
/// received the reply has to find the connection open afterwards, else what it copied may be another result.
///
/// The descriptor of an arena is attached to the first reply on a connection that names the arena, and again to the first one
/// after [`crate::client::message::Reply::ArenaGone`]. The client checks that its size is sealed before it maps it, and checks
/// offset and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ResultBlock {
    /// The number of the block, never used before.
    pub block: u64,
    /// The number of its arena, never used before.
    pub arena: u64,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// Whether the descriptor of the arena is attached to this reply.
    pub is_attached: bool,
}

impl ResultBlock {
    /// Where it begins and how long it is, if there may be such a block in an arena.
    pub fn place(&self) -> Option<(usize, usize)> {
        let is_possible = is_block(self.offset, self.bytes);
        is_possible
            .then(|| Some((usize::try_from(self.offset).ok()?, usize::try_from(self.bytes).ok()?)))
            .flatten()
    }
}

/// An output that the daemon has dropped to make room; its job is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct OutputGone {
    /// The size that it had, in bytes.
    pub bytes: u64,
    /// Which bound was met.
    pub bound: OutputBound,
    /// The value of the bound.
    pub limit: u64,
}

impl fmt::Display for OutputGone {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, bound, limit } = self;
        write!(out, "its output of {bytes} bytes went to make room, {} = {limit}", bound.key())
    }
}

/// A bound of outputs that are kept in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutputBound {
    /// Bytes of kept results.
    KeptBytes,
    /// Kept outputs.
    KeptOutputs,
    /// Bytes of all outputs and logs.
    AllBytes,
    /// All outputs and logs.
    OpenOutputs,
}

impl OutputBound {
    /// Its key in the daemon's configuration, or the limit of the system that it is a part of.
    pub fn key(self) -> &'static str {
        match self {
            Self::KeptBytes => "keep_bytes_max",
            Self::KeptOutputs => "keep_outputs_max",
            Self::AllBytes => OUTPUTS_KEY,
            Self::OpenOutputs => "RLIMIT_NOFILE",
        }
    }
}

/// A process that a job has left and that the daemon may not signal, because it runs as another user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Survivor {
    /// Its process id.
    pub pid: u32,
    /// The user that it runs as (its effective uid); `None` if /proc does not show it.
    pub uid: Option<u32>,
    /// The name of its program, as the kernel shows it; empty if /proc does not show it.
    pub name: String,
}

impl Survivor {
    /// About how many bytes it takes in a message.
    pub fn wire_bytes(&self) -> u64 {
        (12 + self.name.len()) as u64
    }
}

impl fmt::Display for Survivor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, uid, name } = self;
        write!(out, "process {pid} (")?;
        if !name.is_empty() {
            write!(out, "{}, ", Plain(name))?;
        }
        match uid {
            Some(uid) => write!(out, "user {uid})"),
            None => out.write_str("another user)"),
        }
    }
}

/// The end of a job in a reply.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct JobEnded {
    /// The job.
    pub job: JobId,
    /// Its outcome.
    pub outcome: Outcome,
    /// Its output.
    pub output: JobOutput,
    /// Attempts that were started.
    pub attempts: u32,
    /// Processes of its last attempt that the daemon could not end; at most [`crate::limits::SURVIVORS_TOLD`].
    pub survivors: Vec<Survivor>,
}
