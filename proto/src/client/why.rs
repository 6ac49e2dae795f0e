//! Why a job is as it is: what it waits for, what became of its attempts, and how it ended.
//!
//! The core fills these in from what it knows and guesses nothing; `why_text.rs` puts them into sentences. Spans are
//! milliseconds (`_ms`), moments microseconds since 1970 (`_us`). A job of somebody else is never named here.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::client::outcome::Outcome;
use crate::client::view::{JobDeath, Parts, PoolHealth};
use crate::codec::{Decode, Encode};
use crate::ids::{JobId, WorkerId};

/// Why one job is as it is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Why {
    /// The job.
    pub job: JobId,
    /// Attempts started, since it was accepted.
    pub attempts: u32,
    /// What it is doing, and why.
    pub now: Now,
    /// Set while the client that it is attached to is gone: when it is cancelled, if it has not ended.
    pub vanished_ms: Option<u64>,
    /// What became of the attempts before.
    pub past: Past,
}

/// What a job is doing, and why.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "now")]
pub enum Now {
    /// It is in the queue.
    Queued {
        /// Since it may be dispatched.
        waited_ms: u64,
        /// Who goes first.
        before: Before,
        /// Its own priority.
        priority: u8,
        /// By how much waiting has raised it.
        raised: u64,
        /// Set while its client is to read before any more of its jobs start.
        unread: Option<Unread>,
        /// Set while it is not offered because no output descriptor could be made: when that is tried again.
        shortage_ms: Option<u64>,
        /// When it expires, if it may.
        expires_in_ms: Option<u64>,
        /// Who could run it.
        pool: Pool,
    },
    /// Its own code failed, and its backoff has not passed.
    Backoff {
        /// What is left of it.
        left_ms: u64,
        /// Whether it then waits for a worker that has run nothing.
        alone: bool,
    },
    /// A death was charged to it: it waits for a worker that has run nothing, to run alone.
    Alone {
        /// Jobs that wait for the same, and longer. Counted up to [`crate::limits::WHY_COUNT_MAX`].
        before: u64,
        /// Set while it is not offered because no output descriptor could be made: when that is tried again.
        shortage_ms: Option<u64>,
        /// Who could run it.
        pool: Pool,
    },
    /// It is done in parts, or waits to have them joined.
    Parted {
        /// How far they are.
        parts: Parts,
        /// Set while its client is to read before any more of its tasks start.
        unread: Option<Unread>,
        /// Set while none is offered because no descriptor could be made: when that is tried again.
        shortage_ms: Option<u64>,
        /// Who could run them.
        pool: Pool,
    },
    /// It was handed to a worker.
    Running(Running),
    /// It has ended.
    Ended(End),
}

/// Queued jobs that go before another one, or take turns with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Before {
    /// Jobs of the same client: all of them go first. Counted up to [`crate::limits::WHY_COUNT_MAX`].
    pub same_client: u64,
    /// Other clients of the same user that have queued jobs: the clients take turns.
    pub clients: u64,
    /// Jobs of other users: the users take turns.
    pub others: u64,
    /// How many other users.
    pub users: u64,
    /// Jobs of anybody that have to run alone: they go first when a worker that has run nothing is there.
    pub alone: u64,
}

/// What a client has not read, and how much it may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Unread {
    /// Bytes of results.
    pub bytes: u64,
    /// From more than this on its jobs wait.
    pub bytes_max: u64,
    /// Results in descriptors.
    pub outputs: u64,
    /// From this many on its jobs wait.
    pub outputs_max: u64,
    /// Set while the daemon holds as many unread results as it may, of all clients: then any at all are too many.
    pub all_full: bool,
}

/// The workers of the pool that runs its kind, as far as they matter to a job that waits.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Places for workers that run tasks.
    pub slots: u16,
    /// Of them: those whose worker runs something.
    pub busy: u16,
    /// Of them: those whose worker waits for a task.
    pub idle: u16,
    /// Of them: those whose worker can be sent nothing right now: its channel is full, or hung up.
    pub closed: u16,
    /// Of them: those whose worker was killed, and its death is not proven.
    pub dying: u16,
    /// Workers that were killed long ago without proof of death; their slots went to others as far as that goes.
    pub stuck: u16,
    /// Warm workers that have run nothing and have no slot.
    pub spares: u16,
    /// Workers on their way up.
    pub starting: u16,
    /// When the next worker is spawned, if one is missing.
    pub next_spawn_ms: Option<u64>,
    /// How the pool is.
    pub health: PoolHealth,
    /// Why it is not healthy; empty when it is.
    pub health_reason: String,
    /// The task that has run longest.
    pub longest: Option<Longest>,
    /// Set while the daemon drains.
    pub drain: Option<Drain>,
}

