//! Plain values that this room takes and returns.
//!
//! None of them is part of the room's state, and no change of one changes the room.
//!
//! None of them is part of the room's state; nothing can be changed through one.

use bulkhead_proto::client::evidence::Evidence;
use bulkhead_proto::client::message::Submit;
use bulkhead_proto::death::Death;
use bulkhead_proto::ids::{ClientId, JobId, KindId, PoolId, Seq, Tag, WorkerId};

use crate::action::Task;
use crate::event::Attached;
use crate::job::run::Ticket;
use crate::turn::{AccountId, TaskLimits};
use bulkhead_proto::ids::Fence;

/// The first `count` jobs of a checked submit, to be admitted.
pub(crate) struct Admission {
    pub(crate) client: ClientId,
    pub(crate) tag: Tag,
    pub(crate) uid: u32,
    pub(crate) account: AccountId,
    pub(crate) kind: KindId,
    /// The pool that runs the kind.
    pub(crate) pool: PoolId,
    pub(crate) submit: Submit,
    pub(crate) files: Vec<Attached>,
    pub(crate) count: u32,
}

/// An attempt that has begun: what is offered to the worker.
pub(crate) struct StartedAttempt {
    pub(crate) task: Task,
    pub(crate) ticket: Ticket,
    pub(crate) limits: TaskLimits,
    pub(crate) uid: u32,
    pub(crate) client: ClientId,
    pub(crate) pool: PoolId,
}

/// An offer in a worker's ring, as this room looks its task up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OfferRef {
    pub(crate) worker: WorkerId,
    pub(crate) seq: Seq,
    /// The number of the task: of a job, or of a part.
    pub(crate) number: JobId,
    /// The number of tasks; their numbers follow each other.
    pub(crate) count: u32,
    pub(crate) fence: Fence,
    pub(crate) ticket: Ticket,
}

/// The weight of an end that its attached client has not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Untold {
    pub(crate) client: ClientId,
    pub(crate) bytes: u64,
    /// Held outputs.
    pub(crate) outputs: u64,
}

/// A batch in its client's list whose last job is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchGone {
    pub(crate) client: ClientId,
    /// The number of its first job.
    pub(crate) first: JobId,
}

/// What the room of clients stops counting when an ended job leaves its retention or the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Released {
    pub(crate) untold: Option<Untold>,
    pub(crate) batch: Option<BatchGone>,
}

/// The clients to be told of an end.
pub(crate) struct EndNotice {
    /// Clients that wait for the job; with a request, if that submitted it.
    pub(crate) waiters: Vec<(ClientId, Option<Tag>)>,
    /// The client that the job is attached to.
    pub(crate) attached: Option<(ClientId, Tag)>,
}

/// A proven death, as evidence.
#[derive(Clone, Copy)]
pub(crate) struct ProvenDeath<'a> {
    pub(crate) worker: WorkerId,
    pub(crate) pid: u32,
    pub(crate) death: &'a Death,
    pub(crate) evidence: &'a Evidence,
}
