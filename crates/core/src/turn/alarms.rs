//! Alarms: everything that is due at a time, in one order, and the slots in which owners keep what they set.
//!
//! An owner has an [`AlarmSlot`] for each alarm that it may set. Setting an alarm moves an earlier one of the slot,
//! and an owner cancels its alarms when their cause is over, so no alarm wakes an idle daemon for nothing. A new
//! alarm is a variant of [`Alarm`], a slot in its owner and an arm in `machine/alarms.rs`; an alarm of a worker has
//! its slot by [`WorkerAlarm::ALL`] and is cancelled with the worker. Alarms of one moment go off in the order of the
//! variants here.

use std::collections::BTreeSet;

use bulkhead_proto::ids::{ClientId, JobId, PoolId, WorkerId};

/// Why a worker is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum WorkerAlarm {
    /// It has been too long in its state.
    Overdue,
    /// The task at the head of its ring meets its limit of wall time, or has not begun in time.
    Limit,
    /// The watched task in its ring may meet a limit.
    Watch,
    /// A signal stopped it and it was not continued.
    Stopped,
    /// A signal stopped the program of its task and it was not continued.
    ProgramStop,
    /// Stops of it that were no records are told in one.
    StopsTold,
    /// It was asked to end its task, and its grace is over.
    EndOrder,
    /// It was asked for the text of its stack, and is killed.
    Stack,
    /// Its channel was full and is tried again.
    Resume,
    /// It came up in a degraded pool and has lived long enough to count as healthy.
    Survival,
}

/// The number of alarms of one worker.
pub(crate) const WORKER_ALARMS: usize = WorkerAlarm::ALL.len();

impl WorkerAlarm {
    /// All of them; the index here is the index of the slot in a worker.
    pub(crate) const ALL: [Self; 10] = [
        Self::Overdue,
        Self::Limit,
        Self::Watch,
        Self::Stopped,
        Self::ProgramStop,
        Self::StopsTold,
        Self::EndOrder,
        Self::Stack,
        Self::Resume,
        Self::Survival,
    ];
}

const _: () =
    assert!(WorkerAlarm::Survival as usize + 1 == WORKER_ALARMS, "every alarm of a worker has a slot");

/// Why the machine is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Alarm {
    /// One of a worker's alarms.
    Worker(WorkerAlarm, WorkerId),
    /// A job's backoff is over.
    Backoff(JobId),
    /// A progress subscription looks at its job.
    Progress(JobId),
    /// Jobs that have not begun expire: the first of a batch, and how many.
    Expiry(JobId, u32),
    /// A client vanished and its attached jobs are cancelled.
    Vanished(ClientId),
    /// A user has waited for so long that a pool may lend a slot.
    Lend(PoolId, u32),
    /// A descriptor that could not be made is tried again.
    Shortage,
    /// The grace of the drain, or of clients that read their last results, is over.
    Grace,
}

impl Alarm {
    /// Whether the time until this alarm counts against a task, a worker or a client.
    pub(super) fn is_charged(self) -> bool {
        match self {
            Self::Worker(WorkerAlarm::Resume | WorkerAlarm::Survival | WorkerAlarm::StopsTold, _) => false,
            Self::Worker(_, _) | Self::Expiry(_, _) | Self::Vanished(_) | Self::Grace => true,
            Self::Backoff(_) | Self::Progress(_) | Self::Lend(..) | Self::Shortage => false,
        }
    }
}

/// The time of an owner's alarm. It stays after the alarm went off, until the owner calls [`AlarmSlot::clear`].
#[derive(Debug, Default)]
pub(crate) struct AlarmSlot {
    at_ns: Option<u64>,
}

impl AlarmSlot {
    /// The time of the alarm on the clock of the turns, nanoseconds, if one was set.
    pub(crate) fn at_ns(&self) -> Option<u64> {
        self.at_ns
    }

    /// Empties the slot of an alarm that went off.
    ///
    /// # Panics
    /// If the slot is empty.
    pub(crate) fn clear(&mut self) {
        assert!(self.at_ns.is_some(), "an alarm goes off that was set");
        self.at_ns = None;
    }
}

/// All set alarms, in order.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    set: BTreeSet<(u64, Alarm)>,
    /// How many of them are charged.
    charged: usize,
}

impl Alarms {
    /// Sets an alarm, and cancels an earlier one of this slot.
    ///
    /// # Panics
    /// If another slot has set the same alarm for the same moment.
    pub(super) fn set(&mut self, slot: &mut AlarmSlot, alarm: Alarm, at_ns: u64) {
        self.cancel(slot, alarm);
        slot.at_ns = Some(at_ns);
        let is_new = self.set.insert((at_ns, alarm));
        assert!(is_new, "{alarm:?} is set by one slot");
        self.charged += usize::from(alarm.is_charged());
    }

    /// Cancels the alarm of a slot, if one is set and has not gone off.
    pub(super) fn cancel(&mut self, slot: &mut AlarmSlot, alarm: Alarm) {
        if let Some(at_ns) = slot.at_ns.take()
            && self.set.remove(&(at_ns, alarm))
        {
            self.charged -= usize::from(alarm.is_charged());
        }
    }

    /// The time of the first alarm.
    pub(super) fn next_ns(&self) -> Option<u64> {
        self.set.first().map(|&(at_ns, _)| at_ns)
    }

    /// Removes and returns the first alarm whose time has come.
    pub(super) fn due(&mut self, now_ns: u64) -> Option<Alarm> {
        if self.next_ns()? > now_ns {
            return None;
        }
        let (_, alarm) = self.set.pop_first()?;
        self.charged -= usize::from(alarm.is_charged());
        Some(alarm)
    }

    /// Whether the time until one of them counts against somebody.
    pub(super) fn is_charged(&self) -> bool {
        self.charged > 0
    }

    /// All set alarms.
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
