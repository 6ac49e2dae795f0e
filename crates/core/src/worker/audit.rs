//! The invariants of workers between any two turns, as assertions: rings, slots, counts, spares.
//!
//! It walks everything, so it is for the simulation and the tests, which call it after each turn; the daemon never does.
//! `machine/audit.rs` checks what ties workers to jobs.

use bulkhead_proto::client::view::WorkerState;
use bulkhead_proto::ids::PoolId;

use crate::worker::lending::LentSlot;
use crate::worker::state::{StuckSlot, WorkerDuty};
use crate::worker::{Worker, Workers};

impl<T: Copy> Workers<T> {
    /// Checks every invariant of this room.
    ///
    /// # Panics
    /// If one is broken: the machine is wrong.
    pub(crate) fn audit(&self) {
        for worker in self.table.values() {
            worker.ring.audit();
            assert!(worker.watch.is_none() || worker.ring.len() == 1, "what is watched shares its ring");
            let offers = worker.ring.len();
            assert!(worker.state.fits(offers), "a worker is {:?} with {offers} offers", worker.state);
        }
        self.flavours.audit();
        self.pool_ids().for_each(|pool| self.audit_pool(pool));
    }

    /// A lent slot has a worker of its pool exactly while it is not free, and that worker runs tasks of its user alone.
    fn audit_lending(&self, id: PoolId) {
        let lending = &self.pool(id).lending;
        for place in lending.places.clone() {
            let slot = lending.at(place).expect("the slot is one of these");
            let worker = self.in_slot(place).map(|(_, worker)| worker);
            assert_eq!(worker.is_none(), slot == LentSlot::Free, "lent slot {place} is {slot:?}");
            let Some(worker) = worker else { continue };
            assert_eq!((worker.pool, worker.slot().map(|slot| usize::from(slot.0))), (id, Some(place)));
            let is_stuck = worker.shown() == WorkerState::Stuck;
            assert_eq!(is_stuck, slot == LentSlot::Jammed, "a lent slot is jammed by a stuck worker");
            assert!(worker.ring.len() <= 1, "a lent worker has one task at a time");
            let is_its = |offer: &crate::worker::Offer<T>| slot.user().is_none_or(|uid| offer.uid() == uid);
            assert!(worker.ring.iter().all(is_its), "a lent worker runs tasks of its user alone");
        }
        for uid in lending.waiting() {
            assert!(!lending.is_lent_to(uid), "user {uid} waits and has a lent slot");
            assert_eq!(self.held_by(id, uid), 0, "user {uid} waits and holds a worker");
        }
    }

    fn audit_pool(&self, id: PoolId) {
        let pool = self.pool(id);
        let mut vacant = 0;
        for at in pool.places.clone() {
            match self.in_slot(at) {
                Some((_, worker)) => {
                    assert_eq!((worker.pool, worker.slot().map(|slot| usize::from(slot.0))), (id, Some(at)));
                }
                None => {
                    assert_eq!(self.slots[at].worker, None, "no slot is kept for the dead");
                    vacant += 1;
                }
            }
        }
        assert_eq!(vacant, pool.vacant);
        self.audit_lending(id);
        let own = || self.table.values().filter(|worker| worker.pool == id);
        for state in [
            WorkerState::Starting,
            WorkerState::Spare,
            WorkerState::Idle,
            WorkerState::Busy,
            WorkerState::Retiring,
            WorkerState::Killed,
            WorkerState::Stuck,
        ] {
            let found = own().filter(|worker| worker.shown() == state).count();
            assert_eq!(found, pool.count(state), "workers are counted by state {state:?}");
        }
        assert!(
            own().all(|worker| worker.counted_for == worker.claim()),
            "a worker is counted for its holder"
        );
        let of_users = own().filter(|worker| worker.claim().is_some()).count();
        let (held, stuck) = pool.held.totals();
        assert_eq!((held + stuck) as usize, of_users);
        let is_replaced = |worker: &&Worker<T>| {
            matches!(worker.state, WorkerDuty::Stuck { place: StuckSlot::GivenAway, .. })
        };
        assert_eq!(own().filter(is_replaced).count(), pool.stuck_replaced);
        let is_spare = |spare| self.table.get(spare).is_some_and(|worker| worker.pool == id);
        assert!(pool.spares.iter().all(is_spare), "a spare stands by its own pool");
    }
}
