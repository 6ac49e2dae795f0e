//! The payload, the policy and the state of a job.
//!
//! A client fills in payload and policy, so every value may be hostile. The core checks them ([`Policy::fault`]) and
//! decides; nothing here decides about a job. Workers get the payload and where its output goes.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::codec::{Decode, Encode};
use crate::limits::{CANCEL_GRACE_MAX_MS, INLINE_MAX_BYTES, LIMIT_MAX_MS, MEMORY_MIN_BYTES, PRIORITY_MAX};

/// A payload of up to this many bytes needs no allocation. With 16, a [`Payload`] is as large as a `Vec`.
const SMALL_BYTES: usize = 16;

/// Input or output bytes inside a message: at most [`INLINE_MAX_BYTES`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Payload(SmallVec<[u8; SMALL_BYTES]>);

impl Payload {
    /// A payload of this many zeros, for the caller to overwrite.
    pub fn zeroed(bytes: usize) -> Self {
        if bytes <= SMALL_BYTES {
            Self(SmallVec::from_buf_and_len([0; SMALL_BYTES], bytes))
        } else {
            Self(SmallVec::from_vec(vec![0; bytes]))
        }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, to be changed.
    pub fn as_bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// Whether it has at most [`INLINE_MAX_BYTES`] bytes.
    pub fn fits(&self) -> bool {
        self.0.len() <= INLINE_MAX_BYTES
    }
}

/// Written by hand because the derived implementation copies byte by byte.
impl Clone for Payload {
    fn clone(&self) -> Self {
        Self(SmallVec::from_slice(&self.0))
    }
}

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        if bytes.len() <= SMALL_BYTES {
            Self(SmallVec::from_slice(&bytes))
        } else {
            Self(SmallVec::from_vec(bytes))
        }
    }
}

impl From<Payload> for Vec<u8> {
    fn from(payload: Payload) -> Self {
        payload.0.into_vec()
    }
}

/// Where a task's output goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutputMode {
    /// Into the worker's box, at most [`INLINE_MAX_BYTES`]; a longer output fails the task.
    #[default]
    Inline,
    /// Into a descriptor that the supervisor makes and later hands to the client.
    Descriptor,
    /// Into the file named [`crate::file::OUT`] that came with the job; the result is then empty.
    File,
    /// Into the box up to [`INLINE_MAX_BYTES`]; a task whose output grows longer asks for a descriptor while it runs, and
    /// fails if there is no room for it. Other tasks cost no descriptor. Of a job that is done in parts, the merge may ask. An
    /// output that is written in place needs [`OutputMode::Descriptor`].
    Auto,
    /// As `Auto`, and the client takes results in arenas ([`crate::client::outcome::ResultBlock`]): what is longer than inline
    /// and at most [`crate::limits::BLOCK_MAX_BYTES`] goes into the arena of its worker if there is room. A daemon in mode
    /// `"system"` has no arenas; there it means `Auto`, as it does for a job that is done in parts.
    Arena,
}

/// How many charged deaths quarantine a job, if neither the job nor its kind says.
pub const CRASHES_MAX: u8 = 3;

/// Priority, limits, budgets and output of a job. All jobs of one submit have the same policy.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Policy {
    /// 0 (last) to 9 (first) among the jobs of the same user; waiting raises it.
    pub priority: u8,
    /// Wall time that one attempt may take, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// How long one attempt may go without progress, in milliseconds. The claim counts as progress, and so does each
    /// report of the task.
    pub no_progress_ms: Option<u64>,
    /// Processor time that one attempt may use, all threads of its worker together, in milliseconds.
    pub cpu_ms: Option<u64>,
    /// Memory that one attempt may have beyond what its worker had before, in bytes.
    pub memory_bytes: Option<u64>,
    /// How long a task may take to end by itself after a cancel, a limit of time or a stop, in milliseconds; at most
    /// [`CANCEL_GRACE_MAX_MS`], and 0 kills it at once. `None`: `cancel_grace_ms` of its kind.
    pub grace_ms: Option<u32>,
    /// How long the job may wait for its first attempt, in milliseconds; then it is `expired`.
    pub expires_ms: Option<u64>,
    /// How many deaths charged to the job quarantine it; at least 1. `None`: the number of its kind, else
    /// [`CRASHES_MAX`].
    pub crashes_max: Option<u8>,
    /// How many failures reported by the job's own code are retried, with backoff. `None`: the number of its kind,
    /// else 0.
    pub retries_max: Option<u8>,
    /// Where the output goes.
    pub output: OutputMode,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            priority: PRIORITY_MAX / 2,
            timeout_ms: None,
            no_progress_ms: None,
            cpu_ms: None,
            memory_bytes: None,
            grace_ms: None,
            expires_ms: None,
            crashes_max: None,
            retries_max: None,
            output: OutputMode::Inline,
        }
    }
}

impl Policy {
    /// How many deaths charged to the job quarantine it.
    pub fn crash_budget(&self) -> u8 {
        self.crashes_max.unwrap_or(CRASHES_MAX)
    }

    /// How many failures reported by the job's own code are retried.
    pub fn retry_budget(&self) -> u8 {
        self.retries_max.unwrap_or(0)
    }

    /// A sentence about the first value that is out of its range; `None` if all are in range.
    pub fn fault(&self) -> Option<String> {
        let over = |limit: Option<u64>| limit.is_some_and(|ms| ms == 0 || ms > LIMIT_MAX_MS);
        if self.priority > PRIORITY_MAX {
            Some(format!("priority {} is not from 0 to {PRIORITY_MAX}", self.priority))
        } else if self.crashes_max == Some(0) {
            Some("crashes_max 0 allows no attempt: use 1 or more".to_owned())
        } else if [self.timeout_ms, self.no_progress_ms, self.cpu_ms, self.expires_ms].into_iter().any(over) {
            Some(format!("a time limit is not from 1 to {LIMIT_MAX_MS} ms"))
        } else if self.memory_bytes.is_some_and(|bytes| bytes < MEMORY_MIN_BYTES) {
            Some(format!("a memory limit is below {MEMORY_MIN_BYTES} bytes, less than any task needs"))
        } else {
            let over = self.grace_ms.filter(|ms| *ms > CANCEL_GRACE_MAX_MS);
            over.map(|ms| format!("a grace of {ms} ms is not from 0 to {CANCEL_GRACE_MAX_MS} ms"))
        }
    }
}

/// What a job is doing, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    /// Waits for a worker.
    Queued,
    /// Waits for its backoff to pass, or for a fresh worker to run alone in.
    Retrying,
    /// Handed to a worker.
    Running,
    /// Has its outcome.
    Ended,
}
