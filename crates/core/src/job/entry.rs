//! One entry of the job table: small while the job is queued, with rarely used fields in a box of their own.
//!
//! The states are in `state.rs`. A part of a job is an entry too, but no job: see `part_set.rs`. Other rooms read an
//! entry by the methods here; only this folder writes its fields.

use bulkhead_proto::client::message::Reply;
use bulkhead_proto::client::outcome::{Outcome, Survivor};
use bulkhead_proto::client::view::JobDeath;
use bulkhead_proto::ids::{ClientId, Fence, JobId, LogId, OutputId, Tag};
use bulkhead_proto::job::{JobState, Payload};

use crate::event::Leftover;
use crate::job::attachments::AttachmentsId;
use crate::job::list::JobLinks;
use crate::job::part_set::PartSetId;
use crate::job::state::{Doing, End, EntryState, Phase, TaskKind};

/// Fields that few jobs use.
#[derive(Debug, Default)]
pub(crate) struct RareFields {
    /// Deaths that ended its attempts, charged or not, oldest first.
    pub(super) deaths: Vec<JobDeath>,
    /// When its last attempt was lost, once one was.
    pub(super) lost_ns: Option<u64>,
    /// Attempts that had begun and were given back uncharged.
    pub(super) lost: u32,
    /// How often a client asked to run it again.
    pub(super) asked: u32,
    /// Its attachments. Their files are dropped after its end, once no worker holds an offer of it.
    pub(super) attachments: Option<AttachmentsId>,
    /// Whether its client sent files with it.
    pub(super) has_files: bool,
    /// Whether it uses something that its connection registered.
    pub(super) has_registered: bool,
    /// Its part set, from its plan to its end.
    pub(super) part_set: Option<PartSetId>,
    /// The log of its latest attempt, while it is kept.
    pub(super) log: Option<LogId>,
    /// Whether that log was dropped to make room.
    pub(super) log_dropped: bool,
    /// Clients that are sent the log of each attempt as it begins.
    pub(super) followers: Vec<ClientId>,
    /// Clients that wait for its end. With a request: it submitted the job, which was run again before it was told.
    pub(super) waiters: Vec<(ClientId, Option<Tag>)>,
    /// Processes of its last attempt that could not be ended.
    pub(super) survivors: Vec<Survivor>,
}

/// A job, or a part of one.
#[derive(Debug)]
pub(crate) struct Job {
    pub(super) id: JobId,
    pub(super) state: EntryState,
    pub(super) input: Payload,
    pub(super) rare: Option<Box<RareFields>>,
    /// Its batch's place in the slab of batches.
    pub(super) batch: u32,
    pub(super) links: JobLinks,
    /// The fence of its last offer.
    pub(super) fence: Fence,
    /// Offers that were claimed, or may have been.
    pub(super) attempts: u32,
    pub(super) crashes: u8,
    pub(super) retries: u8,
    /// Whether a death was ever charged to it: every later attempt runs alone.
    pub(super) alone: bool,
    /// Which task of its job is next, or runs.
    pub(super) task_kind: TaskKind,
}

impl Job {
    /// A new, queued one.
    pub(crate) fn new(id: JobId, batch: u32, input: Payload, task_kind: TaskKind) -> Self {
        Self {
            id,
            state: EntryState::Queued,
            input,
            rare: None,
            batch,
            links: JobLinks::default(),
            fence: Fence(0),
            attempts: 0,
            crashes: 0,
            retries: 0,
            alone: false,
            task_kind,
        }
    }

    /// Whether it is a part of a job, and no job.
    pub(crate) fn is_part(&self) -> bool {
        self.task_kind == TaskKind::Run
    }

    /// Whether no attempt of any task of the job has begun: only then can it expire.
    pub(crate) fn never_began(&self) -> bool {
        self.attempts == 0 && matches!(self.task_kind, TaskKind::Whole | TaskKind::Plan)
    }

    /// Its state as clients see it: a job that is queued for its merge is shown as running.
    pub(crate) fn shown(&self) -> JobState {
        match (self.state.phase(), self.task_kind) {
            (Phase::Queued, TaskKind::Merge) => JobState::Running,
            (phase, _) => phase.shown(),
        }
    }

    /// Its number.
    pub(crate) fn id(&self) -> JobId {
        self.id
    }

    /// Its state, as other rooms see it.
    pub(crate) fn doing(&self) -> Doing {
        match self.state {
            EntryState::Queued if self.task_kind == TaskKind::Merge => Doing::Parted,
            EntryState::Queued => Doing::Queued,
            EntryState::Waiting { ref alarm } => Doing::Backoff { until_ns: alarm.at_ns().unwrap_or(0) },
            EntryState::Solo => Doing::Alone,
            EntryState::Running { worker, seq, since_ns } => Doing::Running { worker, seq, since_ns },
            EntryState::Parted => Doing::Parted,
            EntryState::Ended(_) => Doing::Ended,
        }
    }

