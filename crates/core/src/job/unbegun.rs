//! Jobs that end before they began, because they expire, the service stops, or their client is gone: one record for each
//! user and cause in a turn, with a count and the ranges of their numbers.
//!
//! A record for each job would push all others out of the ring. Jobs that a user cancels are not among them: that user
//! knows. [`Jobs::end`] notes each job, the machine has the records made at the end of the turn, and nothing stays here
//! between two turns.

use std::collections::BTreeMap;

use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::record::{JobRange, What};
use bulkhead_proto::client::why::Canceller;
use bulkhead_proto::ids::JobId;
use bulkhead_proto::limits::JOB_RANGES_MAX;

use crate::job::Jobs;
use crate::turn::{Owner, Turn};

/// Why jobs ended that had not begun.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum UnbegunCause {
    Expired,
    Lost(String),
    Vanished { after_ms: u64 },
}

impl UnbegunCause {
    /// The cause, unless it is no news to the user of the job.
    fn of(outcome: &Outcome, by: Option<Canceller>) -> Option<Self> {
        match (outcome, by) {
            (Outcome::Expired, _) => Some(Self::Expired),
            (Outcome::Lost { reason }, _) => Some(Self::Lost(reason.clone())),
            (Outcome::Cancelled, Some(Canceller::Vanished { after_ms })) => Some(Self::Vanished { after_ms }),
            (
                Outcome::Done
                | Outcome::Failed { .. }
                | Outcome::Crashed { .. }
                | Outcome::TimedOut { .. }
                | Outcome::Cancelled,
                _,
            ) => None,
        }
    }

    fn record(self, count: u64, jobs: Vec<JobRange>) -> What {
        let (outcome, gone_ms) = match self {
            Self::Expired => (Outcome::Expired, None),
            Self::Lost(reason) => (Outcome::Lost { reason }, None),
            Self::Vanished { after_ms } => (Outcome::Cancelled, Some(after_ms)),
        };
        What::EndedQueued { outcome, gone_ms, count, jobs }
    }
}

/// The jobs that ended in this turn before they began, by user and cause.
#[derive(Debug, Default)]
pub(crate) struct UnbegunEnds {
    groups: BTreeMap<(u32, UnbegunCause), Vec<JobRange>>,
}

impl UnbegunEnds {
    /// Whether none is noted.
    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Notes a job of this user that ended so.
    pub(super) fn note(&mut self, uid: u32, job: JobId, outcome: &Outcome, by: Option<Canceller>) {
        let Some(cause) = UnbegunCause::of(outcome, by) else { return };
        let ranges = self.groups.entry((uid, cause)).or_default();
        match ranges.last_mut() {
            Some(range) if range.last.0 + 1 == job.0 => range.last = job,
            _ => ranges.push(JobRange { first: job, last: job }),
        }
    }
}

/// The same jobs in rising order, with as few ranges as there can be.
fn merged(mut ranges: Vec<JobRange>) -> Vec<JobRange> {
    ranges.sort_unstable_by_key(|range| range.first);
    let mut merged: Vec<JobRange> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(before) if before.last.0 + 1 == range.first.0 => before.last = range.last,
            _ => merged.push(range),
        }
    }
    merged
}

impl Jobs {
    /// Records the jobs that ended in this turn before they began.
    pub(crate) fn record_unbegun(&mut self, turn: &mut Turn) {
        for ((uid, cause), ranges) in std::mem::take(&mut self.unbegun.groups) {
            let mut jobs = merged(ranges);
            let count = jobs.iter().map(|range| range.count()).sum();
            jobs.truncate(JOB_RANGES_MAX);
            turn.record(cause.record(count, jobs), Owner::User(uid));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_merged_in_whatever_order_their_jobs_ended() {
        let mut ends = UnbegunEnds::default();
        for job in [9, 10, 3, 2, 1, 7, 11] {
            ends.note(7, JobId(job), &Outcome::Expired, None);
        }
        ends.note(8, JobId(8), &Outcome::Expired, None);
        ends.note(7, JobId(4), &Outcome::Cancelled, Some(Canceller::Owner { uid: 7 }));
        let groups: Vec<_> =
            ends.groups.into_iter().map(|((uid, _), ranges)| (uid, merged(ranges))).collect();
        let range = |first, last| JobRange { first: JobId(first), last: JobId(last) };
        assert_eq!(groups, [(7, vec![range(1, 3), range(7, 7), range(9, 11)]), (8, vec![range(8, 8)])]);
    }
}
