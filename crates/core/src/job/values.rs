//! Plain values that this room takes and gives: what is to be admitted, what was begun, what an end leaves to be told.
//!
//! None of them is part of the room's state; nothing can be changed through one.

use bulkhead_proto::client::evidence::Evidence;
use bulkhead_proto::client::message::Submit;
use bulkhead_proto::death::Death;
use bulkhead_proto::ids::{ClientId, JobId, KindId, PoolId, Seq, Tag, WorkerId};

use crate::action::Task;
use crate::event::Attached;
use crate::job::run::Ticket;
use crate::turn::TaskLimits;
use bulkhead_proto::ids::Fence;

/// Jobs that are to be taken in: the first `count` of a submit that was checked.
pub(crate) struct Admission {
    pub(crate) client: ClientId,
    pub(crate) tag: Tag,
    pub(crate) uid: u32,
    pub(crate) kind: KindId,
    /// Whose workers run that kind.
    pub(crate) pool: PoolId,
    pub(crate) submit: Submit,
    pub(crate) files: Vec<Attached>,
    pub(crate) count: u32,
}

/// An attempt that was begun: what its worker is to be offered.
pub(crate) struct Begun {
    pub(crate) task: Task,
    pub(crate) ticket: Ticket,
    pub(crate) limits: TaskLimits,
    pub(crate) uid: u32,
    pub(crate) client: ClientId,
    pub(crate) pool: PoolId,
}

/// An offer as its worker's ring remembers it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) worker: WorkerId,
    pub(crate) seq: Seq,
    /// The number of the task: the job's, or the part's.
    pub(crate) number: JobId,
    /// How many tasks, whose numbers follow each other.
    pub(crate) count: u32,
    pub(crate) fence: Fence,
    pub(crate) ticket: Ticket,
}

/// What an ended job's client was not told weighs, against what may wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Untold {
    pub(crate) client: ClientId,
    pub(crate) bytes: u64,
    /// Outputs that are held for it.
    pub(crate) outputs: u64,
}

/// A batch whose last job is gone, and that its client keeps a note of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchGone {
    pub(crate) client: ClientId,
    /// The number of its first job.
    pub(crate) first: JobId,
}

/// What clients have to be relieved of when an ended job leaves its shelf or the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Released {
    pub(crate) untold: Option<Untold>,
    pub(crate) batch: Option<BatchGone>,
}

/// Who is to be told of an end.
pub(crate) struct EndNotice {
    /// Those that wait for it.
    pub(crate) waiters: Vec<(ClientId, Tag)>,
    /// The client that it is attached to.
    pub(crate) attached: Option<(ClientId, Tag)>,
}

/// A proven death, as far as it is evidence.
#[derive(Clone, Copy)]
pub(crate) struct Dead<'a> {
    pub(crate) worker: WorkerId,
    pub(crate) pid: u32,
    pub(crate) death: &'a Death,
    pub(crate) evidence: &'a Evidence,
}
