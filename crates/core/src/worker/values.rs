//! Plain values that this room takes and gives: what is to be offered, and what came of an answer, an alarm or a death.
//!
//! None of them is part of the room's state; nothing can be changed through one.

use bulkhead_proto::ids::{Fence, JobId, PoolId};

use crate::worker::offer::Offer;
use crate::worker::state::Cause;

/// Tasks that a worker is to be offered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewOffer<T> {
    /// What the machine wants back with it.
    pub(crate) ticket: T,
    /// The number of the first task: of the job, or of the part.
    pub(crate) number: JobId,
    /// How many tasks, whose numbers follow each other.
    pub(crate) count: u32,
    /// The job, as clients know it.
    pub(crate) shown: JobId,
    pub(crate) fence: Fence,
    /// What it adds to the work ahead, in nanoseconds.
    pub(crate) cost_ns: u64,
    /// Its limit of wall time, in milliseconds.
    pub(crate) timeout_ms: Option<u64>,
    /// How long its task may take to end by itself once nobody wants it, in milliseconds.
    pub(crate) grace_ms: u32,
}

/// An offer that has left its ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settled<T> {
    pub(crate) offer: Offer<T>,
    /// It was the first: another one is now, or none.
    pub(crate) was_head: bool,
}

/// What is to be done about a worker, and is not this room's alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FollowUp {
    /// Nothing.
    Nothing,
    /// It has to be killed.
    Kill(Cause),
    /// It did not come up, for this reason.
    Bootstrap(String),
}

/// What is to be done about the task at the head of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadCheck {
    /// Nothing, or nothing yet.
    Nothing,
    /// It is the first now: its limit is to be watched.
    Watch,
    /// It has had its time, in milliseconds: its job is to be ended; its worker is killed already.
    TimedOut { limit_ms: u64 },
    /// The same of a worker that is to be killed for it.
    TimeOut { limit_ms: u64 },
    /// Its worker took the offer and does not begin it.
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
    /// There is no room at the moment.
    NoRoom,
    /// Tasks of its kind need an idle worker.
    NeverAhead,
}
