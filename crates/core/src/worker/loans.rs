//! Loans: spares into lent slots, lent workers into own slots of their pool, and who waits for a slot.
//!
//! `lending.rs` has the states of a lent slot and the waits. `machine/lend.rs` drives this file and decides which task a lent
//! worker is offered; `Core::step` calls `take_in` before free slots are given to spares. A lent worker holds one offer at a
//! time: `prefetch.rs` and `balance.rs` see the own slots of a pool alone.

use bulkhead_proto::client::record::What;
use bulkhead_proto::ids::{PoolId, SlotId, WorkerId};

use crate::action::Action;
use crate::turn::{Owner, Turn};
use crate::worker::lending::LentSlot;
use crate::worker::pool::WorkerSlot;
use crate::worker::state::WorkerDuty;
use crate::worker::{Worker, Workers};

impl<T: Copy> Worker<T> {
    /// Whether its slot is held by whose task it runs: it works and is not about to leave.
    fn is_at_work(&self) -> bool {
        matches!(self.state, WorkerDuty::Busy { .. }) && self.stopped_until_ns.is_none() && !self.is_hung_up()
    }
}

impl<T: Copy> Workers<T> {
    /// Whether a pool lends slots.
    pub(crate) fn lends(&self, pool: PoolId) -> bool {
        self.pool(pool).lending.is_on()
    }

    /// The user to whom the slot of a worker is lent.
    pub(crate) fn lent_to(&self, worker: &Worker<T>) -> Option<u32> {
        let place = usize::from(worker.slot()?.0);
        self.pool(worker.pool).lending.at(place).and_then(LentSlot::user)
    }

    /// Whether a worker has a slot beyond the number of its pool.
    pub(crate) fn has_lent_slot(&self, worker: &Worker<T>) -> bool {
        let place = worker.slot().map(|slot| usize::from(slot.0));
        place.is_some_and(|place| self.pool(worker.pool).lending.at(place).is_some())
    }

    /// The workers in lent slots of a pool.
    pub(crate) fn lent_workers(&self, pool: PoolId) -> impl Iterator<Item = (WorkerId, &Worker<T>)> {
        self.pool(pool).lending.places.clone().filter_map(|place| self.in_slot(place))
    }

    /// The workers in lent slots that wait for a task, and their users.
    pub(crate) fn lent_idle(&self, pool: PoolId) -> Vec<(WorkerId, u32)> {
        let lent = self.pool(pool).lending.lent();
        let idle = lent.filter_map(|(place, uid)| {
            let (id, worker) = self.in_slot(place)?;
            worker.is_at_rest().then_some((id, uid))
        });
        idle.collect()
    }

    /// The most slots that a pool lends.
    pub(crate) fn lend_max(&self, pool: PoolId) -> usize {
        self.pool(pool).lending.places.len()
    }

    /// When a pool may lend a slot to a user, nanoseconds on the clock of the turns, if the user waits for one.
    pub(crate) fn lends_ns(&self, pool: PoolId, uid: u32) -> Option<u64> {
        self.pool(pool).lending.due_ns(uid)
    }

    /// Gives own slots of the pools that are free, or whose worker is idle, to lent workers, so that a pool has its number of
    /// workers again. An idle worker leaves for a lent one that is busy.
    pub(crate) fn take_in(&mut self, turn: &mut Turn) {
        for pool in self.pool_ids() {
            while self.take_one_in(turn, pool) {}
        }
    }

    fn take_one_in(&mut self, turn: &mut Turn, pool: PoolId) -> bool {
        let can_move = |(place, _): (usize, u32)| {
            let (id, worker) = self.in_slot(place)?;
            let is_idle = worker.is_idle();
            (is_idle || worker.is_at_work()).then_some((place, id, is_idle))
        };
        let Some((place, id, is_idle)) = self.pool(pool).lending.lent().find_map(can_move) else {
            return false;
        };
        let vacant = self.places(pool).find(|slot| self.slots[*slot].worker.is_none());
        let idle = || {
            let mut own = self.places(pool).filter_map(|slot| Some((slot, self.in_slot(slot)?)));
            own.find(|(_, (_, worker))| worker.is_at_rest()).map(|(slot, (id, _))| (slot, id))
        };
        match (vacant, is_idle) {
            (Some(slot), _) => self.move_in(turn, id, place, slot),
            // Its user has nothing that it runs now: it takes nobody's slot.
            (None, true) => return false,
            (None, false) => {
                let Some((slot, old)) = idle() else { return false };
                self.retire(turn, old);
                self.move_in(turn, id, place, slot);
            }
        }
        true
    }

    /// Moves a lent worker with its task into a free slot of the pool's own.
    fn move_in(&mut self, turn: &mut Turn, id: WorkerId, place: usize, slot: usize) {
        let number = SlotId(u16::try_from(slot).expect("slots are counted by a u16"));
        let Some(worker) = self.table.get_mut(&id) else { return };
        match &mut worker.state {
            WorkerDuty::Idle { slot } | WorkerDuty::Busy { slot } => *slot = number,
            state @ (WorkerDuty::Starting
            | WorkerDuty::Spare
            | WorkerDuty::Retiring
            | WorkerDuty::Killed { .. }
            | WorkerDuty::Stuck { .. }) => panic!("worker {id} is taken in as {state:?}"),
        }
        let (pool, owner) = (worker.pool, worker.owner());
        assert!(self.slots[slot].worker.is_none(), "slot {number} is not free for lent worker {id}");
        let replaces = self.slots[slot].vacated.map(|(before, _)| before);
        self.slots[place] = WorkerSlot::default();
        self.slots[slot] = WorkerSlot { worker: Some(id), vacated: None };
        let pool = self.pool_mut(pool);
        pool.lending.enter(place, LentSlot::Free);
        pool.fill();
        turn.record(What::TakenIn { worker: id, slot: number, replaces }, owner);
    }

