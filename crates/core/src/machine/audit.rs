//! What must hold between any two turns, as assertions: counts, lists, claims, slots, alarms.
//!
//! It walks everything, so it is for the simulation and the tests, which call it after each turn; the daemon
//! never does.

use bulkhead_proto::client::view::WorkerState;
use bulkhead_proto::ids::PoolId;

use crate::machine::settle::held;
use crate::machine::{Core, Worker};
use crate::turn::Alarm;
use crate::worker::entry::Duty;

impl Core {
    /// Checks every invariant of the machine.
    ///
    /// # Panics
    /// If one is broken: the machine is wrong.
    pub fn audit(&self) {
        assert!(self.turn.is_at_rest(), "a turn keeps nothing back");
        let offers = self.pools.workers.values().flat_map(|worker| worker.claims.iter());
        self.jobs.audit(&self.turn, offers.map(|offer| offer.ticket));
        self.audit_offers();
        self.audit_slots();
        self.audit_alarms();
    }

    /// Each running job is the current one of exactly one offer.
    fn audit_offers(&self) {
        // An offer of a job that has ended, or was offered anew, is not current: its worker holds it, and nobody waits for it.
        let mut current = 0;
        for (id, worker) in &self.pools.workers {
            worker.claims.audit();
            assert!(worker.watch.is_none() || worker.claims.len() == 1, "what is watched shares its ring");
            let mut lonely = false;
            for offer in worker.claims.iter() {
                let Some(alone) = self.jobs.current_alone(&held(*id, offer)) else { continue };
                current += 1;
                lonely |= alone;
            }
            assert!(!lonely || worker.claims.len() == 1, "a charged job shares its worker with nobody");
            assert!(!lonely || worker.ended == 0, "a charged job runs in a fresh worker");
        }
        let mut running = 0;
        for (job, fence, worker, seq, pool) in self.jobs.all_running() {
            running += 1;
            let holder = self.pools.workers.get(&worker);
            let offer = holder.and_then(|holder| holder.claims.get(seq));
            let is_its = offer.is_some_and(|offer| offer.number == job && offer.fence == fence);
            assert!(is_its, "a running job is offered");
            assert_eq!(self.pools.of_worker(worker), pool, "a job runs in the pool of its kind");
        }
        assert_eq!(current, running, "no job is with two workers");
    }

    fn audit_slots(&self) {
        for id in self.pools.ids() {
            self.audit_pool(id);
        }
        self.pools.workers.values().for_each(audit_worker);
    }

    fn audit_pool(&self, id: PoolId) {
        let pool = &self.pools[id];
        let mut vacant = 0;
        for at in pool.places.clone() {
            match self.pools.in_slot(at) {
                Some((_, worker)) => {
                    assert_eq!((worker.pool, worker.slot.map(|slot| usize::from(slot.0))), (id, Some(at)));
                }
                None => {
                    assert_eq!(self.pools.slots[at].worker, None, "no slot is kept for the dead");
                    vacant += 1;
                }
            }
        }
        assert_eq!(vacant, pool.vacant);
        let own = || self.pools.workers.values().filter(|worker| worker.pool == id);
        for state in [
            WorkerState::Starting,
            WorkerState::Spare,
            WorkerState::Idle,
            WorkerState::Busy,
            WorkerState::Retiring,
            WorkerState::Killed,
            WorkerState::Stuck,
        ] {
            let found = own().filter(|worker| worker.duty.shown() == state).count();
            assert_eq!(found, pool.count(state), "workers are counted by state {state:?}");
        }
        assert_eq!(own().filter(|worker| worker.replaced).count(), pool.stuck_replaced);
        let is_spare = |spare| self.pools.workers.get(spare).is_some_and(|worker| worker.pool == id);
        assert!(pool.spares.iter().all(is_spare), "a spare stands by its own pool");
    }

    /// Every alarm of a worker is remembered by it: none rings for what is over.
    fn audit_alarms(&self) {
        for (at_ns, alarm) in self.turn.alarms() {
            let remembered = match alarm {
                Alarm::Worker(which, id) => {
                    self.pools.workers.get(id).and_then(|worker| worker.alarm_ns(*which))
                }
                Alarm::Progress(job) => self.jobs.subscription_ns(*job),
                Alarm::Shortage => self.shortage.until_ns(),
                _ => Some(*at_ns),
            };
            assert_eq!(remembered, Some(*at_ns), "{alarm:?} is remembered");
        }
    }
}

fn audit_worker(worker: &Worker) {
    match worker.duty {
        Duty::Starting | Duty::Spare | Duty::Retiring => {
            assert!(worker.slot.is_none() && worker.claims.is_empty(), "tasks run in slots: {worker:?}");
        }
        Duty::Idle => assert!(worker.slot.is_some() && worker.claims.is_empty(), "{worker:?}"),
        Duty::Busy => assert!(worker.slot.is_some() && !worker.claims.is_empty(), "{worker:?}"),
        Duty::Killed(_) | Duty::Stuck(_) => {}
    }
}
