//! How other rooms name tasks: runs of equal tasks, and handles that only this room opens.
//!
//! A [`TaskRun`] is one task today, of a job or a part; many equal jobs can later be one run. Its handle is a place in
//! the tables of this room, so that settling a task needs no search; every method that opens it checks the number
//! there. A [`Ticket`] goes with an offer to a worker's ring and comes back with it; it may outlive its job.

use bulkhead_proto::ids::JobId;

use crate::job::attachments::AttachmentsId;
use crate::job::list::Key;
use crate::job::output_need::LOG_COPY_BYTES;
use crate::job::part_set::FIRST_PART;
use crate::turn::AccountId;

/// The place of a run in the tables of this room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handle {
    /// The place of the batch.
    pub(super) batch: u32,
    /// The place of the first entry.
    pub(super) index: Key,
}

/// Tasks of one batch whose numbers follow each other; today one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TaskRun {
    pub(super) handle: Handle,
    pub(super) first: JobId,
    pub(super) count: u32,
}

impl TaskRun {
    /// The number of the first task: of a job, or of a part.
    pub(crate) fn first(self) -> JobId {
        self.first
    }

    /// The number of tasks.
    pub(crate) fn count(self) -> u32 {
        self.count
    }

    /// Whether it is a part of a job, and no job.
    pub(crate) fn is_part(self) -> bool {
        self.first >= FIRST_PART
    }
}

/// What the ring keeps of an offer for this room: the handle of the task, the attachments that the offer holds, and the
/// memory that is promised to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    pub(super) handle: Handle,
    pub(super) attachments: Option<AttachmentsId>,
    /// Whose memory its output and its log are. While nothing is promised, it may have been closed.
    pub(super) account: AccountId,
    /// Room for its output, in bytes.
    pub(super) granted: u64,
    /// Whether a log goes with it.
    pub(super) has_log: bool,
    pub(super) demand: OutputDemand,
}

/// What became of an offer's right to ask for an output: open or reserved -> given or refused, given -> refused (none could be made).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OutputDemand {
    /// Its output goes elsewhere: it has no such right.
    Never,
    /// It has not asked.
    Open,
    /// It has not asked, and a reserve went with it, whose room is part of `granted`.
    Reserved,
    /// It was promised room, which is part of `granted`.
    Given,
    /// It gets none.
    Refused,
}

impl Ticket {
    /// Whose memory its output is.
    pub(crate) fn account(self) -> AccountId {
        self.account
    }

    /// Whether its task may ask for an output now.
    pub(crate) fn may_ask(self) -> bool {
        matches!(self.demand, OutputDemand::Open | OutputDemand::Reserved)
    }

    /// Whether its task was promised an output when it asked.
    pub(crate) fn was_given(self) -> bool {
        self.demand == OutputDemand::Given
    }

    /// Whether its task might have asked for an output, and was not refused one.
    pub(crate) fn might_have_output(self) -> bool {
        self.may_ask() || self.was_given()
    }

    /// The room of its reserve, or that its task was promised when it asked, in bytes. A task that may ask has no other room
    /// but that of its log.
    pub(super) fn given_bytes(self) -> u64 {
        let of_log = if self.has_log { LOG_COPY_BYTES } else { 0 };
        let has_room = matches!(self.demand, OutputDemand::Reserved | OutputDemand::Given);
        if has_room { self.granted - of_log } else { 0 }
    }
}
