//! Kills workers, hears that lanes hung up, and waits for the proof of each death.
//!
//! A kill or a hang-up settles nothing: the core takes back the offers that the worker may not have begun, and the rest
//! waits for proof of death. Without proof in time the worker is stuck: another worker gets its slot, and its task is
//! not offered again before the proof.

use bulkhead_proto::client::evidence::ProcessSeen;
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::view::WorkerState;
use bulkhead_proto::ids::{PoolId, SlotId, WorkerId};

use crate::action::Action;
use crate::turn::{Turn, WorkerAlarm};
use crate::worker::entry::LaneState;
use crate::worker::held::HolderClaim;
use crate::worker::lending::LentSlot;
use crate::worker::state::{Proof, StuckSlot, WorkerDuty};
use crate::worker::{Kill, NowDegraded, Worker, Workers};

/// How long a worker whose lane hung up may take to die by itself, in milliseconds. A dying process closes its lane a
/// moment before its death can be seen, and a kill in between would hide its own cause of death.
const HANG_UP_PATIENCE_MS: u64 = 250;

impl<T: Copy> Workers<T> {
    /// Whether a worker exists and was not killed before.
    pub(crate) fn may_be_killed(&self, id: WorkerId) -> bool {
        self.table.get(&id).is_some_and(|worker| !worker.is_killed())
    }

    /// Kills a worker.
    ///
    /// # Panics
    /// If it was killed before.
    pub(crate) fn kill(&mut self, turn: &mut Turn, id: WorkerId, kill: Kill) {
        let Some(worker) = self.table.get(&id) else { return };
        let (job, slot) = (worker.ring.head().map(|offer| offer.shown()), worker.slot());
        let (was_retiring, owner) = (worker.was_retiring(), worker.owner());
        self.recall_all(turn, id);
        self.ask_no_more(turn, id);
        self.enter(id, WorkerDuty::Killed { kill, was_retiring, slot, proof: Proof::Awaited });
        turn.record(What::Killing { worker: id, job, why: kill.why() }, owner);
        self.set_overdue(turn, id, turn.config().stuck_after_ms);
        turn.act(Action::Kill { worker: id, why: kill.why() });
    }

    /// Takes back all offers of a worker that are not known to have begun.
    pub(super) fn recall_all(&mut self, turn: &mut Turn, id: WorkerId) {
        let Some(worker) = self.table.get_mut(&id) else { return };
        for seq in worker.ring.recall_all() {
            turn.act(Action::TakeBack { worker: id, seq });
        }
    }

    /// A lane hung up. Most likely the worker is dead and `Event::Died` follows; if not, it is killed.
    pub(crate) fn hung_up(&mut self, turn: &mut Turn, id: WorkerId) {
        self.hung_up_within(turn, id, HANG_UP_PATIENCE_MS);
    }

    /// The same, with so much time to die by itself.
    pub(super) fn hung_up_within(&mut self, turn: &mut Turn, id: WorkerId, patience_ms: u64) {
        let Some(worker) = self.table.get_mut(&id) else { return };
        if worker.is_hung_up() || worker.is_killed() || worker.state == WorkerDuty::Retiring {
            return;
        }
        worker.lane = LaneState::HungUp;
        let pool = worker.pool;
        self.pool_mut(pool).unspare(id);
        self.recall_all(turn, id);
        self.set_overdue(turn, id, patience_ms);
    }

    /// The pool of a worker that is coming up.
    pub(crate) fn pool_of_starting(&self, id: WorkerId) -> Option<PoolId> {
        let worker = self.table.get(&id).filter(|worker| worker.state == WorkerDuty::Starting)?;
        Some(worker.pool)
    }

    /// No process could be spawned: removes the worker, even if it was killed meanwhile. Gives the pool if the failed spawn
    /// counts against it.
    pub(crate) fn spawn_failed(&mut self, turn: &mut Turn, id: WorkerId) -> Option<PoolId> {
        let worker = self.table.get(&id)?;
        let is_starting = worker.state == WorkerDuty::Starting;
        if worker.pid().is_some() || !is_starting && !matches!(worker.state, WorkerDuty::Killed { .. }) {
            return None;
        }
        let worker = self.remove(turn, id)?;
        is_starting.then_some(worker.pool)
    }

    /// A worker was examined. If that was because the proof of its death is late, it is stuck now. At most as many stuck
    /// workers are replaced as the pool has slots: a pool in which every slot has a stuck worker is degraded. Gives the pool if
    /// this degrades it.
    pub(super) fn note_stuck(
        &mut self,
        turn: &mut Turn,
        id: WorkerId,
        seen: Option<&ProcessSeen>,
    ) -> Option<NowDegraded> {
        let worker = self.table.get(&id)?;
        let WorkerDuty::Killed { kill, was_retiring, slot, proof: Proof::Late } = worker.state else {
            return None;
        };
        let (pid, pool, seen) = (worker.pid().unwrap_or(0), worker.pool, seen.cloned());
        let owner = worker.owner();
        let place = slot.map_or(StuckSlot::None, StuckSlot::Slot);
        let lent = slot.map(|slot| usize::from(slot.0)).filter(|place| !self.places(pool).contains(place));
        self.enter(id, WorkerDuty::Stuck { kill, was_retiring, place, seen: seen.clone() });
        let user = self.table.get_mut(&id).and_then(|worker| {
            worker.note_holder(&mut self.pools[usize::from(pool.0)].held);
            worker.claim().map(HolderClaim::uid)
        });
        user.inspect(|uid| self.recall_bounded(turn, pool, *uid));
        lent.inspect(|place| self.pool_mut(pool).lending.enter(*place, LentSlot::Jammed));
        self.replace_stuck(turn, pool);
        turn.record(What::Stuck { worker: id, pid, seen }, owner);
        let is_jammed = self.is_jammed(pool) && self.pool(pool).degraded().is_none();
        is_jammed.then(|| {
            let last = format!("worker {id} (pid {pid}) was killed and is not gone");
            self.degrade(turn, pool, "the worker of every slot is stuck".to_owned(), &last)
        })
    }

    /// Whether each slot of a pool has a stuck worker.
    pub(crate) fn is_jammed(&self, pool: PoolId) -> bool {
        let mut workers = self.places(pool).map(|place| self.in_slot(place));
        workers.all(|found| found.is_some_and(|(_, worker)| worker.shown() == WorkerState::Stuck))
    }

    /// Frees the slots of stuck workers of a pool, the oldest worker's first, for at most as many as the pool has slots.
    pub(super) fn replace_stuck(&mut self, turn: &Turn, pool: PoolId) {
        while self.pool(pool).stuck_replaced < self.pool(pool).size() {
            let own = self.places(pool);
            let holds_slot = |worker: &Worker<T>| {
                let is_own = |slot: SlotId| own.contains(&usize::from(slot.0));
                worker.pool == pool
                    && matches!(worker.state, WorkerDuty::Stuck { place: StuckSlot::Slot(slot), .. } if is_own(slot))
            };
            let Some((&id, worker)) = self.table.iter_mut().find(|(_, worker)| holds_slot(worker)) else {
                return;
            };
            let slot = worker.slot();
            if let WorkerDuty::Stuck { place, .. } = &mut worker.state {
                *place = StuckSlot::GivenAway;
            }
            self.pool_mut(pool).replace_stuck();
            self.vacate(turn, id, pool, slot);
        }
    }

    /// When the alarm of a worker goes off, for the audit.
    pub(crate) fn alarm_ns(&self, id: WorkerId, alarm: WorkerAlarm) -> Option<u64> {
        self.table.get(&id)?.alarm_ns(alarm)
    }
}
