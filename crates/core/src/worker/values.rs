//! Plain values that this room takes and gives: a new offer, a settled one, and what the machine has to do next.
//!
//! None of them is part of the room's state; nothing can be changed through one.

use bulkhead_proto::client::outcome::{Outcome, TimeLimit};
use bulkhead_proto::death::KillReason;
use bulkhead_proto::ids::{Fence, JobId, PoolId};

use crate::worker::offer::Offer;
use crate::worker::state::Kill;

/// Tasks that a worker is to be offered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewOffer<T> {
    /// The machine's ticket, given back with the offer.
    pub(crate) ticket: T,
    /// The number of the first task: of the job, or of the part.
    pub(crate) number: JobId,
    /// How many tasks, whose numbers follow each other.
    pub(crate) count: u32,
    /// The job, as clients know it.
    pub(crate) shown: JobId,
    /// The user of the job.
    pub(crate) uid: u32,
    pub(crate) fence: Fence,
    /// The work that it adds ahead of the worker, in nanoseconds.
    pub(crate) cost_ns: u64,
    /// Its limit of wall time, in milliseconds.
    pub(crate) timeout_ms: Option<u64>,
    /// How long its task may take to end by itself when it is told to, in milliseconds.
    pub(crate) grace_ms: u32,
}

/// An offer that has left its ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settled<T> {
    pub(crate) offer: Offer<T>,
    /// Whether it was the first: another offer is the first now, or the ring is empty.
    pub(crate) was_head: bool,
    /// The limit of time that its task met before, if its job waits for the end of the task.
    pub(crate) met: Option<MetLimit>,
}

/// A limit of time that a task met: the outcome of its job, whatever the task does in its grace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MetLimit {
    pub(crate) limit: TimeLimit,
    pub(crate) limit_ms: u64,
}

impl MetLimit {
    /// The outcome of the job.
    pub(crate) fn outcome(self) -> Outcome {
        Outcome::TimedOut { limit: self.limit, limit_ms: self.limit_ms, part: None }
    }

    /// Why a worker is killed for it.
    pub(crate) fn kill_reason(self) -> KillReason {
        match self.limit {
            TimeLimit::Wall => KillReason::Timeout,
            TimeLimit::NoProgress => KillReason::NoProgress,
            TimeLimit::Cpu => KillReason::CpuTime,
            TimeLimit::ProgramStopped => KillReason::ProgramStopped,
        }
    }
}

/// What the machine has to do about a worker, because jobs and clients are concerned too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FollowUp {
    /// Nothing.
    Nothing,
    /// Kill it.
    Kill(Kill),
    /// Count a failed spawn, for this reason, and kill it.
    Bootstrap(String),
}

/// What a check of the task at the head of a ring asks the machine to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadCheck {
    /// Nothing for now.
    Nothing,
    /// Set the alarm for its limit.
    Watch,
    /// End its job, which met this limit of wall time. Its worker is killed already.
    TimedOut { limit_ms: u64 },
    /// Its job met this limit of wall time and runs on.
    TimeOut { limit_ms: u64 },
    /// Kill its worker, which does not begin the task.
    Unresponsive,
}

/// A pool that was healthy until now and is degraded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NowDegraded(pub(crate) PoolId);

/// A pool that was degraded until now and is healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NowHealthy(pub(crate) PoolId);

/// Whether a task may wait in a busy worker's ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    Now,
    /// Not at the moment: there is no room.
    NoRoom,
    /// No: tasks of its kind need an idle worker.
    NeverAhead,
}
