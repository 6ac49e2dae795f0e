//! Slots that outlive their workers, warm spares beside them, and who is spawned when, in each pool.
//!
//! A free slot takes a ready spare at once; the spare's own replacement is spawned a little later, so that
//! answers and retries go first. After a death a pool spawns at most one worker in a turn.

use bulkhead_proto::client::record::What;
use bulkhead_proto::client::view::WorkerState;
use bulkhead_proto::ids::{PoolId, SlotId, WorkerId};

use crate::action::Action;
use crate::machine::Core;
use crate::turn::{Tally, WorkerAlarm};
use crate::worker::entry::{Cause, Duty};

impl Core {
    /// Spawns whom the pools miss, as far as it is time.
    pub(crate) fn tend_pools(&mut self) {
        let is_first = self.turn.records().is_empty();
        for pool in self.pools.ids() {
            let missing = self.missing_workers(pool);
            if missing == 0 || self.turn.now_ns() < self.pools[pool].next_spawn_ns {
                continue;
            }
            if self.turn.records().is_empty() {
                let slots = u16::try_from(self.pools.slots.len()).unwrap_or(u16::MAX);
                self.turn.record(What::Started { pid: self.turn.config().pid, slots }, None);
            }
            let count = if is_first { missing } else { 1 };
            (0..count).for_each(|_| self.spawn(pool));
            self.pools[pool].next_spawn_ns = self.turn.now_ns() + self.spawn_pause_ns(pool);
        }
    }

    /// How many workers of a pool are to be spawned.
    pub(crate) fn missing_workers(&self, pool: PoolId) -> usize {
        if self.drain.is_leaving() { 0 } else { self.pools[pool].missing() }
    }

    /// When the next worker of a pool is to be spawned, if one is.
    pub(crate) fn next_spawn_ns(&self, pool: PoolId) -> Option<u64> {
        (self.missing_workers(pool) > 0).then_some(self.pools[pool].next_spawn_ns)
    }

    fn spawn(&mut self, pool: PoolId) {
        let id = self.pools.add(pool, self.turn.now_ns(), self.turn.wall_us());
        self.set_duty_alarm(id, Some(self.turn.config().bootstrap_ms));
        self.turn.count(Tally::Spawned, 1);
        self.turn.act(Action::Spawn { worker: id, pool });
    }

    /// Sets the alarm of what a worker is doing now, in milliseconds from now, instead of the old one.
    pub(crate) fn set_duty_alarm(&mut self, id: WorkerId, after_ms: Option<u64>) {
        let Some(worker) = self.pools.workers.get_mut(&id) else { return };
        match after_ms {
            Some(after_ms) => {
                let at_ns = self.turn.after_ms(after_ms);
                worker.set(&mut self.turn, id, WorkerAlarm::Overdue, at_ns);
            }
            None => worker.cancel(&mut self.turn, id, WorkerAlarm::Overdue),
        }
    }

    /// A process exists.
    pub(crate) fn worker_spawned(&mut self, id: WorkerId, pid: u32) {
        let Some(worker) = self.pools.workers.get_mut(&id) else { return };
        worker.pid = Some(pid);
        self.turn.record(What::Spawned { worker: id, pid }, None);
    }

    /// A worker is connected: it is a spare until it gets a slot, this turn if one is free.
    pub(crate) fn worker_ready(&mut self, id: WorkerId) {
        let Some(worker) = self.pools.workers.get_mut(&id).filter(|worker| worker.duty == Duty::Starting)
        else {
            return;
        };
        worker.ready_ns = self.turn.now_ns();
        let after_us = (self.turn.now_ns() - worker.spawned_ns) / 1000;
        let pid = worker.pid.unwrap_or(0);
        self.set_duty_alarm(id, None);
        self.turn.record(What::Ready { worker: id, pid, after_us }, None);
        self.pools.enter(id, Duty::Spare);
        if self.pools.workers.get(&id).is_some_and(|worker| worker.suspended.is_none()) {
            let pool = self.pools.of_worker(id);
            self.pools[pool].spares.push_back(id);
        }
        self.watch_survival(id);
        // Said once: whoever waits for the start need not wait for all of them.
        let slots = self.pools.slots.len();
        let vacant: usize = self.pools.iter().map(|pool| pool.vacant).sum();
        let up = self.pools.count(WorkerState::Spare) + slots - vacant;
        self.say_ready(format!("taking jobs, {} of {slots} workers up so far", up.min(slots)));
    }

    /// Gives free slots to ready spares.
    pub(crate) fn place_spares(&mut self) {
        for pool in self.pools.ids() {
            if self.pools[pool].vacant == 0 {
                continue;
            }
            for slot in self.pools[pool].places.clone() {
                let Some(&spare) = self.pools[pool].spares.front() else { break };
                if self.pools.slots[slot].worker.is_none() {
                    self.place(spare, slot);
                }
            }
        }
    }

    /// Puts a spare into a free slot.
    pub(crate) fn place(&mut self, id: WorkerId, slot: usize) {
        let number = SlotId(u16::try_from(slot).expect("slots are counted by a u16"));
        self.pools.enter(id, Duty::Idle);
        let vacated = self.pools.slots[slot].vacated.take();
        self.pools.slots[slot].worker = Some(id);
        let Some(worker) = self.pools.workers.get_mut(&id) else { return };
        worker.slot = Some(number);
        let pool = worker.pool;
        let warm = vacated.is_some_and(|(_, since_ns)| worker.ready_ns <= since_ns);
        let after_us = vacated.map_or(0, |(_, since_ns)| (self.turn.now_ns() - since_ns) / 1000);
        let replaces = vacated.map(|(before, _)| before);
        self.pools[pool].vacant -= 1;
        self.turn.record(What::Placed { worker: id, slot: number, replaces, after_us, warm }, None);
    }

    /// Asks an idle worker or a spare to leave; its slot is free at once.
    pub(crate) fn retire(&mut self, id: WorkerId) {
        self.pools.vacate(id, self.turn.now_ns());
        self.pools.enter(id, Duty::Retiring);
        self.set_duty_alarm(id, Some(self.turn.config().retire_ms));
        self.turn.act(Action::Retire { worker: id });
    }

    /// A worker stayed in its state for too long.
    pub(crate) fn worker_overdue(&mut self, id: WorkerId) {
        let Some(worker) = self.pools.workers.get_mut(&id) else { return };
        worker.rang(WorkerAlarm::Overdue);
        match worker.duty {
            Duty::Starting => {
                let error = match worker.hung_up {
                    true => "its lane hung up before it was up".to_owned(),
                    false => format!("it did not come up within {} ms", self.turn.config().bootstrap_ms),
                };
                self.bootstrap_failed(id, error);
            }
            Duty::Retiring => self.kill(id, Cause::Unresponsive),
            Duty::Killed(_) => self.proof_is_late(id),
            Duty::Spare | Duty::Idle | Duty::Busy if worker.hung_up => self.kill(id, Cause::HungUp),
            Duty::Spare | Duty::Idle | Duty::Busy | Duty::Stuck(_) => {}
        }
    }
}
