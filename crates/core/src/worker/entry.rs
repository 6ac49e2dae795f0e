//! One worker as the core holds it.
//!
//! | from \ to | spare | idle | busy | retiring | killed | stuck |
//! |---|---|---|---|---|---|---|
//! | starting | ready | | | | not up in time, hung up, lied, stop | |
//! | spare | | got a slot | | not needed any more | stopped by a signal, hung up, lied, stop | |
//! | idle | | | offered a task | makes room for a fresh one, recycled, drained | stopped by a signal, hung up, lied, stop | |
//! | busy | | all settled | | | any limit, cancel, stopped by a signal, lie, hung up, stop | |
//! | retiring | | | | | did not leave in time, stop | |
//! | killed | | | | | | no proof of death in time |
//!
//! Anything else is an assertion. Proof of death removes a worker from every state.

use bulkhead_proto::client::evidence::Seen;
use bulkhead_proto::client::view::WorkerState;
use bulkhead_proto::death::{KillReason, Lie};
use bulkhead_proto::ids::{PoolId, SlotId, WorkerId};

use crate::turn::{Alarm, AlarmSlot, Turn, WORKER_ALARMS, WorkerAlarm};
use crate::worker::claims::Claims;
use crate::worker::unwanted::Asked;
use crate::worker::watch::Watch;

/// Why we killed a worker: what its death will mean is decided by this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The task at its head met its limit of wall time.
    Timeout,
    /// The task at its head made no progress for too long.
    NoProgress,
    /// The task at its head used its processor time.
    CpuTime,
    /// The task at its head has more memory than it may.
    Memory { limit_bytes: u64 },
    /// The task at its head was cancelled.
    Cancel,
    /// The service stops.
    Stop,
    /// It broke a rule.
    Lie(Lie),
    /// It took no offer, or did not leave.
    Unresponsive,
    /// A signal stopped it, and nobody let it go on in time.
    Stopped,
    /// It did not come up; that was counted when it was noticed.
    Bootstrap,
    /// Its lane hung up and it did not die of itself.
    HungUp,
}

impl Cause {
    /// As the shell and the records are told.
    pub(crate) fn reason(self) -> KillReason {
        match self {
            Cause::Timeout => KillReason::Timeout,
            Cause::NoProgress => KillReason::NoProgress,
            Cause::CpuTime => KillReason::CpuTime,
            Cause::Memory { limit_bytes } => KillReason::Memory { limit_bytes },
            Cause::Stopped => KillReason::Stopped,
            Cause::Cancel => KillReason::Cancel,
            Cause::Stop => KillReason::Stop,
            Cause::Lie(lie) => KillReason::Lie { lie },
            Cause::Unresponsive | Cause::Bootstrap | Cause::HungUp => KillReason::Unresponsive,
        }
    }
}

/// What a worker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Duty {
    /// Spawned, not yet connected.
    Starting,
    /// Warm, has run nothing, has no slot.
    Spare,
    /// Has a slot and holds no offer.
    Idle,
    /// Has a slot and holds offers.
    Busy,
    /// Asked to leave; has no slot any more.
    Retiring,
    /// Killed; its death is not proven yet.
    Killed(Cause),
    /// Killed long ago, and still no proof.
    Stuck(Cause),
}

impl Duty {
    /// As clients see it; also its place among the counts.
    pub(crate) fn shown(self) -> WorkerState {
        match self {
            Duty::Starting => WorkerState::Starting,
            Duty::Spare => WorkerState::Spare,
            Duty::Idle => WorkerState::Idle,
            Duty::Busy => WorkerState::Busy,
            Duty::Retiring => WorkerState::Retiring,
            Duty::Killed(_) => WorkerState::Killed,
            Duty::Stuck(_) => WorkerState::Stuck,
        }
    }

    /// Where a worker may go from here: the table at the top of this file.
    pub(crate) fn leads_to(self) -> &'static [WorkerState] {
        use WorkerState::{Busy, Idle, Killed, Retiring, Spare, Stuck};
        match self {
            Duty::Starting => &[Spare, Killed],
            Duty::Spare => &[Idle, Retiring, Killed],
            Duty::Idle => &[Busy, Retiring, Killed],
            Duty::Busy => &[Idle, Killed],
            Duty::Retiring => &[Killed],
            Duty::Killed(_) => &[Stuck],
            Duty::Stuck(_) => &[],
        }
    }

    /// Why it was killed, if it was.
    pub(crate) fn cause(self) -> Option<Cause> {
        match self {
            Duty::Killed(cause) | Duty::Stuck(cause) => Some(cause),
            _ => None,
        }
    }
}

