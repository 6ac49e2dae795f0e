//! Why a job waits, is tried again, or ended the way it did: the facts behind `bulkhead why`.
//!
//! The core fills these types in from its state and must never guess; `why_text.rs` turns them into sentences. They never
//! name a job of another user. Spans are milliseconds (`_ms`), moments are microseconds since 1970 (`_us`).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::client::outcome::{Outcome, OutputGone, TimeLimit};
use crate::client::refusal::MetBound;
use crate::client::view::{JobDeath, Parts, PoolHealth, StoppedProgram};
use crate::codec::{Decode, Encode};
use crate::ids::{JobId, SlotId, WorkerId};

/// The facts about one job.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Why {
    /// The job.
    pub job: JobId,
    /// Attempts started since it was accepted.
    pub attempts: u32,
    /// Its state, and what it waits for.
    pub now: WhyNow,
    /// Set once the client that it is attached to has disconnected: time until it is cancelled.
    pub vanished_ms: Option<u64>,
    /// How its earlier attempts ended.
    pub past: Past,
}

/// The state of a job, and what it waits for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "now")]
pub enum WhyNow {
    /// It is in the queue.
    Queued {
        /// Time since it could first be dispatched.
        waited_ms: u64,
        /// The jobs that go before it.
        before: QueuedBefore,
        /// Its own priority.
        priority: u8,
        /// By how much waiting has raised its priority.
        raised: u64,
        /// Set while none of its client's jobs start because the client has too many unread results.
        unread: Option<Unread>,
        /// Set while it is not offered because no output descriptor could be made: time until the next try.
        shortage_ms: Option<u64>,
        /// Set while it is not offered because there is no room in memory for its output or its log.
        outputs: Option<OutputWait>,
        /// Time until it expires, if it can expire.
        expires_in_ms: Option<u64>,
        /// The pool that runs its kind.
        pool: WhyPool,
    },
    /// Its own code failed, and its backoff has not passed.
    Backoff {
        /// The rest of the backoff.
        left_ms: u64,
        /// Whether it then waits for a worker that has run nothing.
        alone: bool,
    },
    /// A death was charged to it: it waits for a worker that has run nothing, to run alone.
    Alone {
        /// Jobs that have waited longer for such a worker. Counted up to [`crate::limits::WHY_COUNT_MAX`].
        before: u64,
        /// Set while it is not offered because no output descriptor could be made: time until the next try.
        shortage_ms: Option<u64>,
        /// Set while it is not offered because there is no room in memory for its output or its log.
        outputs: Option<OutputWait>,
        /// The pool that runs its kind.
        pool: WhyPool,
    },
    /// It runs in parts, or waits for its merge.
    Parted {
        /// The progress of the parts.
        parts: Parts,
        /// Set while none of its client's tasks start because the client has too many unread results.
        unread: Option<Unread>,
        /// Set while no part is offered because no descriptor could be made: time until the next try.
        shortage_ms: Option<u64>,
        /// The pool that runs its kind.
        pool: WhyPool,
    },
    /// A worker has it.
    Running(Running),
    /// It has ended.
    Ended(WhyEnded),
}

/// Queued jobs that go before another one, or take turns with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct QueuedBefore {
    /// Jobs of the same client that go first: those before it of its priority, and more urgent ones. Counted up to
    /// [`crate::limits::WHY_COUNT_MAX`].
    pub same_client: u64,
    /// More urgent jobs of other clients of the same user, which go first. Counted up to
    /// [`crate::limits::WHY_COUNT_MAX`].
    pub same_user: u64,
    /// Other clients of the same user that have queued jobs of its priority: they take turns.
    pub clients: u64,
    /// Jobs of other users.
    pub others: u64,
    /// The number of those users: they take turns.
    pub users: u64,
    /// Those of them that hold fewer workers of the pool than the user of the job: they go first.
    pub users_first: u64,
    /// Jobs of all users that have to run alone: they go first once a worker that has run nothing is ready.
    pub alone: u64,
}

