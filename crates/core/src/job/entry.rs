//! One job as the core holds it: lean while it is queued, with what is rare beside it.
//!
//! | from \ to | queued | waiting | solo | running | parted | ended |
//! |---|---|---|---|---|---|---|
//! | queued | | | | offered | | cancelled, expired, lost |
//! | waiting | backoff over | | backoff over, was charged | | | cancelled, lost |
//! | solo | | | | offered to a fresh worker | | cancelled, lost |
//! | running | given back uncharged | its code failed | charged, or given back after that | | its plan is there | done, failed, crashed, timed out, cancelled, lost |
//! | parted | all parts done: to be merged | | the same, was charged | | | by a part: failed, crashed, timed out; cancelled, lost |
//! | ended | asked to retry | | asked to retry, was charged | | | |
//!
//! Anything else is an assertion. A part of a job is an entry of the same table, but no job: see `fan.rs`.

use bulkhead_proto::client::message::Reply;
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::view::JobDeath;
use bulkhead_proto::client::why::{Canceller, Part};
use bulkhead_proto::ids::{ClientId, Fence, JobId, LogId, OutputId, Seq, Tag, WorkerId};
use bulkhead_proto::job::{JobState, Payload};

use crate::event::Leftover;
use crate::job::attachments::FreightId;
use crate::job::fan::FanId;
use crate::job::list::Links;
use crate::turn::AlarmSlot;

/// What a job is doing.
#[derive(Debug)]
pub(crate) enum State {
    /// In the queue.
    Queued,
    /// Its code failed: it waits for its backoff to pass.
    Waiting { alarm: AlarmSlot },
    /// A death was charged to it: it waits to run alone in a worker that has run nothing.
    Solo,
    /// Offered to a worker.
    Running {
        worker: WorkerId,
        seq: Seq,
        /// When it was offered.
        since_ns: u64,
    },
    /// Its plan is there, and its parts are done one by one: see `fan.rs`.
    Parted,
    /// Has its outcome.
    Ended(Box<End>),
}

/// A state without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Queued,
    Waiting,
    Solo,
    Running,
    Parted,
    Ended,
}

/// How many phases there are.
pub(crate) const PHASES: usize = Phase::Ended as usize + 1;

/// Which task of its job is next, or runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The only one.
    Whole,
    /// Says how the job is split.
    Plan,
    /// Does one part: the entry is a part, and no job.
    Run,
    /// Joins what the parts left.
    Merge,
}

impl Phase {
    /// Where a job may go from here: the table at the top of this file.
    pub(crate) fn leads_to(self) -> &'static [Phase] {
        match self {
            Phase::Queued => &[Phase::Running, Phase::Ended],
            Phase::Waiting => &[Phase::Queued, Phase::Solo, Phase::Ended],
            Phase::Solo => &[Phase::Running, Phase::Ended],
            Phase::Running => &[Phase::Queued, Phase::Waiting, Phase::Solo, Phase::Parted, Phase::Ended],
            Phase::Parted => &[Phase::Queued, Phase::Solo, Phase::Ended],
            Phase::Ended => &[Phase::Queued, Phase::Solo],
        }
    }

    /// As clients see it.
    pub(crate) fn shown(self) -> JobState {
        match self {
            Phase::Queued => JobState::Queued,
            Phase::Waiting | Phase::Solo => JobState::Retrying,
            Phase::Running | Phase::Parted => JobState::Running,
            Phase::Ended => JobState::Ended,
        }
    }
}

impl State {
    /// This state without its data.
    pub(crate) fn phase(&self) -> Phase {
        match self {
            State::Queued => Phase::Queued,
            State::Waiting { .. } => Phase::Waiting,
            State::Solo => Phase::Solo,
            State::Running { .. } => Phase::Running,
            State::Parted => Phase::Parted,
            State::Ended(_) => Phase::Ended,
        }
    }
}

/// How a job ended, and what is left of it.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) outcome: Outcome,
    pub(crate) left: Left,
    pub(crate) at_us: u64,
    pub(crate) at_ns: u64,
    /// The offer that was still with a worker when the job ended: until that is settled or its worker's death
    /// proven, the job must not run again.
    pub(crate) holder: Option<(WorkerId, Seq)>,
    /// The part that ended it, if one did.
    pub(crate) part: Option<Part>,
    /// Who took it back, if it was cancelled.
    pub(crate) by: Option<Canceller>,
    /// Clients that are still to be told.
    pub(crate) untold: u32,
    pub(crate) shelf: Shelf,
}

/// Which list of ended jobs a job is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shelf {
    /// None: it waits for its client to take it.
    Untold,
    /// The kept ones: dropped by age and by amount.
    Kept,
    /// The quarantined ones: dropped by number alone.
    Quarantine,
}

/// What a job left: a done one its result, a failed one what it had written.
#[derive(Debug)]
pub(crate) enum Left {
    Nothing,
    Inline(Payload),
    Held { output: OutputId, bytes: u64 },
}

impl From<Leftover> for Left {
    fn from(leftover: Leftover) -> Self {
        match leftover {
            Leftover::Nothing => Self::Nothing,
            Leftover::Inline(payload) => Self::Inline(payload),
            Leftover::Held { output, bytes } => Self::Held { output, bytes },
        }
    }
}

