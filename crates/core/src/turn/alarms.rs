//! Everything that is to happen at a time, in one order, and the slots in which owners remember what they set.
//!
//! An owner keeps a [`AlarmSlot`] for each alarm that it may set; setting moves an earlier one, and what is over is cancelled,
//! so nothing wakes an idle daemon for the sake of what is over. A new alarm is a variant of [`Alarm`], its slot in its
//! owner, and an arm in `machine/alarms.rs`; an alarm of a worker needs no slot of its own, and dies with the worker.
//! Alarms of one moment go off in the order of the variants here. Jobs without limits have no entry.

use std::collections::BTreeSet;

use bulkhead_proto::ids::{ClientId, JobId, WorkerId};

/// What a worker may be looked at for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum WorkerAlarm {
    /// It did not leave the state it is in in time.
    Overdue,
    /// The task at the head of its ring meets its limit of wall time, or should have begun.
    Limit,
    /// The task that is watched in its ring may meet a limit.
    Watch,
    /// A signal stopped it and it was not continued.
    Stopped,
    /// It was asked to end its task and has had its time.
    EndOrder,
    /// Its channel was full and it may be tried again.
    Resume,
    /// It came up in a degraded pool and has lived long enough.
    Survival,
}

/// How many alarms a worker has.
pub(crate) const WORKER_ALARMS: usize = WorkerAlarm::ALL.len();

impl WorkerAlarm {
    /// Every one, in order: its place here is its place among the slots of a worker.
    pub(crate) const ALL: [Self; 7] = [
        Self::Overdue,
        Self::Limit,
        Self::Watch,
        Self::Stopped,
        Self::EndOrder,
        Self::Resume,
        Self::Survival,
    ];
}

const _: () =
    assert!(WorkerAlarm::Survival as usize + 1 == WORKER_ALARMS, "every alarm of a worker has a slot");

/// What is to be looked at when its time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Alarm {
    /// One of a worker's.
    Worker(WorkerAlarm, WorkerId),
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

/// Where an owner remembers when its alarm goes off. After that it says so still, until the owner empties it.
#[derive(Debug, Default)]
pub(crate) struct AlarmSlot {
    at_ns: Option<u64>,
}

impl AlarmSlot {
    /// When the alarm goes off, CLOCK_MONOTONIC nanoseconds, if one was set.
    pub(crate) fn at_ns(&self) -> Option<u64> {
        self.at_ns
    }

    /// The alarm went off.
    ///
    /// # Panics
    /// If it was not set.
    pub(crate) fn clear(&mut self) {
        assert!(self.at_ns.is_some(), "an alarm goes off that was set");
        self.at_ns = None;
    }
}

/// All alarms that are set.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    set: BTreeSet<(u64, Alarm)>,
}

impl Alarms {
    /// Sets one, in place of an earlier one of this slot.
    ///
    /// # Panics
    /// If it is set for that moment by another slot.
    pub(super) fn set(&mut self, slot: &mut AlarmSlot, alarm: Alarm, at_ns: u64) {
        self.cancel(slot, alarm);
        slot.at_ns = Some(at_ns);
        let is_new = self.set.insert((at_ns, alarm));
        assert!(is_new, "{alarm:?} is set by one slot");
    }

    /// Takes one away. One that went off is not there any more, which is well.
    pub(super) fn cancel(&mut self, slot: &mut AlarmSlot, alarm: Alarm) {
        if let Some(at_ns) = slot.at_ns.take() {
            self.set.remove(&(at_ns, alarm));
        }
    }

    /// When the first goes off.
    pub(super) fn next_ns(&self) -> Option<u64> {
        self.set.first().map(|&(at_ns, _)| at_ns)
    }

    /// The first whose time has come, taken away.
    pub(super) fn due(&mut self, now_ns: u64) -> Option<Alarm> {
        if self.next_ns()? > now_ns {
            return None;
        }
        self.set.pop_first().map(|(_, alarm)| alarm)
    }

    /// Alarms that are set.
    pub(super) fn iter(&self) -> impl Iterator<Item = &(u64, Alarm)> {
        self.set.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_has_one_alarm_at_a_time() {
        let (mut alarms, mut slot) = (Alarms::default(), AlarmSlot::default());
        alarms.set(&mut slot, Alarm::Grace, 9);
        alarms.set(&mut slot, Alarm::Grace, 5);
        assert_eq!((alarms.iter().count(), slot.at_ns()), (1, Some(5)));
        assert_eq!((alarms.due(4), alarms.due(5), alarms.due(100)), (None, Some(Alarm::Grace), None));
        assert_eq!(slot.at_ns(), Some(5), "its owner empties it");
        alarms.cancel(&mut slot, Alarm::Grace);
        assert_eq!(slot.at_ns(), None);
    }

    #[test]
    fn alarms_of_one_moment_go_off_by_their_sort_and_then_by_number() {
        let mut alarms = Alarms::default();
        let order = [
            Alarm::Worker(WorkerAlarm::Overdue, WorkerId(2)),
            Alarm::Worker(WorkerAlarm::Limit, WorkerId(1)),
            Alarm::Backoff(JobId(1)),
            Alarm::Grace,
        ];
        for alarm in order.iter().rev() {
            alarms.set(&mut AlarmSlot::default(), *alarm, 7);
        }
        let rung: Vec<Alarm> = std::iter::from_fn(|| alarms.due(7)).collect();
        assert_eq!(rung, order);
    }
}
