//! What happened, in order: the records that `bulkhead events` shows.
//!
//! A record is made for whatever is out of the ordinary, and for each submit; a job that just runs and is done
//! leaves none, so that a flood of them does not wash away the crash that somebody looks for.

use serde::{Deserialize, Serialize};

use crate::client::evidence::{Evidence, Seen};
use crate::client::outcome::Outcome;
use crate::client::why::Part;
use crate::codec::{Decode, Encode};
use crate::death::Death;
use crate::ids::{JobId, SlotId, WorkerId};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Record {
    /// Its place in the order; counts up from 1 without gaps.
    pub index: u64,
    /// When, in microseconds since 1970.
    pub at_us: u64,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// Everything that can happen. Spans are microseconds.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum What {
    /// The daemon began.
    Started {
        /// Its process.
        pid: u32,
        /// Slots of its pool.
        slots: u16,
    },
    /// A worker process was spawned.
    Spawned {
        /// The worker.
        worker: WorkerId,
        /// Its process.
        pid: u32,
    },
    /// A worker is connected and warm.
    Ready {
        /// The worker.
        worker: WorkerId,
        /// Its process.
        pid: u32,
        /// Since its spawn.
        after_us: u64,
    },
    /// A worker could not be spawned or did not come up.
    SpawnFailed {
        /// The worker that is not.
        worker: WorkerId,
        /// Why.
        error: String,
        /// When the next one is tried.
        retry_after_ms: u64,
    },
    /// A worker got a slot.
    Placed {
        /// The worker.
        worker: WorkerId,
        /// Its place.
        slot: SlotId,
        /// Whose place it was, if that one died or was retired.
        replaces: Option<WorkerId>,
        /// Since the predecessor's death was noticed; 0 without one.
        after_us: u64,
        /// Whether it stood ready as a spare when it was needed.
        warm: bool,
    },
    /// The supervisor killed a worker; the proof of its death is awaited.
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
        /// The process it was.
        pid: u32,
        /// The place it had.
        slot: Option<SlotId>,
        /// What it died of.
        death: Death,
        /// What else is known.
        evidence: Evidence,
        /// From death to notice, where the moment of death is known.
        noticed_after_us: Option<u64>,
        /// Tasks it had ended.
        ended: u64,
    },
    /// A signal stopped a worker.
    Suspended {
        /// The worker.
        worker: WorkerId,
        /// Its process.
        pid: u32,
        /// The job at the head of its ring.
        job: Option<JobId>,
        /// The signal.
        signal: i32,
    },
    /// A stopped worker goes on.
    Resumed {
        /// The worker.
        worker: WorkerId,
    },
    /// Killed long ago, and still no proof of death.
    Stuck {
        /// The worker.
        worker: WorkerId,
        /// Its process.
        pid: u32,
        /// What the kernel shows of it, and where it waits.
        seen: Option<Seen>,
    },
    /// Jobs were accepted.
    Accepted {
        /// The first.
        first: JobId,
        /// How many.
        count: u32,
        /// Of which kind.
        kind: String,
        /// Whose.
        uid: u32,
    },
    /// A death was charged to a job.
    Blamed {
        /// The job.
        job: JobId,
        /// The part of it, if it was one.
        part: Option<Part>,
        /// The attempt that was running.
        attempt: u32,
        /// Whose death.
        worker: WorkerId,
        /// Deaths charged so far.
        crashes: u8,
        /// How many quarantine it.
        crashes_max: u8,
    },
    /// A death was charged to no job: the worker had begun none.
    NobodyBlamed {
        /// The worker.
        worker: WorkerId,
    },
    /// Offers of a dead or overdue worker went back to the queue, not charged.
    Requeued {
        /// The worker that held them.
        worker: WorkerId,
        /// How many.
        count: u32,
    },
    /// A job that lost an attempt was offered again.
    Retried {
        /// The job.
        job: JobId,
        /// The part of it, if it was one.
        part: Option<Part>,
        /// The attempt that begins.
        attempt: u32,
        /// The worker it was offered to.
        worker: WorkerId,
        /// Since the end of the last attempt.
        after_us: u64,
        /// Whether it runs alone in a worker that has run nothing.
        alone: bool,
    },
    /// A job's own code failed and it will be tried again.
    Backoff {
        /// The job.
        job: JobId,
        /// The part of it, if it was one.
        part: Option<Part>,
        /// The attempt that failed.
        attempt: u32,
        /// What its code said.
        message: String,
        /// When it is offered again.
        retry_after_ms: u64,
    },
    /// A job that had trouble, or that began and did not end `done`, has ended.
    Ended {
        /// The job.
        job: JobId,
        /// How.
        outcome: Outcome,
        /// Attempts started.
        attempts: u32,
        /// Since the last offer; 0 if it never ran.
        after_us: u64,
    },
    /// A client asked to run it again.
    RetryAsked {
        /// The job.
        job: JobId,
    },
    /// A pool is degraded: its workers keep dying without a job to blame.
    Degraded {
        /// Its name.
        pool: String,
        /// What was seen, in words.
        reason: String,
    },
    /// A pool is healthy again.
    Recovered {
        /// Its name.
        pool: String,
    },
    /// No output descriptor can be made: jobs that need one wait.
    Short {
        /// What is short, in words.
        what: String,
    },
    /// Results were dropped before their time, to stay within what may be kept.
    Evicted {
        /// How many jobs.
        count: u32,
        /// The limit that was met, in words.
        limit: String,
    },
    /// The daemon takes no new jobs.
    Draining {
        /// Jobs that are still to end.
        left: u64,
        /// How long they may take; `None` is as long as it takes.
        grace_ms: Option<u64>,
    },
    /// The daemon stops.
    Stopped,
    /// A worker makes room for a spare, for what it has done or has become.
    Recycled {
        /// The worker.
        worker: WorkerId,
        /// What is enough of it.
        why: Enough,
    },
}

/// Why a worker was recycled: what had come to the limit of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "of")]
pub enum Enough {
    /// It has ended so many tasks.
    Tasks {
        /// How many.
        ended: u64,
    },
    /// It has been up for so long.
    Age {
        /// In milliseconds.
        ms: u64,
    },
    /// It has grown so large.
    Resident {
        /// Resident memory, in bytes.
        bytes: u64,
    },
}
