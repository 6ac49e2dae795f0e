//! The states of a job, and the legal ways between them.
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
//! Any other way is an assertion in `JobTable::enter`. A part of a job goes the same ways: see `part_set.rs`.

use bulkhead_proto::client::outcome::{Outcome, OutputGone};
use bulkhead_proto::client::why::{Canceller, Part};
use bulkhead_proto::ids::{Seq, WorkerId};
use bulkhead_proto::job::JobState;

use crate::event::Leftover;
use crate::turn::AlarmSlot;

/// The state of a job, with its data.
#[derive(Debug)]
pub(crate) enum EntryState {
    /// In the queue of its pool.
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
    /// Its plan is done, and its parts are done one by one: see `part_set.rs`.
    Parted,
    /// It has its outcome.
    Ended(Box<End>),
}

/// The state of a job, as other rooms see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    /// It waits in the queue.
    Queued,
    /// It waits for its backoff until then, nanoseconds on the clock of the turns.
    Backoff { until_ns: u64 },
    /// It waits to run alone.
    Alone,
    /// It is offered to a worker.
    Running { worker: WorkerId, seq: Seq, since_ns: u64 },
    /// Its parts are done, or its merge is queued.
    Parted,
    /// It has its outcome.
    Ended,
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

/// A task of a job: the one that is next, or runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TaskKind {
    /// The only one.
    Whole,
    /// Splits the job into parts.
    Plan,
    /// Does one part; the entry is a part, and no job.
    Run,
    /// Joins the results of the parts.
    Merge,
}

impl Phase {
    /// The phases that a job may go to from this one: the table at the top of this file.
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

    /// Whether a job in it counts against the bound of the queue: jobs that wait for a backoff or a fresh worker return
    /// to it, so they keep their places.
    pub(crate) fn waits(self) -> bool {
        matches!(self, Phase::Queued | Phase::Waiting | Phase::Solo)
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

impl EntryState {
    /// This state without its data.
    pub(crate) fn phase(&self) -> Phase {
        match self {
            EntryState::Queued => Phase::Queued,
            EntryState::Waiting { .. } => Phase::Waiting,
            EntryState::Solo => Phase::Solo,
            EntryState::Running { .. } => Phase::Running,
            EntryState::Parted => Phase::Parted,
            EntryState::Ended(_) => Phase::Ended,
        }
    }
}

/// The outcome of a job, and what is kept with it.
#[derive(Debug)]
pub(crate) struct End {
    pub(super) outcome: Outcome,
    /// The result of a job that is done, or the output of one that failed.
    pub(super) left: Leftover,
    /// The output that it had until room was needed.
    pub(super) gone: Option<OutputGone>,
    pub(super) at_us: u64,
    pub(super) at_ns: u64,
    /// The offer that was with a worker when the job ended. Until it is settled or the worker's death is proven, the
    /// job must not run again.
    pub(super) holder: Option<(WorkerId, Seq)>,
    /// The part that ended it, if one did.
    pub(super) part: Option<Part>,
    /// Who cancelled it, if it was cancelled.
    pub(super) by: Option<Canceller>,
    /// Letters about this end that were not read.
    pub(super) untold: u32,
    /// Whether its client has reported that it has the result, while letters about it were not read.
    pub(super) received: bool,
    /// Whether its client learns from this end that the block of the input is free, and was not sent it yet.
    pub(super) frees_block: bool,
    pub(super) retention: Retention,
}

/// A blank end, to be filled in.
impl Default for End {
    fn default() -> Self {
        Self {
            outcome: Outcome::Done,
            left: Leftover::Nothing,
            gone: None,
            at_us: 0,
            at_ns: 0,
            holder: None,
            part: None,
            by: None,
            untold: 0,
            received: false,
            frees_block: false,
            retention: Retention::Unannounced,
        }
    }
}

impl End {
    /// How it ended.
    pub(crate) fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// The result of a job that is done, or the output of one that failed.
    pub(crate) fn left(&self) -> &Leftover {
        &self.left
    }

    /// The output that it had until room was needed.
    pub(crate) fn gone(&self) -> Option<OutputGone> {
        self.gone
    }

    /// Wall time of it, microseconds since 1970.
    pub(crate) fn at_us(&self) -> u64 {
        self.at_us
    }

    /// The offer that was with a worker when the job ended.
    pub(crate) fn holder(&self) -> Option<(WorkerId, Seq)> {
        self.holder
    }

    /// The part that ended it, if one did.
    pub(crate) fn part(&self) -> Option<Part> {
        self.part
    }

    /// Who cancelled it, if it was cancelled.
    pub(crate) fn by(&self) -> Option<Canceller> {
        self.by
    }
}

/// How long an ended job is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retention {
    /// It has just ended, and [`crate::job::Jobs::announced`] is next.
    Unannounced,
    /// Until its attached client has read its end.
    Untold,
    /// Within bounds of age, number, bytes and outputs.
    Kept,
    /// Within a bound of number: it crashed.
    Quarantine,
}

#[cfg(test)]
mod tests {
    use super::Phase;

    #[test]
    fn the_table_of_phases_is_the_code() {
        let names = |phases: &[Phase]| phases.iter().map(|phase| format!("{phase:?}")).collect();
        let code = crate::every_state!(Phase: Queued, Waiting, Solo, Running, Parted, Ended)
            .map(|phase| (format!("{phase:?}"), names(phase.leads_to())));
        crate::state_tables::assert_told(include_str!("state.rs"), code);
    }
}
