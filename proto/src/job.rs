//! What a client asks for: kind, inputs, policy.
//!
//! These types say what may be asked; whether it is granted is the core's to decide. Everything in them comes
//! from a client and may be hostile.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::codec::{Decode, Encode};
use crate::limits::{INLINE_MAX_BYTES, LIMIT_MAX_MS, MEMORY_MIN_BYTES, PRIORITY_MAX};

/// Payloads of up to so many bytes need no memory beside them; as many as make it no larger than a `Vec`.
const SMALL_BYTES: usize = 16;

/// Input or output bytes that travel inline: at most [`INLINE_MAX_BYTES`].
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Payload(SmallVec<[u8; SMALL_BYTES]>);

impl Payload {
    /// So many zeros, to be written over.
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

    /// Whether it is small enough to travel inline.
    pub fn fits(&self) -> bool {
        self.0.len() <= INLINE_MAX_BYTES
    }
}

/// By hand: the derived one goes byte by byte.
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
}

/// Deaths that quarantine a job when neither it nor its kind says how many.
pub const CRASHES_MAX: u8 = 3;

/// How a job is to be treated. Every job of one submit shares it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Policy {
    /// 0 (last) to 9 (first) among the same user's jobs; waiting raises it.
    pub priority: u8,
    /// Wall time that one attempt may take, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// How long one attempt may go without progress, in milliseconds: its claim is progress, and whatever it reports.
    pub no_progress_ms: Option<u64>,
    /// Processor time that one attempt may use, all threads of its worker together, in milliseconds.
    pub cpu_ms: Option<u64>,
    /// Memory that one attempt may have beyond what its worker had before, in bytes.
    pub memory_bytes: Option<u64>,
    /// How long the job may wait for its first attempt, in milliseconds; then it is `expired`.
    pub expires_ms: Option<u64>,
    /// Deaths charged to the job that quarantine it; at least 1. `None`: as many as its kind says, else [`CRASHES_MAX`].
    pub crashes_max: Option<u8>,
    /// Failures reported by the job's own code that are retried, with backoff. `None`: as many as its kind says, else
    /// none.
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
            expires_ms: None,
            crashes_max: None,
            retries_max: None,
            output: OutputMode::Inline,
        }
    }
}

impl Policy {
    /// Deaths charged to the job that quarantine it.
    pub fn crash_budget(&self) -> u8 {
        self.crashes_max.unwrap_or(CRASHES_MAX)
    }

    /// Failures reported by the job's own code that are retried.
    pub fn retry_budget(&self) -> u8 {
        self.retries_max.unwrap_or(0)
    }

    /// The first value that is out of its range, in words, or `None`.
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
            None
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
