//! One job as this room holds it: lean while it is queued, with what is rare beside it.
//!
//! Its states stand in `state.rs`. A part of a job is an entry like a job, but no job: see `part_set.rs`. Other rooms read by
//! the methods here; fields are written in this folder alone.

use bulkhead_proto::client::message::Reply;
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::view::JobDeath;
use bulkhead_proto::ids::{ClientId, Fence, JobId, LogId, OutputId, Tag};
use bulkhead_proto::job::{JobState, Payload};

use crate::event::Leftover;
use crate::job::attachments::AttachmentsId;
use crate::job::list::JobLinks;
use crate::job::part_set::PartSetId;
use crate::job::state::{Doing, End, Phase, State, TaskKind};

/// What few jobs have.
#[derive(Debug, Default)]
pub(crate) struct RareFields {
    /// RecentDeaths that ended its attempts, charged or not, oldest first.
    pub(super) deaths: Vec<JobDeath>,
    /// When its last attempt was lost, once one was.
    pub(super) lost_ns: Option<u64>,
    /// Attempts that had begun and were given back uncharged.
    pub(super) lost: u32,
    /// How often somebody asked to run it again.
    pub(super) asked: u32,
    /// The files that its tasks carry; they are let go at its end, once no worker holds an offer of it.
    pub(super) attachments: Option<AttachmentsId>,
    /// Whether files of its client are among them.
    pub(super) has_files: bool,
    /// Its parts, from its plan to its end.
    pub(super) part_set: Option<PartSetId>,
    /// What its latest attempt writes, or wrote, while it is kept.
    pub(super) log: Option<LogId>,
    /// That log went to make room.
    pub(super) log_dropped: bool,
    /// Who is given the log of each attempt as it begins.
    pub(super) followers: Vec<(ClientId, Tag)>,
    /// Who waits for its end.
    pub(super) waiters: Vec<(ClientId, Tag)>,
}

/// A job.
#[derive(Debug)]
pub(crate) struct Job {
    pub(super) id: JobId,
    pub(super) state: State,
    pub(super) input: Payload,
    pub(super) rare: Option<Box<RareFields>>,
    /// Its batch's place in the slab of batches.
    pub(super) batch: u32,
    pub(super) links: JobLinks,
    /// The last offer of it.
    pub(super) fence: Fence,
    /// Offers that were claimed, or may have been.
    pub(super) attempts: u32,
    pub(super) crashes: u8,
    pub(super) retries: u8,
    /// A death was charged to it once: every attempt from then on runs alone.
    pub(super) alone: bool,
    /// Its task.
    pub(super) task_kind: TaskKind,
}

impl Job {
    /// A new one.
    pub(crate) fn new(id: JobId, batch: u32, input: Payload, task_kind: TaskKind) -> Self {
        Self {
            id,
            state: State::Queued,
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

    /// Whether no attempt of any of its tasks has begun: only then can it expire.
    pub(crate) fn never_began(&self) -> bool {
        self.attempts == 0 && matches!(self.task_kind, TaskKind::Whole | TaskKind::Plan)
    }

    /// As clients see it: one that waits for its merge has long begun.
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

    /// What it is doing.
    pub(crate) fn doing(&self) -> Doing {
        match self.state {
            State::Queued if self.task_kind == TaskKind::Merge => Doing::Parted,
            State::Queued => Doing::Queued,
            State::Waiting { ref alarm } => Doing::Backoff { until_ns: alarm.at_ns().unwrap_or(0) },
            State::Solo => Doing::Alone,
            State::Running { worker, seq, since_ns } => Doing::Running { worker, seq, since_ns },
            State::Parted => Doing::Parted,
            State::Ended(_) => Doing::Ended,
        }
    }

    /// Offers that were claimed, or may have been, of its task.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// RecentDeaths that were charged to it since somebody asked for it last.
    pub(crate) fn crashes(&self) -> u8 {
        self.crashes
    }

    /// Failures that it was tried again after since somebody asked for it last.
    pub(crate) fn retries(&self) -> u8 {
        self.retries
    }

    /// Whether a death was charged to it once, so that it runs alone.
    pub(crate) fn is_alone(&self) -> bool {
        self.alone
    }

    /// Its input; empty once it is done.
    pub(crate) fn input(&self) -> &Payload {
        &self.input
    }

    /// RecentDeaths that ended its attempts, charged or not, oldest first.
    pub(crate) fn deaths(&self) -> &[JobDeath] {
        self.rare.as_ref().map_or(&[], |rare| rare.deaths.as_slice())
    }

    /// Attempts that had begun and were given back uncharged.
    pub(crate) fn lost(&self) -> u32 {
        self.rare.as_ref().map_or(0, |rare| rare.lost)
    }

    /// How often somebody asked to run it again.
    pub(crate) fn asked(&self) -> u32 {
        self.rare.as_ref().map_or(0, |rare| rare.asked)
    }

    /// Whether files of its client came with it.
    pub(crate) fn has_files(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.has_files)
    }

    /// Its parts, while it has any.
    pub(crate) fn part_set(&self) -> Option<PartSetId> {
        self.rare.as_ref().and_then(|rare| rare.part_set)
    }

    /// Its end, if it has ended.
    pub(crate) fn end(&self) -> Option<&End> {
        match &self.state {
            State::Ended(end) => Some(end),
            State::Queued | State::Waiting { .. } | State::Solo | State::Running { .. } | State::Parted => {
                None
            }
        }
    }

    /// Its end, to be changed.
    pub(super) fn end_mut(&mut self) -> Option<&mut End> {
        match &mut self.state {
            State::Ended(end) => Some(end),
            State::Queued | State::Waiting { .. } | State::Solo | State::Running { .. } | State::Parted => {
                None
            }
        }
    }

    /// What few jobs have, made when first needed.
    pub(super) fn rare_mut(&mut self) -> &mut RareFields {
        self.rare.get_or_insert_default()
    }

    /// When its last attempt was lost.
    pub(crate) fn lost_ns(&self) -> Option<u64> {
        self.rare.as_ref().and_then(|rare| rare.lost_ns)
    }

    /// The files that its tasks carry.
    pub(crate) fn attachments(&self) -> Option<AttachmentsId> {
        self.rare.as_ref().and_then(|rare| rare.attachments)
    }

    /// The log of its latest attempt.
    pub(crate) fn log(&self) -> Option<LogId> {
        self.rare.as_ref().and_then(|rare| rare.log)
    }

    /// Bytes it costs to keep this job after its end, and about those that telling of it takes.
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

    /// The output that is held for it.
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
        let bytes = size_of::<slab::Slab<Job>>() + size_of::<Job>();
        assert!(size_of::<Job>() <= 96, "{} bytes", size_of::<Job>());
        assert!(bytes < 200);
    }
}
