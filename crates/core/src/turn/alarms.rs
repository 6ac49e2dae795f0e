//! Everything that is to happen at a time, in one order. Jobs without limits have no entry.
//!
//! Whoever sets an alarm remembers when it goes off and takes it away once it is of no use: nothing wakes an idle
//! daemon for the sake of what is over.

use std::collections::BTreeSet;

use bulkhead_proto::ids::{ClientId, JobId, WorkerId};

/// What is to be looked at when its time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Alarm {
    /// A worker did not leave the state it is in in time.
    Worker(WorkerId),
    /// The task at the head of a worker's ring meets its limit.
    Limit(WorkerId),
    /// The task that is watched in a worker's ring may meet a limit.
    Watch(WorkerId),
    /// A worker that a signal stopped was not continued.
    Suspended(WorkerId),
    /// A worker that was asked to end its task has had its time.
    Asked(WorkerId),
    /// A worker whose channel was full may be tried again.
    Resume(WorkerId),
    /// A worker of a degraded pool has lived long enough.
    Survived(WorkerId),
    /// A job's backoff is over.
    Backoff(JobId),
    /// A job is looked at: its client wants to know how far it is.
    Progress(JobId),
    /// Jobs from this one on, so many, expire unless they have begun.
    Expiry(JobId, u32),
    /// A client that vanished does not come back.
    Vanished(ClientId),
    /// What was missing for an output descriptor may be there again.
    Shortage,
    /// The grace of the drain, or of the farewell, is over.
    Grace,
}

/// All alarms.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    set: BTreeSet<(u64, Alarm)>,
}

impl Timers {
    /// Sets one, at CLOCK_MONOTONIC nanoseconds.
    pub(crate) fn set(&mut self, at_ns: u64, alarm: Alarm) {
        self.set.insert((at_ns, alarm));
    }

    /// Takes one away.
    pub(crate) fn cancel(&mut self, at_ns: u64, alarm: Alarm) {
        self.set.remove(&(at_ns, alarm));
    }

    /// When the first goes off.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        self.set.first().map(|&(at_ns, _)| at_ns)
    }

    /// The first whose time has come, taken away.
    pub(crate) fn due(&mut self, now_ns: u64) -> Option<Alarm> {
        if self.next_ns()? > now_ns {
            return None;
        }
        self.set.pop_first().map(|(_, alarm)| alarm)
    }

    /// Alarms that are set.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &(u64, Alarm)> {
        self.set.iter()
    }
}
