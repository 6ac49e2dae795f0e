//! The records of what happened, in order: `bulkhead events` and the daemon's log show them.
//!
//! The core makes one for each submit, for each step in a worker's life, and for everything unusual. It must make none for
//! a job that runs once and is done: many such jobs would otherwise push the record of a crash out of the kept ones.
//! `record_text.rs` has their texts.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::client::evidence::{Evidence, ProcessSeen};
use crate::client::outcome::{Outcome, Survivor};
use crate::client::why::Part;
use crate::codec::{Decode, Encode};
use crate::death::Death;
use crate::ids::{JobId, SlotId, WorkerId};

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Record {
    /// Its number; counts up from 1 without gaps.
    pub index: u64,
    /// When it happened, in microseconds since 1970.
    pub at_us: u64,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// Everything that a record can be about.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum What {
    /// The daemon started.
    Started {
        /// Its process id.
        pid: u32,
        /// Slots of all pools.
        slots: u16,
    },
    /// A worker process was spawned.
    Spawned {
        /// The worker.
        worker: WorkerId,
        /// Its process id.
        pid: u32,
    },
    /// A worker is connected and warm.
    Ready {
        /// The worker.
        worker: WorkerId,
        /// Its process id.
        pid: u32,
        /// Time since its spawn.
        after_us: u64,
    },
    /// A worker could not be spawned, or did not start in time.
    SpawnFailed {
        /// The worker.
        worker: WorkerId,
        /// Why.
        error: String,
        /// Time until the next worker is spawned.
        retry_after_ms: u64,
    },
    /// A worker got a slot.
    Placed {
        /// The worker.
        worker: WorkerId,
        /// The slot.
        slot: SlotId,
        /// The worker that had the slot before, if it died or was retired.
        replaces: Option<WorkerId>,
        /// Time since that worker's death was noticed; 0 without one.
        after_us: u64,
        /// Whether it was ready as a spare when it was needed.
        warm: bool,
    },
    /// A user who held no worker of a pool has waited while others held all: a spare has a slot beyond the number of the pool.
    Lent {
        /// The worker.
        worker: WorkerId,
        /// The slot.
        slot: SlotId,
        /// The user: the worker runs tasks of no other one.
        uid: u32,
    },
    /// A worker in a lent slot got a slot of its pool's own: the loan is over.
    TakenIn {
        /// The worker.
        worker: WorkerId,
        /// Its slot now.
        slot: SlotId,
        /// The worker that had the slot before.
        replaces: Option<WorkerId>,
    },
    /// The supervisor kills a worker; its death is not proven yet.
    Killing {
        /// The worker.
        worker: WorkerId,
        /// The job at the head of its ring.
        job: Option<JobId>,
        /// Why.
        why: crate::death::KillReason,
    },
    /// A worker's death is proven.
    Died {
        /// The worker.
        worker: WorkerId,
        /// Its process id.
        pid: u32,
        /// The slot that it had.
        slot: Option<SlotId>,
        /// How it died.
        death: Death,
        /// What else is known of the death.
        evidence: Evidence,
        /// Time from the death until the supervisor noticed it, if the moment of the death is known.
        noticed_after_us: Option<u64>,
        /// Tasks that it had ended.
        ended: u64,
    },
    /// A worker's death is proven, and it ran jobs of other users: stands for [`What::Died`] where a user reads records who is
    /// no administrator. The core makes none.
    WorkerGone {
        /// The worker.
        worker: WorkerId,
        /// The slot that it had.
        slot: Option<SlotId>,
    },
    /// A signal stopped a worker. Of a worker that is stopped again and again, one stop a minute is a record.
    Suspended {
        /// The worker.
        worker: WorkerId,
        /// Its process id.
        pid: u32,
        /// The job at the head of its ring.
        job: Option<JobId>,
        /// The signal.
        signal: i32,
    },
    /// A stopped worker runs again; made if its stop was a record.
    Resumed {
        /// The worker.
        worker: WorkerId,
    },
    /// Signals stopped a worker again and again, and these stops were no records.
    SuspendedOften {
        /// The worker.
        worker: WorkerId,
        /// How many stops.
        count: u64,
    },
    /// A signal stopped the program of a task. Of a worker whose programs are stopped again and again, not every stop is a
    /// record.
    ProgramStopped {
        /// The worker that runs it.
        worker: WorkerId,
        /// The job.
        job: JobId,
        /// The process id of the program, as its worker says.
        program: u32,
        /// The signal.
        signal: i32,
    },
    /// A stopped program runs again; made if its stop was a record.
    ProgramContinued {
        /// The worker that runs it.
        worker: WorkerId,
        /// The job.
        job: JobId,
        /// The process id of the program, as its worker says.
        program: u32,
        /// Time since the stop.
        after_us: u64,
    },
    /// A worker was killed, and the proof of its death is overdue.
    Stuck {
        /// The worker.
        worker: WorkerId,
        /// Its process id.
        pid: u32,
        /// What the kernel shows of the process that has not ended.
        seen: Option<ProcessSeen>,
    },
    /// A process that a worker has left runs as another user, so it cannot be ended.
    LivesOn {
        /// The process.
        #[serde(flatten)]
        survivor: Survivor,
        /// The worker that left it, if that is known.
        worker: Option<WorkerId>,
        /// The job that left it, if that is known.
        job: Option<JobId>,
    },
    /// Jobs were accepted.
    Accepted {
        /// The first of them.
        first: JobId,
        /// How many.
        count: u32,
        /// Their kind. Shared: ten thousand records have a few kinds.
        kind: Arc<str>,
        /// The user who submitted them.
        uid: u32,
    },
    /// A death was charged to a job.
    Blamed {
        /// The job.
        job: JobId,
        /// The part that was running, if the job ran in parts.
        part: Option<Part>,
        /// The attempt that was running.
        attempt: u32,
        /// The worker that died.
        worker: WorkerId,
        /// Deaths charged to the job so far.
        crashes: u8,
        /// The number of charged deaths that quarantines the job.
        crashes_max: u8,
    },
    /// A death was charged to no job: the worker had claimed none.
    NobodyBlamed {
        /// The worker.
        worker: WorkerId,
    },
    /// Offers of a dead or overdue worker went back to the queue, not charged.
    Requeued {
        /// The worker that had them.
        worker: WorkerId,
        /// How many.
        count: u32,
    },
    /// A job that lost an attempt was offered again.
    Retried {
        /// The job.
        job: JobId,
        /// The part, if the job runs in parts.
        part: Option<Part>,
        /// The attempt that begins.
        attempt: u32,
        /// The worker that it was offered to.
        worker: WorkerId,
        /// Time since the end of the last attempt.
        after_us: u64,
        /// Whether it runs alone in a worker that has run nothing.
        alone: bool,
    },
    /// A job's own code failed, and the job will be tried again.
    Backoff {
        /// The job.
        job: JobId,
        /// The part that failed, if the job runs in parts.
        part: Option<Part>,
        /// The attempt that failed.
        attempt: u32,
        /// The error that its code reported.
        message: String,
        /// Time until it is offered again.
        retry_after_ms: u64,
    },
    /// A job has ended that had a failed or lost attempt, or that began and is not `done`.
    Ended {
        /// The job.
        job: JobId,
        /// Its outcome.
        outcome: Outcome,
        /// Attempts started.
        attempts: u32,
        /// Time since the last offer; 0 if it never ran.
        after_us: u64,
    },
    /// Jobs of one user have ended in one turn that had not begun: they expired, the service stopped, or the client that
    /// they were attached to was gone.
    EndedQueued {
        /// Their outcome.
        outcome: Outcome,
        /// If they were cancelled because their client was gone: how long it had been gone.
        gone_ms: Option<u64>,
        /// How many.
        count: u64,
        /// Their numbers, rising; at most [`crate::limits::JOB_RANGES_MAX`] ranges, the first ones.
        jobs: Vec<JobRange>,
    },
    /// A client asked to run an ended job again.
    RetryAsked {
        /// The job.
        job: JobId,
    },
    /// A pool is degraded: its workers keep dying with no job to charge.
    Degraded {
        /// Its name.
        pool: String,
        /// The reason, as a text for people.
        reason: String,
    },
    /// A pool is healthy again.
    Recovered {
        /// Its name.
        pool: String,
    },
    /// No output descriptor can be made: jobs that need one wait.
    Short {
        /// What is missing, as a text for people.
        what: String,
    },
    /// Unfinished jobs of earlier runs of the daemon are queued again: all that there were.
    Reloaded {
        /// How many.
        jobs: u64,
        /// Jobs that are not among them, because no kind of this daemon runs them.
        kindless: u64,
    },
    /// Unfinished jobs of an earlier run wait, because this daemon does not offer their kind.
    Kindless {
        /// The first of them.
        first: JobId,
        /// How many.
        count: u64,
        /// The kind.
        kind: String,
    },
    /// The journal stores nothing for now: durable jobs are refused, and their ends are told later.
    JournalFailed {
        /// Why, as a text for people.
        why: String,
    },
    /// The journal stores again.
    JournalRecovered,
    /// Results were dropped early, because a limit of what is kept was reached.
    Evicted {
        /// The number of jobs.
        count: u32,
        /// The limit, as a text for people.
        limit: String,
    },
    /// The daemon accepts no new jobs.
    Draining {
        /// Jobs that have not ended yet.
        left: u64,
        /// How long they may take; `None`: without a limit.
        grace_ms: Option<u64>,
    },
    /// The daemon stops.
    Stopped,
    /// A spare replaces a worker that has reached a limit of the configuration.
    Recycled {
        /// The worker.
        worker: WorkerId,
        /// The limit that it reached.
        why: Enough,
    },
}

/// Jobs whose numbers follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct JobRange {
    /// The first.
    pub first: JobId,
    /// The last.
    pub last: JobId,
}

impl JobRange {
    /// How many jobs.
    pub fn count(self) -> u64 {
        self.last.0.saturating_sub(self.first.0).saturating_add(1)
    }
}

/// Why a worker was recycled: the limit that it reached, with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "of")]
pub enum Enough {
    /// The number of tasks.
    Tasks {
        /// Tasks that it has ended.
        ended: u64,
    },
    /// The time since its start.
    Age {
        /// In milliseconds.
        ms: u64,
    },
    /// Its memory.
    Resident {
        /// Resident memory, in bytes.
        bytes: u64,
    },
    /// Files of clients whose close hangs, and those that wait behind it: more than [`crate::limits::UNCLOSED_MAX`].
    Unclosed {
        /// How many, as the worker says.
        files: u64,
    },
}
