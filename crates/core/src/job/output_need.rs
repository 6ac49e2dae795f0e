//! What the next task of a job needs in memory: an output of its own, one that the tasks of its job share, a log.
//!
//! The machine compares an [`OutputNeed`] with what its account has left, and gives an [`OutputGrant`] back with the offer.
//! The largest output of a kind is its `output_max_bytes`, which each kind has (`Config::usual_output_max`). A job that is done in parts needs room
//! for its plan, for the shared output and for the packed results of its parts before its plan is offered, so that it can
//! go on once it has begun.

use bulkhead_proto::job::OutputMode;
use bulkhead_proto::limits::{OUTPUT_MAX_BYTES, PARTS_MAX, PLAN_MAX_BYTES, RESULTS_MAX_BYTES};
use bulkhead_proto::log::LOG_BYTES;

use crate::job::attachments::AttachmentTable;
use crate::job::held_outputs::FILES_OF_PARTS;
use crate::job::list::Key;
use crate::job::part_set::{PartSets, part_of};
use crate::job::run::TaskRun;
use crate::job::state::TaskKind;
use crate::job::table::JobTable;
use crate::job::{Jobs, OutputNeed};
use crate::turn::Turn;

/// Most bytes of the packed results of one job's parts: the results, and an offset for each.
const PACKED_MAX_BYTES: u64 = RESULTS_MAX_BYTES + 16 * PARTS_MAX as u64;
/// What a worker's copy of a log counts, so that its account stays open as long as the worker has the offer.
pub(super) const LOG_COPY_BYTES: u64 = 4096;

impl OutputNeed {
    /// Whether it needs nothing.
    pub(crate) fn is_nothing(&self) -> bool {
        self.own_max + self.shared_max + self.fixed == 0
    }

    /// How many files are made for it, beside those that its job has already.
    pub(crate) fn files(&self) -> u64 {
        let has_own = self.has_log || self.own_max > 0 && !self.is_plan;
        let of_job = if self.fixed_of_job > 0 { FILES_OF_PARTS } else { 0 };
        u64::from(has_own) + u64::from(self.has_log) + of_job
    }

    /// A grant of so many bytes for its outputs.
    pub(crate) fn grant(&self, own_bytes: u64, shared_bytes: u64) -> OutputGrant {
        let of_job = if self.is_plan { own_bytes } else { 0 };
        OutputGrant {
            own_bytes,
            shared_bytes,
            offer_bytes: own_bytes - of_job + if self.has_log { LOG_COPY_BYTES } else { 0 },
            job_bytes: of_job + shared_bytes + self.fixed_of_job,
            has_log: self.has_log,
        }
    }
}

/// The room that a task gets, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OutputGrant {
    own_bytes: u64,
    shared_bytes: u64,
    /// What counts until the offer is settled.
    pub(super) offer_bytes: u64,
    /// What counts until the job has ended and no offer of it is left.
    pub(super) job_bytes: u64,
    pub(super) has_log: bool,
}

impl OutputGrant {
    /// Whether the attempt has a log.
    pub(crate) fn has_log(&self) -> bool {
        self.has_log
    }

    /// The room for the output of the task alone.
    pub(super) fn own_bytes(&self) -> u64 {
        self.own_bytes
    }

    /// The room for the shared output, if the task is the first that has it.
    pub(super) fn shared_bytes(&self) -> u64 {
        self.shared_bytes
    }
}

/// What the next task at this place needs.
pub(super) fn output_need(
    (table, part_sets, attachments): (&JobTable, &PartSets, &AttachmentTable),
    turn: &Turn,
    key: Key,
) -> OutputNeed {
    let (job, batch) = (&table[key], table.batch(key));
    let kind = turn.kind(batch.kind);
    let largest = kind.and_then(|kind| kind.output_max_bytes).unwrap_or(OUTPUT_MAX_BYTES);
    let is_in_memory = batch.policy.output == OutputMode::Descriptor;
    let has_log = kind.is_some_and(|kind| kind.logs && !kind.plans);
    // The attachments of a part are those of its job.
    let own = part_of(job.id).and_then(|(id, _)| Some(part_sets.get(id)?.job)).unwrap_or(key);
    let (has_shared, has_results, promised) = attachments.room_of(table[own].attachments());
    let is_whole = job.task_kind == TaskKind::Whole;
    let own_max = match job.task_kind {
        TaskKind::Whole if is_in_memory => largest,
        TaskKind::Plan if !has_results => PLAN_MAX_BYTES,
        TaskKind::Whole | TaskKind::Plan | TaskKind::Run | TaskKind::Merge => 0,
    };
    let shared_max = if is_whole || !is_in_memory || has_shared { 0 } else { largest };
    let fixed_of_job = if is_whole || has_results { 0 } else { PACKED_MAX_BYTES };
    let log = if has_log { LOG_BYTES + LOG_COPY_BYTES } else { 0 };
    OutputNeed {
        account: batch.account,
        own_max,
        shared_max,
        fixed: fixed_of_job + log,
        promised,
        fixed_of_job,
        is_plan: job.task_kind == TaskKind::Plan,
        has_log,
    }
}

impl Jobs {
    /// What the next task of a run needs in memory.
    pub(crate) fn output_need(&self, turn: &Turn, run: TaskRun) -> OutputNeed {
        output_need((&self.table, &self.part_sets, &self.attachments), turn, self.table.open(run))
    }
}