/// One worker.
#[derive(Debug)]
pub(crate) struct Worker<T> {
    pub(crate) duty: Duty,
    /// Where it works, from its spawn to its end.
    pub(crate) pool: PoolId,
    pub(crate) slot: Option<SlotId>,
    pub(crate) pid: Option<u32>,
    pub(crate) claims: Claims<T>,
    /// The task in its ring, if that has limits that have to be watched.
    pub(crate) watch: Option<Watch>,
    /// The task that it was asked to end.
    pub(crate) asked: Option<Asked>,
    /// What was seen of it when it became stuck.
    pub(crate) seen: Option<Seen>,
    /// Tasks it has ended.
    pub(crate) ended: u64,
    /// The last of them was reported as failed.
    pub(crate) failed_last: bool,
    /// Offers taken back from it since it was killed or hung up.
    pub(crate) requeued: u32,
    pub(crate) spawned_us: u64,
    pub(crate) spawned_ns: u64,
    pub(crate) ready_ns: u64,
    /// A signal stopped it: it is offered nothing until it goes on, and when it is killed unless it does.
    pub(crate) suspended: Option<u64>,
    /// Resident memory when it was last examined, in bytes.
    pub(crate) resident_bytes: u64,
    /// When that may be looked at again after a task.
    pub(crate) weigh_from_ns: u64,
    /// Its lane hung up: it is offered nothing any more.
    pub(crate) hung_up: bool,
    /// The proof of its death is late, and it is being examined before it is called stuck.
    pub(crate) proof_is_late: bool,
    /// It is stuck and its slot went to another.
    pub(crate) replaced: bool,
    /// Its channel is full: it is offered nothing until something of it ends, or a while has passed.
    pub(crate) full: bool,
    /// Since when nothing could be sent to it and nothing of it ended.
    pub(crate) full_ns: Option<u64>,
    alarms: [AlarmSlot; WORKER_ALARMS],
}

impl<T: Copy> Worker<T> {
    /// A worker whose process is about to be spawned.
    pub(crate) fn new(pool: PoolId, now_ns: u64, wall_us: u64) -> Self {
        Self {
            duty: Duty::Starting,
            pool,
            slot: None,
            pid: None,
            claims: Claims::new(),
            watch: None,
            asked: None,
            seen: None,
            ended: 0,
            failed_last: false,
            requeued: 0,
            spawned_us: wall_us,
            spawned_ns: now_ns,
            ready_ns: 0,
            suspended: None,
            resident_bytes: 0,
            weigh_from_ns: 0,
            hung_up: false,
            proof_is_late: false,
            replaced: false,
            full: false,
            full_ns: None,
            alarms: Default::default(),
        }
    }

    /// Sets one of its alarms, in place of an earlier one of this sort.
    pub(crate) fn set(&mut self, turn: &mut Turn, id: WorkerId, alarm: WorkerAlarm, at_ns: u64) {
        turn.set(&mut self.alarms[alarm as usize], Alarm::Worker(alarm, id), at_ns);
    }

    /// Takes one of its alarms away, if it is set.
    pub(crate) fn cancel(&mut self, turn: &mut Turn, id: WorkerId, alarm: WorkerAlarm) {
        turn.cancel(&mut self.alarms[alarm as usize], Alarm::Worker(alarm, id));
    }

    /// Takes all of its alarms away.
    pub(crate) fn cancel_all(&mut self, turn: &mut Turn, id: WorkerId) {
        for alarm in WorkerAlarm::ALL {
            self.cancel(turn, id, alarm);
        }
    }

    /// One of its alarms went off.
    pub(crate) fn rang(&mut self, alarm: WorkerAlarm) {
        self.alarms[alarm as usize].clear();
    }

    /// When one of its alarms goes off, if it is set.
    pub(crate) fn alarm_ns(&self, alarm: WorkerAlarm) -> Option<u64> {
        self.alarms[alarm as usize].at_ns()
    }

    /// Whether it may be offered tasks.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.duty, Duty::Idle | Duty::Busy)
            && !self.hung_up
            && !self.full
            && self.asked.is_none()
            && self.suspended.is_none()
    }

    /// Whether it waits for a task.
    pub(crate) fn is_idle(&self) -> bool {
        self.duty == Duty::Idle && self.is_open()
    }

    /// Whether it has run nothing: whatever it was offered was taken back before it began.
    pub(crate) fn is_fresh(&self) -> bool {
        self.ended == 0 && self.claims.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_comes_back_from_being_killed() {
        for duty in [Duty::Killed(Cause::Stop), Duty::Stuck(Cause::Stop)] {
            assert!(duty.leads_to().iter().all(|to| *to == WorkerState::Stuck));
        }
        assert!(!Duty::Busy.leads_to().contains(&WorkerState::Retiring), "only idle ones are asked to leave");
    }
}
