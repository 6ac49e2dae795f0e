//! The life of a worker: spawned, ready, placed in a slot, retired, removed.
//!
//! A free slot takes a ready spare at once. The spare's replacement is spawned 2 ms later (`respawn_delay_ms`), so that
//! answers and retries go first. After its first turn a pool spawns at most one worker a turn; with `one_first` also in that turn. `enter` is
//! the one way from state to state.

use bulkhead_proto::client::record::What;
use bulkhead_proto::client::view::WorkerState;
use bulkhead_proto::death::KillReason;
use bulkhead_proto::ids::{PoolId, SlotId, WorkerId};

use crate::action::Action;
use crate::config::{FIRST_ALONE_MS, OTHERS_AFTER_MS};
use crate::turn::{Counter, Owner, Turn, WorkerAlarm, ms};
use crate::worker::pool::WorkerSlot;
use crate::worker::state::{Proof, StuckSlot, WorkerDuty, leads_to};
use crate::worker::{FollowUp, Kill, Worker, Workers};

impl<T: Copy> Workers<T> {
    /// Spawns missing workers of pools whose pause is over; none when the daemon is leaving.
    pub(crate) fn tend(&mut self, turn: &mut Turn, is_leaving: bool) {
        let is_first = turn.records().is_empty();
        for pool in self.pool_ids() {
            let missing = self.missing(pool, is_leaving);
            if missing == 0 || turn.now_ns() < self.pool(pool).next_spawn_ns {
                continue;
            }
            if turn.records().is_empty() {
                let slots = u16::try_from(self.slot_count()).unwrap_or(u16::MAX);
                turn.record(What::Started { pid: turn.config().pid, slots }, Owner::Service);
            }
            let is_alone = is_first && turn.config().one_first;
            let count = if is_first && !is_alone { missing } else { 1 };
            (0..count).for_each(|_| self.spawn(turn, pool));
            let pause_ns = if is_alone { ms(FIRST_ALONE_MS) } else { self.spawn_pause_ns(turn, pool) };
            self.pool_mut(pool).next_spawn_ns = turn.now_ns() + pause_ns;
        }
    }

    /// How many workers of a pool are to be spawned.
    fn missing(&self, pool: PoolId, is_leaving: bool) -> usize {
        if is_leaving { 0 } else { self.pool(pool).missing() }
    }

    /// When the next worker of a pool is to be spawned, if one is.
    pub(crate) fn next_spawn_ns(&self, pool: PoolId, is_leaving: bool) -> Option<u64> {
        (self.missing(pool, is_leaving) > 0).then_some(self.pool(pool).next_spawn_ns)
    }

    /// Adds a worker and asks for its process.
    ///
    /// # Panics
    /// If the pool misses no worker, or the number was given to another worker.
    pub(super) fn spawn(&mut self, turn: &mut Turn, pool: PoolId) {
        assert!(self.pool(pool).missing() > 0, "pool {} misses no worker", self.pool(pool).name);
        self.last += 1;
        let id = WorkerId(self.last);
        assert!(!self.table.contains_key(&id), "worker {id} is spawned once");
        let mut worker = Worker::new(pool, turn);
        if self.pool(pool).recycle_strict {
            worker.tasks_max = turn.config().recycle_tasks.unwrap_or(u64::MAX);
        }
        worker.set(turn, id, WorkerAlarm::Overdue, turn.after_ms(turn.config().bootstrap_ms));
        self.pool_mut(pool).count_in(worker.shown());
        self.table.insert(id, worker);
        turn.count(Counter::Spawned, 1);
        turn.act(Action::Spawn { worker: id, pool });
    }

    /// The one way from state to state.
    ///
    /// # Panics
    /// If the table of states does not have it, the worker's ring does not fit the new state, the slot of the new state
    /// is another worker's, or the worker would keep a slot that the new state does not name.
    pub(super) fn enter(&mut self, id: WorkerId, state: WorkerDuty) {
        let Some(worker) = self.table.get_mut(&id) else { return };
        let (from, to) = (worker.shown(), state.shown());
        assert!(leads_to(from).contains(&to), "worker {id} went from {from:?} to {to:?}");
        assert!(state.fits(worker.ring.len()), "worker {id} is {to:?} with {} offers", worker.ring.len());
        let has = |slot: SlotId| self.slots[usize::from(slot.0)].worker == Some(id);
        match (worker.slot(), state.slot()) {
            (_, Some(slot)) => {
                assert!(has(slot), "worker {id} is {to:?} in slot {slot}, which it does not have")
            }
            (Some(slot), None) => assert!(!has(slot), "worker {id} is {to:?} and keeps slot {slot}"),
            (None, None) => {}
        }
        worker.state = state;
        let pool = &mut self.pools[usize::from(worker.pool.0)];
        pool.count_out(from);
        pool.count_in(to);
        if from == WorkerState::Spare {
            pool.unspare(id);
        }
    }

