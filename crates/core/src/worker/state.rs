//! The states of a worker and the legal ways between them.
//!
//! `Workers::enter` alone changes a state. Shells and records see `KillReason`, clients see `WorkerState`; the states here
//! carry the data that goes with them.
//!
//! | from \ to | spare | idle | busy | retiring | killed | stuck |
//! |---|---|---|---|---|---|---|
//! | starting | ready | | | | not up in time, hung up, protocol violation, stop | |
//! | spare | | got a slot | | not needed any more | stopped by a signal, hung up, protocol violation, stop | |
//! | idle | | | offered a task | makes room for a fresh one, recycled, drained | asked for its stack while it was busy, stopped by a signal, hung up, protocol violation, stop | |
//! | busy | | all settled | | | any limit, cancel, stopped by a signal, protocol violation, hung up, stop | |
//! | retiring | | | | | did not leave in time, stop | |
//! | killed | | | | | | no proof of death in time |
//!
//! Anything else is an assertion. Proof of death removes a worker from every state.

use bulkhead_proto::client::evidence::ProcessSeen;
use bulkhead_proto::client::view::WorkerState;
use bulkhead_proto::death::KillReason;
use bulkhead_proto::ids::SlotId;

/// A kill by the core: the reason, as the shell and records see it, and what they need not know. `machine/death.rs` decides
/// by it who is charged with the death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kill {
    why: KillReason,
    occasion: Occasion,
}

/// On what occasion a worker was killed, beside the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Occasion {
    /// The reason says it all.
    Usual,
    /// It did not come up. The failed spawn is counted already, so its death is not.
    FailedSpawn,
    /// Its lane hung up and it did not die by itself.
    HungUp,
}

impl Kill {
    /// Of a worker that did not come up.
    pub(crate) const FAILED_SPAWN: Self =
        Self { why: KillReason::Unresponsive, occasion: Occasion::FailedSpawn };
    /// Of a worker whose lane hung up.
    pub(super) const HUNG_UP: Self = Self { why: KillReason::Unresponsive, occasion: Occasion::HungUp };

    /// The reason.
    pub(crate) fn why(self) -> KillReason {
        self.why
    }

    /// Whether what made the core kill the worker is counted already.
    pub(crate) fn is_counted(self) -> bool {
        self.occasion == Occasion::FailedSpawn
    }

    /// Whether the worker's lane had hung up.
    pub(crate) fn is_of_hung_up(self) -> bool {
        self.occasion == Occasion::HungUp
    }
}

impl From<KillReason> for Kill {
    fn from(why: KillReason) -> Self {
        Self { why, occasion: Occasion::Usual }
    }
}

/// The state of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WorkerDuty {
    /// Spawned, not yet connected.
    Starting,
    /// Warm, has run nothing, has no slot.
    Spare,
    /// Holds no offer.
    Idle { slot: SlotId },
    /// Holds offers.
    Busy { slot: SlotId },
    /// Asked to leave; has no slot any more.
    Retiring,
    /// Killed; its death is not proven yet. `was_retiring`: it had been asked to leave before.
    Killed { kill: Kill, was_retiring: bool, slot: Option<SlotId>, proof: Proof },
    /// Killed, and without proof of death for too long. `seen` is what an examination showed then.
    Stuck { kill: Kill, was_retiring: bool, place: StuckSlot, seen: Option<ProcessSeen> },
}

/// Whether the proof of a death is late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// Not yet.
    Awaited,
    /// Yes: the worker is being examined, and is stuck after that.
    Late,
}

/// The slot of a stuck worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StuckSlot {
    /// It had none when it was killed.
    None,
    /// It keeps its slot: as many stuck workers of its pool were replaced as the pool has slots.
    Slot(SlotId),
    /// Another worker has it.
    GivenAway,
}

