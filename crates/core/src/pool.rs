//! The pool: slots that outlive their workers, warm spares beside them, and who is spawned when.
//!
//! A free slot takes a ready spare at once; the spare's own replacement is spawned a little later, so that
//! answers and retries go first. After a death at most one worker is spawned in a turn.

use std::collections::{BTreeMap, VecDeque};

use bulkhead_proto::ids::{SlotId, WorkerId};
use bulkhead_proto::record::What;
use bulkhead_proto::view::WorkerState;

use crate::action::Action;
use crate::machine::{Core, ms};
use crate::timers::Alarm;
use crate::worker::{Cause, Duty, Worker};

/// A place for a worker.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) worker: Option<WorkerId>,
    /// Who had it before, and since when it is free.
    pub(crate) vacated: Option<(WorkerId, u64)>,
}

/// All workers and their places.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) workers: BTreeMap<WorkerId, Worker>,
    pub(crate) slots: Vec<Slot>,
    /// Ready spares, the oldest first.
    pub(crate) spares: VecDeque<WorkerId>,
    /// Slots without a worker.
    pub(crate) vacant: usize,
    /// Stuck workers that were replaced.
    pub(crate) stuck_replaced: usize,
    last: u64,
    counts: [usize; 7],
    /// Before this nobody is spawned, CLOCK_MONOTONIC nanoseconds.
    pub(crate) next_spawn_ns: u64,
}

impl Pool {
    /// An empty one.
    pub(crate) fn new(slots: u16) -> Self {
        Self {
            workers: BTreeMap::new(),
            slots: (0..slots).map(|_| Slot::default()).collect(),
            spares: VecDeque::new(),
            vacant: usize::from(slots),
            stuck_replaced: 0,
            last: 0,
            counts: [0; 7],
            next_spawn_ns: 0,
        }
    }

    /// Workers in this state.
    pub(crate) fn count(&self, state: WorkerState) -> usize {
        self.counts[state as usize]
    }

    /// Who has this slot, if somebody has.
    pub(crate) fn in_slot(&self, slot: usize) -> Option<(WorkerId, &Worker)> {
        let id = self.slots.get(slot)?.worker?;
        self.workers.get(&id).map(|worker| (id, worker))
    }

    /// The one way from state to state.
    pub(crate) fn enter(&mut self, id: WorkerId, duty: Duty) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let (from, to) = (worker.duty, duty.shown());
        assert!(from.leads_to().contains(&to), "worker {id} went from {from:?} to {duty:?}");
        self.counts[from.shown() as usize] -= 1;
        self.counts[to as usize] += 1;
        worker.duty = duty;
        if from == Duty::Spare {
            self.spares.retain(|spare| *spare != id);
        }
    }

    /// Removes a worker, from its slot too.
    pub(crate) fn remove(&mut self, id: WorkerId, now_ns: u64) -> Option<Worker> {
        self.vacate(id, now_ns);
        let worker = self.workers.remove(&id)?;
        self.counts[worker.duty.shown() as usize] -= 1;
        if worker.duty == Duty::Spare {
            self.spares.retain(|spare| *spare != id);
        }
        Some(worker)
    }

    /// Frees the slot of a worker.
    pub(crate) fn vacate(&mut self, id: WorkerId, now_ns: u64) {
        let slot = self.workers.get_mut(&id).and_then(|worker| worker.slot.take());
        if let Some(slot) = slot {
            self.slots[usize::from(slot.0)] = Slot { worker: None, vacated: Some((id, now_ns)) };
            self.vacant += 1;
        }
    }

    /// Workers that are there or on their way, against those that should be. A slot whose worker is about to
    /// die counts as filled until it is free.
    pub(crate) fn missing(&self, spares: u16) -> usize {
        let wanted = self.slots.len() + usize::from(spares);
        let there = self.count(WorkerState::Starting) + self.count(WorkerState::Spare);
        wanted.saturating_sub(there + self.slots.len() - self.vacant)
    }
}

impl Core {
    /// Spawns whom the pool misses, as far as it is time.
    pub(crate) fn tend_pool(&mut self) {
        let missing = self.missing_workers();
        if missing == 0 || self.now.mono_ns < self.pool.next_spawn_ns {
            return;
        }
        if self.log.is_empty() {
            let started = What::Started { pid: self.config.pid, slots: self.config.slots };
            self.record(started, None);
            (0..missing).for_each(|_| self.spawn());
        } else {
            self.spawn();
        }
        self.pool.next_spawn_ns = self.now.mono_ns + self.spawn_pause_ns();
    }

    /// How many workers are to be spawned.
    pub(crate) fn missing_workers(&self) -> usize {
        if self.drain.is_leaving() { 0 } else { self.pool.missing(self.config.spares) }
    }

