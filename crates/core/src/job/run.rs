//! How other rooms name what they were given: runs of equal tasks, and the handles that only this room opens.
//!
//! A [`Run`] is one task today, a job's or a part's; many equal jobs can later be one. Its handle is a place in the tables
//! of this room, so that nothing is searched for when a task is settled; every method that opens it checks that the
//! number still stands there. A [`Ticket`] goes with an offer to a worker and comes back with it; it may outlive its job.

use bulkhead_proto::ids::JobId;

use crate::job::attachments::AttachmentsId;
use crate::job::list::Key;
use crate::job::part_set::FIRST_PART;

/// Where a run stands in the tables of this room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handle {
    /// The batch.
    pub(super) batch: u32,
    /// The entry.
    pub(super) index: Key,
}

/// Tasks of one batch whose numbers follow each other; today one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(super) handle: Handle,
    pub(super) first: JobId,
    pub(super) count: u32,
}

impl Run {
    /// The number of the first task: of the job, or of the part.
    pub(crate) fn first(self) -> JobId {
        self.first
    }

    /// How many tasks.
    pub(crate) fn count(self) -> u32 {
        self.count
    }

    /// Whether it is a part of a job, and no job.
    pub(crate) fn is_part(self) -> bool {
        self.first >= FIRST_PART
    }
}

/// What an offer carries for this room: the handle of its task, and the attachments that it holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    pub(super) handle: Handle,
    pub(super) attachments: Option<AttachmentsId>,
}