impl WorkerDuty {
    /// The state as clients see it; also its index in the counts of a pool.
    pub(super) fn shown(&self) -> WorkerState {
        match self {
            WorkerDuty::Starting => WorkerState::Starting,
            WorkerDuty::Spare => WorkerState::Spare,
            WorkerDuty::Idle { .. } => WorkerState::Idle,
            WorkerDuty::Busy { .. } => WorkerState::Busy,
            WorkerDuty::Retiring => WorkerState::Retiring,
            WorkerDuty::Killed { .. } => WorkerState::Killed,
            WorkerDuty::Stuck { .. } => WorkerState::Stuck,
        }
    }

    /// The worker's slot, if it has one.
    pub(super) fn slot(&self) -> Option<SlotId> {
        match *self {
            WorkerDuty::Idle { slot }
            | WorkerDuty::Busy { slot }
            | WorkerDuty::Stuck { place: StuckSlot::Slot(slot), .. } => Some(slot),
            WorkerDuty::Killed { slot, .. } => slot,
            WorkerDuty::Starting | WorkerDuty::Spare | WorkerDuty::Retiring => None,
            WorkerDuty::Stuck { place: StuckSlot::None | StuckSlot::GivenAway, .. } => None,
        }
    }

    /// Whether a worker in this state may hold so many offers.
    pub(super) fn fits(&self, offers: usize) -> bool {
        match self {
            WorkerDuty::Starting | WorkerDuty::Spare | WorkerDuty::Idle { .. } | WorkerDuty::Retiring => {
                offers == 0
            }
            WorkerDuty::Busy { .. } => offers > 0,
            WorkerDuty::Killed { .. } | WorkerDuty::Stuck { .. } => true,
        }
    }

    /// Whether the worker was asked to leave.
    pub(super) fn was_retiring(&self) -> bool {
        match *self {
            WorkerDuty::Retiring => true,
            WorkerDuty::Killed { was_retiring, .. } | WorkerDuty::Stuck { was_retiring, .. } => was_retiring,
            WorkerDuty::Starting | WorkerDuty::Spare | WorkerDuty::Idle { .. } | WorkerDuty::Busy { .. } => {
                false
            }
        }
    }

    /// Why it was killed, if it was.
    pub(super) fn kill(&self) -> Option<Kill> {
        match *self {
            WorkerDuty::Killed { kill, .. } | WorkerDuty::Stuck { kill, .. } => Some(kill),
            WorkerDuty::Starting
            | WorkerDuty::Spare
            | WorkerDuty::Idle { .. }
            | WorkerDuty::Busy { .. }
            | WorkerDuty::Retiring => None,
        }
    }
}

/// The states that a worker may go to from a state: the table at the top of this file.
pub(super) fn leads_to(from: WorkerState) -> &'static [WorkerState] {
    use WorkerState::{Busy, Idle, Killed, Retiring, Spare, Starting, Stuck};
    match from {
        Starting => &[Spare, Killed],
        Spare => &[Idle, Retiring, Killed],
        Idle => &[Busy, Retiring, Killed],
        Busy => &[Idle, Killed],
        Retiring => &[Killed],
        Killed => &[Stuck],
        Stuck => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_comes_back_from_being_killed() {
        assert_eq!(leads_to(WorkerState::Killed), [WorkerState::Stuck]);
        assert!(leads_to(WorkerState::Stuck).is_empty());
        assert!(
            !leads_to(WorkerState::Busy).contains(&WorkerState::Retiring),
            "only idle ones are asked to leave"
        );
    }
    #[test]
    fn the_table_of_states_is_the_code() {
        let names = |states: &[WorkerState]| states.iter().map(|state| format!("{state:?}")).collect();
        let code = crate::every_state!(WorkerState: Starting, Spare, Idle, Busy, Retiring, Killed, Stuck)
            .map(|state| (format!("{state:?}"), names(leads_to(state))));
        crate::state_tables::assert_told(include_str!("state.rs"), code);
    }
}
