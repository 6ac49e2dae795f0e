//! One offer: a task that was handed to a worker, as the core remembers it until it is settled.
//!
//! `ring.rs` writes it; other rooms read it by the methods here. The claim word of the offer stands in a shared page, which
//! the shell alone reads.

use bulkhead_proto::ids::{Fence, JobId, Seq};

use crate::worker::NewOffer;

/// A task that was handed to a worker and is not settled. `T` is the machine's ticket: this room never looks into it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer<T> {
    pub(super) seq: Seq,
    pub(super) ticket: T,
    number: JobId,
    count: u32,
    shown: JobId,
    uid: u32,
    fence: Fence,
    pub(super) cost_ns: u64,
    timeout_ms: Option<u64>,
    grace_ms: u32,
    /// A take-back was asked for.
    pub(super) recalled: bool,
    /// A take-back was lost, so the worker has begun or ended it.
    pub(super) claimed: bool,
}

impl<T: Copy> Offer<T> {
    /// An offer of this number that is made now.
    pub(super) fn new(seq: Seq, offer: NewOffer<T>) -> Self {
        Self {
            seq,
            ticket: offer.ticket,
            number: offer.number,
            count: offer.count,
            shown: offer.shown,
            uid: offer.uid,
            fence: offer.fence,
            cost_ns: offer.cost_ns,
            timeout_ms: offer.timeout_ms,
            grace_ms: offer.grace_ms,
            recalled: false,
            claimed: false,
        }
    }

    /// Which offer of its worker it is.
    pub(crate) fn seq(&self) -> Seq {
        self.seq
    }

    /// The machine's ticket.
    pub(crate) fn ticket(&self) -> T {
        self.ticket
    }

    /// The number of the task: of the job, or of the part.
    pub(crate) fn number(&self) -> JobId {
        self.number
    }

    /// How many tasks, whose numbers follow each other.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// The job, as clients know it.
    pub(crate) fn shown(&self) -> JobId {
        self.shown
    }

    /// The user of the job, which may be forgotten before the offer is settled.
    pub(crate) fn uid(&self) -> u32 {
        self.uid
    }

    /// Which offer of its task it is.
    pub(crate) fn fence(&self) -> Fence {
        self.fence
    }

    /// Its limit of wall time, in milliseconds.
    pub(crate) fn timeout_ms(&self) -> Option<u64> {
        self.timeout_ms
    }

    /// How long its task may take to end by itself when it is told to, in milliseconds.
    pub(super) fn grace_ms(&self) -> u32 {
        self.grace_ms
    }

    /// Whether it is known that the worker has begun it.
    pub(crate) fn is_claimed(&self) -> bool {
        self.claimed
    }

    /// Whether a take-back was asked for.
    pub(crate) fn is_recalled(&self) -> bool {
        self.recalled
    }

    /// A take-back is asked for; gives which offer it is.
    pub(super) fn recall(&mut self) -> Seq {
        self.recalled = true;
        self.seq
    }
}

/// What is to be done to recall an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recall {
    /// Ask for the take-back.
    Now,
    /// Nothing: the take-back was asked for before.
    Before,
    /// Look at the worker: it has begun the task.
    Claimed,
}