    /// When the next worker is to be spawned, if one is.
    pub(crate) fn next_spawn_ns(&self) -> Option<u64> {
        (self.missing_workers() > 0).then_some(self.pool.next_spawn_ns)
    }

    fn spawn(&mut self) {
        self.pool.last += 1;
        let id = WorkerId(self.pool.last);
        self.pool.workers.insert(id, Worker::new(self.now));
        self.pool.counts[WorkerState::Starting as usize] += 1;
        self.set_duty_alarm(id, Some(self.config.bootstrap_ms));
        self.totals.spawned += 1;
        self.act(Action::Spawn { worker: id });
    }

    /// Sets the alarm of what a worker is doing now, in milliseconds from now, instead of the old one.
    pub(crate) fn set_duty_alarm(&mut self, id: WorkerId, after_ms: Option<u64>) {
        let Some(worker) = self.pool.workers.get_mut(&id) else { return };
        let at_ns = after_ms.map(|after_ms| self.now.mono_ns.saturating_add(ms(after_ms)));
        let old = std::mem::replace(&mut worker.duty_alarm, at_ns);
        if let Some(old) = old {
            self.timers.cancel(old, Alarm::Worker(id));
        }
        if let Some(at_ns) = at_ns {
            self.timers.set(at_ns, Alarm::Worker(id));
        }
    }

    /// A process exists.
    pub(crate) fn worker_spawned(&mut self, id: WorkerId, pid: u32) {
        let Some(worker) = self.pool.workers.get_mut(&id) else { return };
        worker.pid = Some(pid);
        self.record(What::Spawned { worker: id, pid }, None);
    }

    /// A worker is connected: it is a spare until it gets a slot, this turn if one is free.
    pub(crate) fn worker_ready(&mut self, id: WorkerId) {
        let now = self.now;
        let Some(worker) = self.pool.workers.get_mut(&id).filter(|worker| worker.duty == Duty::Starting)
        else {
            return;
        };
        worker.ready_ns = now.mono_ns;
        let after_us = (now.mono_ns - worker.spawned_ns) / 1000;
        let pid = worker.pid.unwrap_or(0);
        self.set_duty_alarm(id, None);
        self.record(What::Ready { worker: id, pid, after_us }, None);
        self.pool.enter(id, Duty::Spare);
        if self.pool.workers.get(&id).is_some_and(|worker| worker.suspended.is_none()) {
            self.pool.spares.push_back(id);
        }
        self.watch_survival(id);
        // Said once: whoever waits for the start need not wait for all of them.
        let up = self.pool.count(WorkerState::Spare) + self.pool.slots.len() - self.pool.vacant;
        let slots = self.pool.slots.len();
        self.say_ready(format!("taking jobs, {} of {slots} workers up so far", up.min(slots)));
    }

    /// Gives free slots to ready spares.
    pub(crate) fn place_spares(&mut self) {
        for slot in 0..self.pool.slots.len() {
            if self.pool.vacant == 0 {
                return;
            }
            if self.pool.slots[slot].worker.is_none() {
                let Some(&spare) = self.pool.spares.front() else { return };
                self.place(spare, slot);
            }
        }
    }

    /// Puts a spare into a free slot.
    pub(crate) fn place(&mut self, id: WorkerId, slot: usize) {
        let number = SlotId(u16::try_from(slot).expect("slots are counted by a u16"));
        self.pool.enter(id, Duty::Idle);
        let vacated = self.pool.slots[slot].vacated.take();
        self.pool.slots[slot].worker = Some(id);
        self.pool.vacant -= 1;
        let Some(worker) = self.pool.workers.get_mut(&id) else { return };
        worker.slot = Some(number);
        let warm = vacated.is_some_and(|(_, since_ns)| worker.ready_ns <= since_ns);
        let after_us = vacated.map_or(0, |(_, since_ns)| (self.now.mono_ns - since_ns) / 1000);
        let replaces = vacated.map(|(before, _)| before);
        self.record(What::Placed { worker: id, slot: number, replaces, after_us, warm }, None);
    }

    /// Asks an idle worker or a spare to leave; its slot is free at once.
    pub(crate) fn retire(&mut self, id: WorkerId) {
        self.pool.vacate(id, self.now.mono_ns);
        self.pool.enter(id, Duty::Retiring);
        self.set_duty_alarm(id, Some(self.config.retire_ms));
        self.act(Action::Retire { worker: id });
    }

    /// A worker stayed in its state for too long.
    pub(crate) fn worker_overdue(&mut self, id: WorkerId) {
        let Some(worker) = self.pool.workers.get_mut(&id) else { return };
        worker.duty_alarm = None;
        match worker.duty {
            Duty::Starting => {
                let error = match worker.hung_up {
                    true => "its lane hung up before it was up".to_owned(),
                    false => format!("it did not come up within {} ms", self.config.bootstrap_ms),
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
