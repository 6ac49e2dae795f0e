//! What a job can be doing, and the legal ways between that.
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
//! Anything else is an assertion. A part of a job is an entry of the same table, but no job: see `part_set.rs`.

use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::why::{Canceller, Part};
use bulkhead_proto::ids::{Seq, WorkerId};
use bulkhead_proto::job::JobState;

use crate::event::Leftover;
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
    /// Its plan is there, and its parts are done one by one: see `part_set.rs`.
    Parted,
    /// Has its outcome.
    Ended(Box<End>),
}

/// What a job is doing, for those who read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    /// It waits in the queue.
    Queued,
    /// It waits for a backoff, until then; CLOCK_MONOTONIC nanoseconds.
    Backoff { until_ns: u64 },
    /// It waits to run alone.
    Alone,
    /// It is with a worker.
    Running { worker: WorkerId, seq: Seq, since_ns: u64 },
    /// Its parts are done, or it waits to join what they left.
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

/// Which task of its job is next, or runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TaskKind {
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
    pub(super) outcome: Outcome,
    /// A done one's result; what a failed one had written.
    pub(super) left: Leftover,
    pub(super) at_us: u64,
    pub(super) at_ns: u64,
    /// The offer that was still with a worker when the job ended: until that is settled or its worker's death
    /// proven, the job must not run again.
    pub(super) holder: Option<(WorkerId, Seq)>,
    /// The part that ended it, if one did.
    pub(super) part: Option<Part>,
    /// Who took it back, if it was cancelled.
    pub(super) by: Option<Canceller>,
    /// Clients that are still to be told.
    pub(super) untold: u32,
    pub(super) retention: Retention,
}

impl End {
    /// How it ended.
    pub(crate) fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// What it left.
    pub(crate) fn left(&self) -> &Leftover {
        &self.left
    }

    /// Wall time of it, microseconds since 1970.
    pub(crate) fn at_us(&self) -> u64 {
        self.at_us
    }

    /// The offer that was still with a worker then.
    pub(crate) fn holder(&self) -> Option<(WorkerId, Seq)> {
        self.holder
    }

    /// The part that ended it, if one did.
    pub(crate) fn part(&self) -> Option<Part> {
        self.part
    }

    /// Who took it back, if it was cancelled.
    pub(crate) fn by(&self) -> Option<Canceller> {
        self.by
    }
}

/// Which list of ended jobs a job is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retention {
    /// None: it has just ended, and [`crate::job::Jobs::announced`] is next.
    Unannounced,
    /// None: it waits for its client to take it.
    Untold,
    /// The kept ones: dropped by age and by amount.
    Kept,
    /// The quarantined ones: dropped by number alone.
    Quarantine,
}

#[cfg(test)]
mod tests {
    use super::Phase::{self, Ended, Parted, Queued, Running, Solo, Waiting};

    #[test]
    fn the_table_of_phases_is_the_code() {
        let names = |phases: &[Phase]| phases.iter().map(|phase| format!("{phase:?}")).collect();
        let code = [Queued, Waiting, Solo, Running, Parted, Ended]
            .map(|phase| (format!("{phase:?}"), names(phase.leads_to())));
        crate::state_tables::assert_told(include_str!("state.rs"), code);
    }
}