/// The task that has run longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Longest {
    /// Its job, if the client may see it.
    pub job: Option<JobId>,
    /// The worker that runs it.
    pub worker: WorkerId,
    /// For how long.
    pub for_ms: u64,
}

/// A drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Drain {
    /// What is left of the grace; `None`: there is no end to it.
    pub left_ms: Option<u64>,
}

/// A worker, as a job knows it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Holder {
    /// Its number.
    pub worker: WorkerId,
    /// Its process, once spawned.
    pub pid: Option<u32>,
    /// Set when it was killed, and its death is not proven: why, in words.
    pub killed: Option<String>,
    /// Whether the proof is long overdue.
    pub stuck: bool,
}

/// An attempt that runs, or is about to.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Running {
    /// With whom.
    pub holder: Holder,
    /// Since it was handed over.
    pub for_ms: u64,
    /// Tasks that this worker was given before it and has not ended.
    pub behind: u32,
    /// Whether it runs alone in a worker that had run nothing, because a death was charged to it.
    pub alone: bool,
    /// Set while its worker is stopped by a signal: when that is killed unless it goes on.
    pub stopped_ms: Option<u64>,
    /// Set while the daemon drains.
    pub drain: Option<Drain>,
    /// The limits it was given.
    pub limits: Limits,
}

/// What an attempt may use; `None`: as much as it likes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Limits {
    /// Wall time.
    pub timeout_ms: Option<u64>,
    /// What is left of that.
    pub timeout_left_ms: Option<u64>,
    /// Time without progress.
    pub no_progress_ms: Option<u64>,
    /// Processor time.
    pub cpu_ms: Option<u64>,
    /// Memory beyond what its worker had before, in bytes.
    pub memory_bytes: Option<u64>,
}

/// One part of a job that is done in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Part {
    /// Which, from 1.
    pub number: u32,
    /// Of how many.
    pub parts: u32,
}

impl fmt::Display for Part {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "part {} of {}", self.number, self.parts)
    }
}

/// How it ended, and by whom.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct End {
    /// The outcome.
    pub how: Outcome,
    /// The part that ended it, if one did.
    pub part: Option<Part>,
    /// Who took it back, if it was cancelled.
    pub by: Option<Canceller>,
    /// When.
    pub at_us: u64,
    /// How long it might wait for its first attempt, if it has expired.
    pub expires_ms: Option<u64>,
    /// The worker that still holds its last attempt.
    pub holder: Option<Holder>,
    /// Whether files came with it: they were let go, so it cannot be run again.
    pub had_files: bool,
}

/// Who took a job back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "by")]
pub enum Canceller {
    /// The user who submitted it.
    Owner {
        /// That user.
        uid: u32,
    },
    /// Somebody who may end everybody's jobs.
    Administrator {
        /// That user.
        uid: u32,
    },
    /// Nobody asked: the client that it was attached to vanished and did not come back.
    Vanished {
        /// How long that was waited for.
        after_ms: u64,
    },
}

/// What became of earlier attempts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Past {
    /// Deaths of workers that were running it, oldest first.
    pub deaths: Vec<JobDeath>,
    /// Deaths charged to it, since it was accepted or last asked for again.
    pub crashes: u8,
    /// How many of them quarantine it.
    pub crashes_max: u8,
    /// Failures of its own code that were tried again, since then.
    pub failures: u8,
    /// How many of them are tried again.
    pub retries_max: u8,
    /// The last of them, while it is among the events that are kept.
    pub last_failure: Option<Failure>,
    /// Attempts that had begun and were given back without blame, since it was accepted.
    pub lost: u32,
    /// How often somebody asked to run it again after its end.
    pub asked: u32,
}

/// A failure of a job's own code.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Failure {
    /// Which attempt failed.
    pub attempt: u32,
    /// What its code said.
    pub message: String,
}