    /// Hears which users have tasks in the queue of a pool. Those who hold no worker wait for one from the first turn in which
    /// that was so; also users all of whose tasks were offered ahead, behind tasks of others.
    pub(crate) fn note_waiting(&mut self, turn: &mut Turn, pool: PoolId, mut users: Vec<u32>) {
        users.extend(self.users_ahead(pool));
        if users.is_empty() && !self.pool(pool).lending.has_waits() {
            return;
        }
        users.retain(|uid| {
            let is_lent_to = self.pool(pool).lending.is_lent_to(*uid);
            self.held_by(pool, *uid) == 0 && self.may_hold_more(pool, *uid) && !is_lent_to
        });
        users.sort_unstable();
        users.dedup();
        self.pool_mut(pool).lending.keep_waiting(turn, pool, &users);
    }

    /// Users of offers behind the first task of another user. Only rings with offers of several users are read.
    fn users_ahead(&self, pool: PoolId) -> Vec<u32> {
        let mixed = self.in_slots(pool).filter(|(_, worker)| worker.ring.is_mixed());
        mixed.flat_map(|(_, worker)| worker.ring.iter().skip(1).map(|offer| offer.uid())).collect()
    }

    /// Whether a task runs in every own slot of a pool. A stuck worker that keeps its slot counts for nothing; a slot that
    /// comes free by itself, because its worker died, was killed or is stopped, is no slot that others hold.
    pub(crate) fn is_all_held(&self, pool: PoolId) -> bool {
        let mut held = 0;
        for place in self.places(pool) {
            match self.in_slot(place) {
                Some((_, worker)) if worker.is_at_work() => held += 1,
                Some((_, worker)) if matches!(worker.state, WorkerDuty::Stuck { .. }) => {}
                _ => return false,
            }
        }
        held > 0
    }

    /// Whether a pool may lend a slot now: one is free, a spare is ready, and the pool's own slots are all held.
    pub(crate) fn may_lend(&self, pool: PoolId) -> bool {
        self.pool(pool).has_spare() && self.may_lend_a_spare(pool)
    }

    /// The same, if a spare were ready.
    fn may_lend_a_spare(&self, pool: PoolId) -> bool {
        let of_pool = self.pool(pool);
        of_pool.lending.free_place().is_some() && of_pool.restart.degraded.is_none() && self.is_all_held(pool)
    }

    /// Whether a user has waited long enough for a slot that the pool lends when it has a spare.
    pub(crate) fn would_lend(&self, turn: &Turn, pool: PoolId) -> bool {
        !self.pool(pool).lending.due(turn.now_ns()).is_empty() && self.may_lend_a_spare(pool)
    }

    /// The users who have waited long enough, if the pool may lend a slot now.
    pub(crate) fn borrowers(&self, turn: &Turn, pool: PoolId) -> Vec<u32> {
        // Nearly always nobody has waited so long, and the slots need not be walked.
        let due = self.pool(pool).lending.due(turn.now_ns());
        if due.is_empty() || !self.may_lend(pool) { Vec::new() } else { due }
    }

    /// Lends a slot to a user: a spare gets it, and is offered a task of the user next.
    ///
    /// # Panics
    /// If the pool may not lend.
    pub(crate) fn lend(&mut self, turn: &mut Turn, pool: PoolId, uid: u32) -> WorkerId {
        let of_pool = &mut self.pools[usize::from(pool.0)];
        let place = of_pool.lending.free_place().expect("a slot that is lent is free");
        let spare = *of_pool.spares.front().expect("a slot is lent when a spare is ready");
        let slot = SlotId(u16::try_from(place).expect("slots are counted by a u16"));
        assert!(self.slots[place].worker.is_none(), "lent slot {slot} is not free for worker {spare}");
        of_pool.lending.enter(place, LentSlot::Lent { uid });
        of_pool.lending.end_wait(turn, pool, uid);
        self.slots[place] = WorkerSlot { worker: Some(spare), vacated: None };
        self.enter(spare, WorkerDuty::Idle { slot });
        turn.record(What::Lent { worker: spare, slot, uid }, Owner::User(uid));
        spare
    }

    /// Takes back the offers of a user that stand behind tasks of others which take longer than work ahead may. Behind such a
    /// task nothing is offered ahead again.
    pub(crate) fn recall_ahead(&mut self, turn: &mut Turn, pool: PoolId, uid: u32) {
        let overdue = self.in_slots(pool).filter(|(_, worker)| worker.ring.is_overdue(turn.now_ns()));
        for id in overdue.map(|(id, _)| id).collect::<Vec<_>>() {
            let Some(worker) = self.table.get_mut(&id) else { continue };
            for seq in worker.ring.recall_of(uid) {
                turn.act(Action::TakeBack { worker: id, seq });
            }
        }
    }

    /// The alarm of a user who waits went off.
    ///
    /// # Panics
    /// If it was not set.
    pub(crate) fn lend_due(&mut self, pool: PoolId, uid: u32) {
        self.pool_mut(pool).lending.rang(uid);
    }

    /// When that alarm goes off, for the audit.
    pub(crate) fn lend_alarm_ns(&self, pool: PoolId, uid: u32) -> Option<u64> {
        self.pool(pool).lending.alarm_ns(uid)
    }

    /// Nothing is lent any more: nobody waits.
    pub(crate) fn end_lending(&mut self, turn: &mut Turn) {
        for pool in self.pool_ids() {
            self.pool_mut(pool).lending.keep_waiting(turn, pool, &[]);
        }
    }
}