/// What few jobs have.
#[derive(Debug, Default)]
pub(crate) struct Aside {
    /// Deaths that ended its attempts, charged or not, oldest first.
    pub(crate) deaths: Vec<JobDeath>,
    /// When its last attempt was lost, once one was.
    pub(crate) lost_ns: Option<u64>,
    /// Attempts that had begun and were given back uncharged.
    pub(crate) lost: u32,
    /// How often somebody asked to run it again.
    pub(crate) asked: u32,
    /// The files that its tasks carry; they are let go at its end, once no worker holds an offer of it.
    pub(crate) freight: Option<FreightId>,
    /// Whether files of its client are among them.
    pub(crate) has_files: bool,
    /// Its parts, from its plan to its end.
    pub(crate) fan: Option<FanId>,
    /// What its latest attempt writes, or wrote, while it is kept.
    pub(crate) log: Option<LogId>,
    /// That log went to make room.
    pub(crate) log_dropped: bool,
    /// Who is given the log of each attempt as it begins.
    pub(crate) followers: Vec<(ClientId, Tag)>,
    /// Who waits for its end.
    pub(crate) waiters: Vec<(ClientId, Tag)>,
}

/// A job.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: JobId,
    pub(crate) state: State,
    pub(crate) input: Payload,
    pub(crate) aside: Option<Box<Aside>>,
    /// Its batch's place in the slab of batches.
    pub(crate) batch: u32,
    pub(crate) links: Links,
    /// The last offer of it.
    pub(crate) fence: Fence,
    /// Offers that were claimed, or may have been.
    pub(crate) attempts: u32,
    pub(crate) crashes: u8,
    pub(crate) retries: u8,
    /// A death was charged to it once: every attempt from then on runs alone.
    pub(crate) alone: bool,
    /// Its task.
    pub(crate) step: Step,
}

impl Job {
    /// A new one.
    pub(crate) fn new(id: JobId, batch: u32, input: Payload, step: Step) -> Self {
        Self {
            id,
            state: State::Queued,
            input,
            aside: None,
            batch,
            links: Links::default(),
            fence: Fence(0),
            attempts: 0,
            crashes: 0,
            retries: 0,
            alone: false,
            step,
        }
    }

    /// Whether it is a part of a job, and no job.
    pub(crate) fn is_part(&self) -> bool {
        self.step == Step::Run
    }

    /// Whether no attempt of any of its tasks has begun: only then can it expire.
    pub(crate) fn never_began(&self) -> bool {
        self.attempts == 0 && matches!(self.step, Step::Whole | Step::Plan)
    }

    /// As clients see it: one that waits for its merge has long begun.
    pub(crate) fn shown(&self) -> JobState {
        match (self.state.phase(), self.step) {
            (Phase::Queued, Step::Merge) => JobState::Running,
            (phase, _) => phase.shown(),
        }
    }

    /// Its parts, while it has any.
    pub(crate) fn fan(&self) -> Option<FanId> {
        self.aside.as_ref().and_then(|aside| aside.fan)
    }

    /// Its end, if it has ended.
    pub(crate) fn end(&self) -> Option<&End> {
        match &self.state {
            State::Ended(end) => Some(end),
            _ => None,
        }
    }

    /// Its end, to be changed.
    pub(crate) fn end_mut(&mut self) -> Option<&mut End> {
        match &mut self.state {
            State::Ended(end) => Some(end),
            _ => None,
        }
    }

    /// What few jobs have, made when first needed.
    pub(crate) fn aside_mut(&mut self) -> &mut Aside {
        self.aside.get_or_insert_default()
    }

    /// When its last attempt was lost.
    pub(crate) fn lost_ns(&self) -> Option<u64> {
        self.aside.as_ref().and_then(|aside| aside.lost_ns)
    }

    /// The files that its tasks carry.
    pub(crate) fn freight(&self) -> Option<FreightId> {
        self.aside.as_ref().and_then(|aside| aside.freight)
    }

    /// The log of its latest attempt.
    pub(crate) fn log(&self) -> Option<LogId> {
        self.aside.as_ref().and_then(|aside| aside.log)
    }

    /// Bytes it costs to keep this job after its end, and about those that telling of it takes.
    pub(crate) fn kept_bytes(&self) -> u64 {
        let left = match self.end().map(|end| &end.left) {
            Some(Left::Inline(payload)) => payload.as_bytes().len(),
            _ => 0,
        };
        let said = match self.end().map(|end| &end.outcome) {
            Some(Outcome::Failed { message, .. }) => message.len(),
            Some(Outcome::Crashed { last, .. }) => last.len(),
            _ => 0,
        };
        let fixed = size_of::<Job>() + size_of::<Reply>();
        (fixed + left + said + self.input.as_bytes().len()) as u64
    }

    /// The output that is held for it.
    pub(crate) fn held(&self) -> Option<OutputId> {
        match self.end().map(|end| &end.left) {
            Some(Left::Held { output, .. }) => Some(*output),
            _ => None,
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