/// The results that a client has not read yet, and their limits.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Unread {
    /// Bytes of unread results.
    pub bytes: u64,
    /// With more bytes than this, its jobs wait.
    pub bytes_max: u64,
    /// Unread results in descriptors.
    pub outputs: u64,
    /// With this many of them, its jobs wait.
    pub outputs_max: u64,
    /// The bound that the unread results of all clients of its user have met, if they have: then jobs of each client of
    /// that user with unread results wait.
    pub of_user: Option<MetBound>,
}

/// The memory in outputs and logs that leaves no room for one more, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct OutputWait {
    /// What the job's user holds.
    pub held: u64,
    /// Of that, what tasks that run may still write.
    pub running: u64,
    /// What all users hold together.
    pub held_by_all: u64,
    /// The most that one user may hold.
    pub share: u64,
    /// The most that all users together may hold (`outputs_bytes_max`).
    pub bound: u64,
    /// It is not memory that is short, but files.
    pub files: Option<OutputFilesWait>,
}

/// Open outputs and logs that leave no room for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct OutputFilesWait {
    /// What the job's user holds.
    pub held: u64,
    /// What all users hold together.
    pub held_by_all: u64,
    /// The most that one user may hold.
    pub share: u64,
    /// The most that all users together may hold, a part of `RLIMIT_NOFILE`.
    pub bound: u64,
}

/// The state of the pool that runs a waiting job's kind.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct WhyPool {
    /// Its name.
    pub name: String,
    /// Number of its slots.
    pub slots: u16,
    /// Slots whose worker runs a task.
    pub busy: u16,
    /// Slots whose worker waits for a task.
    pub idle: u16,
    /// Slots whose worker is due to be recycled, gets no further task, and waits for a spare (`recycle_strict`).
    pub spent: u16,
    /// Slots whose worker gets no further task, because more files of clients than [`crate::limits::UNCLOSED_MAX`] wait there to be
    /// closed.
    pub unclosed: u16,
    /// Slots whose worker cannot be sent a task now: its channel is full or closed.
    pub closed: u16,
    /// Slots whose worker was killed, and its death is not proven.
    pub dying: u16,
    /// Killed workers whose proof of death is overdue; other workers have most of their slots.
    pub stuck: u16,
    /// Warm workers that have run nothing and have no slot.
    pub spares: u16,
    /// Workers that are starting.
    pub starting: u16,
    /// Time until the next worker is spawned, if one is missing.
    pub next_spawn_ms: Option<u64>,
    /// The health of the pool.
    pub health: PoolHealth,
    /// Why it is not healthy, as a text for people; empty if it is.
    pub health_reason: String,
    /// The running task that began first.
    pub longest: Option<Longest>,
    /// The user's share of it.
    pub share: WhyShare,
    /// Set while the daemon drains.
    pub drain: Option<DrainLeft>,
}

/// The share of a pool that the user of a waiting job has, and the slots that the pool lends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct WhyShare {
    /// Workers that run tasks of the user.
    pub held: u16,
    /// The most that one user may hold (`running_max`); `None`: no limit.
    pub running_max: Option<u16>,
    /// Stuck workers that ran tasks of the user.
    pub stuck: u16,
    /// The most that the user may hold because of stuck workers, the user's own or all of the pool; `None`: no such limit now.
    pub stuck_max: Option<u16>,
    /// Whether the user holds none, and all workers run tasks of others.
    pub others_hold_all: bool,
    /// How long a user waits then before the pool lends a slot (`lend_after_seconds`); `None`: this daemon lends none.
    pub lend_after_ms: Option<u64>,
    /// Time until the pool may lend this user one, if the user waits for that; 0: as soon as it can.
    pub lends_in_ms: Option<u64>,
    /// Slots that the pool has lent.
    pub lent: u16,
    /// The most that it lends (`lend_max`).
    pub lend_max: u16,
}

/// The running task that began first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Longest {
    /// Its job, if the client may see it.
    pub job: Option<JobId>,
    /// The worker that runs it.
    pub worker: WorkerId,
    /// How long it has run.
    pub for_ms: u64,
}

/// A drain that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct DrainLeft {
    /// The rest of the grace; `None`: the drain has no time limit.
    pub left_ms: Option<u64>,
}