    /// The process of a worker exists.
    ///
    /// # Panics
    /// If the shell says so twice.
    pub(crate) fn spawned(&mut self, turn: &mut Turn, id: WorkerId, pid: u32) {
        let Some(worker) = self.table.get_mut(&id) else { return };
        assert_eq!(worker.process.pid, None, "worker {id} has its process already");
        worker.process.pid = Some(pid);
        turn.record(What::Spawned { worker: id, pid }, Owner::Administrators);
    }

    /// A worker is connected: it is a spare until it gets a slot, this turn if one is free.
    pub(crate) fn ready(&mut self, turn: &mut Turn, id: WorkerId) {
        let Some(worker) = self.table.get_mut(&id).filter(|worker| worker.state == WorkerDuty::Starting)
        else {
            return;
        };
        worker.process.ready_ns = turn.now_ns();
        worker.cancel(turn, id, WorkerAlarm::Overdue);
        let after_us = (turn.now_ns() - worker.process.spawned_ns) / 1000;
        let pid = worker.pid().unwrap_or(0);
        let (is_stopped, pool) = (worker.stopped_until_ns.is_some(), worker.pool);
        turn.record(What::Ready { worker: id, pid, after_us }, Owner::Administrators);
        self.enter(id, WorkerDuty::Spare);
        if !is_stopped {
            self.pool_mut(pool).add_spare(id);
        }
        if turn.config().one_first && !self.pool(pool).restart.came_up {
            // The others wait for this one not much longer.
            let pool = self.pool_mut(pool);
            pool.next_spawn_ns = pool.next_spawn_ns.min(turn.after_ms(OTHERS_AFTER_MS));
        }
        self.note_came_up(turn, id);
        // Sent for the first worker: a client that waits for the start does not wait for all workers.
        let slots = self.slot_count();
        let filled: usize = self.pools.iter().map(|pool| pool.filled()).sum();
        let up = self.count(WorkerState::Spare) + filled;
        self.say_ready(turn, || format!("taking jobs, {} of {slots} workers up so far", up.min(slots)));
    }

    /// Sends [`Action::Ready`], once: the wait for the start is over.
    pub(super) fn say_ready(&mut self, turn: &mut Turn, status: impl FnOnce() -> String) {
        if !std::mem::replace(&mut self.said_ready, true) {
            turn.act(Action::Ready { status: status() });
        }
    }

    /// Gives free slots to ready spares.
    pub(crate) fn place_spares(&mut self, turn: &mut Turn) {
        for pool in self.pool_ids() {
            if self.pool(pool).vacant == 0 {
                continue;
            }
            for slot in self.places(pool) {
                let Some(&spare) = self.pool(pool).spares.front() else { break };
                if self.slots[slot].worker.is_none() {
                    self.place(turn, spare, slot);
                }
            }
        }
    }

    /// Puts a spare into a free slot.
    ///
    /// # Panics
    /// If the worker is no spare, or the slot is not free, or of another pool.
    pub(super) fn place(&mut self, turn: &mut Turn, id: WorkerId, slot: usize) {
        let number = SlotId(u16::try_from(slot).expect("slots are counted by a u16"));
        let Some(pool) = self.table.get(&id).map(|worker| worker.pool) else { return };
        assert!(self.places(pool).contains(&slot), "slot {number} is not of the pool of worker {id}");
        assert!(self.slots[slot].worker.is_none(), "slot {number} is not free for worker {id}");
        let vacated = self.slots[slot].vacated.take();
        self.slots[slot].worker = Some(id);
        self.enter(id, WorkerDuty::Idle { slot: number });
        self.pool_mut(pool).fill();
        let Some(worker) = self.table.get(&id) else { return };
        let warm = vacated.is_some_and(|(_, since_ns)| worker.process.ready_ns <= since_ns);
        let after_us = vacated.map_or(0, |(_, since_ns)| (turn.now_ns() - since_ns) / 1000);
        let replaces = vacated.map(|(before, _)| before);
        turn.record(What::Placed { worker: id, slot: number, replaces, after_us, warm }, Owner::Service);
    }

    /// Frees the slot that a worker had.
    ///
    /// # Panics
    /// If another worker has the slot, or none.
    pub(super) fn vacate(&mut self, turn: &Turn, id: WorkerId, pool: PoolId, slot: Option<SlotId>) {
        if let Some(slot) = slot {
            let slot = usize::from(slot.0);
            let before = self.slots[slot].worker;
            assert_eq!(before, Some(id), "worker {id} leaves slot {slot}, which it does not have");
            self.slots[slot] = WorkerSlot { worker: None, vacated: Some((id, turn.now_ns())) };
            let is_own = self.places(pool).contains(&slot);
            let pool = self.pool_mut(pool);
            if is_own { pool.free() } else { pool.lending.give_back(slot, turn.now_ns()) }
        }
    }