    /// Offers of its task that were claimed, or may have been.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Deaths charged to it since it was submitted or last asked to run again.
    pub(crate) fn crashes(&self) -> u8 {
        self.crashes
    }

    /// Retries after failures since it was submitted or last asked to run again.
    pub(crate) fn retries(&self) -> u8 {
        self.retries
    }

    /// Whether a death was ever charged to it, so that it runs alone.
    pub(crate) fn is_alone(&self) -> bool {
        self.alone
    }

    /// Its input; empty once the job is done.
    pub(crate) fn input(&self) -> &Payload {
        &self.input
    }

    /// Deaths that ended its attempts, charged or not, oldest first.
    pub(crate) fn deaths(&self) -> &[JobDeath] {
        self.rare.as_ref().map_or(&[], |rare| rare.deaths.as_slice())
    }

    /// Processes of its last attempt that could not be ended. They may have ended since.
    pub(crate) fn survivors(&self) -> &[Survivor] {
        self.rare.as_ref().map_or(&[], |rare| rare.survivors.as_slice())
    }

    /// Attempts that had begun and were given back uncharged.
    pub(crate) fn lost(&self) -> u32 {
        self.rare.as_ref().map_or(0, |rare| rare.lost)
    }

    /// How often a client asked to run it again.
    pub(crate) fn asked(&self) -> u32 {
        self.rare.as_ref().map_or(0, |rare| rare.asked)
    }

    /// Whether its client sent files with it.
    pub(crate) fn has_files(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.has_files)
    }

    /// Whether it uses something that its connection registered.
    pub(crate) fn has_registered(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.has_registered)
    }

    /// Its part set, while it has one.
    pub(crate) fn part_set(&self) -> Option<PartSetId> {
        self.rare.as_ref().and_then(|rare| rare.part_set)
    }

    /// Its end, if it has ended.
    pub(crate) fn end(&self) -> Option<&End> {
        match &self.state {
            EntryState::Ended(end) => Some(end),
            EntryState::Queued
            | EntryState::Waiting { .. }
            | EntryState::Solo
            | EntryState::Running { .. }
            | EntryState::Parted => None,
        }
    }

    /// Its end, to be changed, if it has ended.
    pub(super) fn end_mut(&mut self) -> Option<&mut End> {
        match &mut self.state {
            EntryState::Ended(end) => Some(end),
            EntryState::Queued
            | EntryState::Waiting { .. }
            | EntryState::Solo
            | EntryState::Running { .. }
            | EntryState::Parted => None,
        }
    }

    /// Its rarely used fields; the first call allocates them.
    pub(super) fn rare_mut(&mut self) -> &mut RareFields {
        self.rare.get_or_insert_default()
    }

    /// When its last attempt was lost.
    pub(crate) fn lost_ns(&self) -> Option<u64> {
        self.rare.as_ref().and_then(|rare| rare.lost_ns)
    }

    /// Its attachments.
    pub(crate) fn attachments(&self) -> Option<AttachmentsId> {
        self.rare.as_ref().and_then(|rare| rare.attachments)
    }

    /// The log of its latest attempt.
    pub(crate) fn log(&self) -> Option<LogId> {
        self.rare.as_ref().and_then(|rare| rare.log)
    }

    /// Bytes that this job takes after its end, and about the bytes of a reply about it.
    pub(crate) fn kept_bytes(&self) -> u64 {
        let left = match self.end().map(|end| &end.left) {
            Some(Leftover::Inline(payload)) => payload.as_bytes().len(),
            Some(Leftover::Nothing | Leftover::Held { .. }) | None => 0,
        };
        let said = match self.end().map(|end| &end.outcome) {
            Some(Outcome::Failed { message, .. }) => message.len(),
            Some(Outcome::Crashed { last, .. }) => last.len(),
            Some(
                Outcome::Done
                | Outcome::TimedOut { .. }
                | Outcome::Cancelled
                | Outcome::Expired
                | Outcome::Lost { .. },
            )
            | None => 0,
        };
        let fixed = size_of::<Job>() + size_of::<Reply>();
        (fixed + left + said + self.input.as_bytes().len()) as u64
    }

    /// Its output, if a descriptor holds it.
    pub(crate) fn held(&self) -> Option<OutputId> {
        match self.end().map(|end| &end.left) {
            Some(Leftover::Held { output, .. }) => Some(*output),
            Some(Leftover::Nothing | Leftover::Inline(_)) | None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queued_job_is_lean() {
        assert!(size_of::<Job>() <= 96, "{} bytes", size_of::<Job>());
    }
}