/// The worker that has an attempt of the job.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Holder {
    /// Its number.
    pub worker: WorkerId,
    /// Its process id, once spawned, unless it runs a task of another user.
    pub pid: Option<u32>,
    /// Set if it was killed and its death is not proven: why it was killed, as a text for people.
    pub killed: Option<String>,
    /// Whether the proof of its death is overdue.
    pub stuck: bool,
    /// Set while it has the grace to end the attempt.
    pub ending: Option<EndingTask>,
}

/// A task that was told to end, and has its grace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct EndingTask {
    /// Time since it was told.
    pub told_ms: u64,
    /// The rest of its grace: then it is killed.
    pub left_ms: u64,
    /// The limit of time that it met, if its job waits for its end.
    pub met: Option<TimeLimit>,
}

/// An attempt that runs, or that a worker has in its ring.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Running {
    /// The worker.
    pub holder: Holder,
    /// Time since it was offered to the worker.
    pub for_ms: u64,
    /// Tasks that the worker was offered before it and has not ended.
    pub behind: u32,
    /// Whether it runs alone in a worker that had run nothing, because a death was charged to it.
    pub alone: bool,
    /// The worker's slot, if it is one that the pool lends to the job's user.
    pub lent: Option<SlotId>,
    /// Set while a signal has stopped its worker: time until the worker is killed, unless a SIGCONT continues it.
    pub stopped_ms: Option<u64>,
    /// Set while a signal has stopped its program.
    pub program: Option<StoppedProgram>,
    /// Set while the daemon drains.
    pub drain: Option<DrainLeft>,
    /// Its limits.
    pub limits: RunningLimits,
}

/// The limits of an attempt; `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct RunningLimits {
    /// Wall time.
    pub timeout_ms: Option<u64>,
    /// The rest of the wall time.
    pub timeout_left_ms: Option<u64>,
    /// Time without progress.
    pub no_progress_ms: Option<u64>,
    /// Processor time.
    pub cpu_ms: Option<u64>,
    /// Memory beyond what its worker had before, in bytes.
    pub memory_bytes: Option<u64>,
}

/// One part of a job that runs in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Part {
    /// Its number, counted from 1.
    pub number: u32,
    /// How many parts the job has.
    pub parts: u32,
}

impl fmt::Display for Part {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "part {} of {}", self.number, self.parts)
    }
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct WhyEnded {
    /// The outcome.
    pub how: Outcome,
    /// The part that ended it, if one did.
    pub part: Option<Part>,
    /// Who cancelled it, if it was cancelled.
    pub by: Option<Canceller>,
    /// The output that it had until room was needed.
    pub gone: Option<OutputGone>,
    /// When it ended.
    pub at_us: u64,
    /// If it has expired: how long it was allowed to wait for its first attempt.
    pub expires_ms: Option<u64>,
    /// The worker that still has its last attempt.
    pub holder: Option<Holder>,
    /// Whether files came with it: the daemon has closed them, so the job cannot be run again.
    pub had_files: bool,
}

/// Who cancelled a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "by")]
pub enum Canceller {
    /// The user who submitted it.
    Owner {
        /// That user.
        uid: u32,
    },
    /// An administrator, who may end the jobs of all users.
    Administrator {
        /// That user.
        uid: u32,
    },
    /// The daemon itself: the client that the job was attached to had disconnected.
    Vanished {
        /// How long the daemon waited before it cancelled the job.
        after_ms: u64,
    },
}

/// How the earlier attempts of a job ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Past {
    /// Deaths of workers that were running it, oldest first.
    pub deaths: Vec<JobDeath>,
    /// Deaths charged to it since it was accepted, or since the last request to run it again.
    pub crashes: u8,
    /// The number of charged deaths that quarantines it.
    pub crashes_max: u8,
    /// Failures of its own code that were tried again, since the same moment.
    pub failures: u8,
    /// How many failures are tried again at most.
    pub retries_max: u8,
    /// The last failure, if its record is still kept.
    pub last_failure: Option<LastFailure>,
    /// Attempts since it was accepted that had begun and were lost with a worker whose death was not charged to the job.
    pub lost: u32,
    /// How often a client asked to run it again after its end.
    pub asked: u32,
}

/// A failure of a job's own code.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct LastFailure {
    /// The attempt that failed.
    pub attempt: u32,
    /// The error that its code reported.
    pub message: String,
}