    /// A worker in a slot of a pool that has run nothing, for a task of this user. If there is none, an idle worker retires and a
    /// spare takes its slot.
    pub(crate) fn fresh(&mut self, turn: &mut Turn, pool: PoolId, uid: u32) -> Option<WorkerId> {
        let mut used = None;
        for slot in self.places(pool) {
            match self.in_slot(slot) {
                Some((id, worker))
                    if worker.is_idle() && worker.is_fresh() && self.may_serve(worker, uid) =>
                {
                    return Some(id);
                }
                Some((id, worker)) if worker.is_at_rest() => used = used.or(Some((slot, id))),
                _ => {}
            }
        }
        let spare = *self.pool(pool).spares.front()?;
        let (slot, old) = used?;
        self.retire(turn, old);
        self.place(turn, spare, slot);
        Some(spare)
    }

    /// Asks an idle worker or a spare to leave; its slot is free at once.
    ///
    /// # Panics
    /// If the worker is neither.
    pub(crate) fn retire(&mut self, turn: &mut Turn, id: WorkerId) {
        let Some(worker) = self.table.get(&id) else { return };
        let (pool, slot) = (worker.pool, worker.slot());
        self.vacate(turn, id, pool, slot);
        self.enter(id, WorkerDuty::Retiring);
        self.set_overdue(turn, id, turn.config().retire_ms);
        turn.act(Action::Retire { worker: id });
    }

    /// Sets the alarm of a worker that has to leave its state within so many milliseconds.
    pub(super) fn set_overdue(&mut self, turn: &mut Turn, id: WorkerId, after_ms: u64) {
        if let Some(worker) = self.table.get_mut(&id) {
            worker.set(turn, id, WorkerAlarm::Overdue, turn.after_ms(after_ms));
        }
    }

    /// A worker stayed in its state for too long.
    ///
    /// # Panics
    /// If its alarm was not set.
    pub(crate) fn overdue(&mut self, turn: &mut Turn, id: WorkerId) -> FollowUp {
        let Some(worker) = self.table.get_mut(&id) else { return FollowUp::Nothing };
        worker.rang(WorkerAlarm::Overdue);
        let is_hung_up = worker.is_hung_up();
        match &mut worker.state {
            WorkerDuty::Starting if is_hung_up => {
                FollowUp::Bootstrap("its lane hung up before it was up".to_owned())
            }
            WorkerDuty::Starting => {
                FollowUp::Bootstrap(format!("it did not come up within {} ms", turn.config().bootstrap_ms))
            }
            WorkerDuty::Retiring => FollowUp::Kill(KillReason::Unresponsive.into()),
            WorkerDuty::Killed { proof, .. } => {
                // The examination shows in which kernel function the worker waits.
                *proof = Proof::Late;
                turn.act(Action::Examine { worker: id });
                FollowUp::Nothing
            }
            WorkerDuty::Spare | WorkerDuty::Idle { .. } | WorkerDuty::Busy { .. } if is_hung_up => {
                FollowUp::Kill(Kill::HUNG_UP)
            }
            WorkerDuty::Spare
            | WorkerDuty::Idle { .. }
            | WorkerDuty::Busy { .. }
            | WorkerDuty::Stuck { .. } => FollowUp::Nothing,
        }
    }

    /// Removes a worker whose death is proven, or that never had a process. Its alarms are cancelled, its slot is free.
    ///
    /// # Panics
    /// If its slot is another worker's, or its pool does not count it.
    pub(crate) fn remove(&mut self, turn: &mut Turn, id: WorkerId) -> Option<Worker<T>> {
        let mut worker = self.table.remove(&id)?;
        worker.tell_stops(turn, id);
        worker.cancel_all(turn, id);
        self.vacate(turn, id, worker.pool, worker.slot());
        let pool = self.pool_mut(worker.pool);
        pool.held.change(worker.counted_for.take(), None);
        pool.count_out(worker.shown());
        pool.unspare(id);
        if matches!(worker.state, WorkerDuty::Stuck { place: StuckSlot::GivenAway, .. }) {
            pool.forget_stuck();
        }
        self.replace_stuck(turn, worker.pool);
        Some(worker)
    }

    /// A worker of a pool died: the next one is spawned after `respawn_delay_ms`, so that answers go first.
    /// A spawn blocks the loop for about a millisecond.
    pub(crate) fn pause_spawns(&mut self, turn: &Turn, pool: PoolId) {
        let pause_ns = turn.after_ms(turn.config().respawn_delay_ms);
        let pool = self.pool_mut(pool);
        pool.next_spawn_ns = pool.next_spawn_ns.max(pause_ns);
    }
}
