//! Workers: the only writer of workers, their rings and slots, and of pools.
//!
//! A worker's state changes together with the counts, the slot, the list of spares and the alarm, in one method: `spawn`,
//! `ready`, `place`, `offer_to`, `settle`, `retire`, `kill`, `remove`. Each method that writes asserts what must hold,
//! in constant time and never on a worker's word; `audit.rs` checks everything between turns, for tests. This room calls
//! no other: a worker that has to be killed or a pool that has just degraded is returned to the machine. Offers carry a
//! ticket of the machine's; this room never looks into it.

mod audit;
mod balance;
mod end_order;
mod ending;
mod entry;
mod flavours;
mod head;
mod held;
mod held_max;
mod lending;
mod life;
mod loans;
mod offer;
mod one_user;
mod output_habit;
mod pool;
mod prefetch;
mod program_stop;
mod recycle;
mod restart;
mod ring;
mod settle;
mod shortage;
mod spares;
mod stack_request;
mod state;
mod stopped;
mod survivors;
mod task_watch;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeMap;
use std::ops::Range;

use bulkhead_proto::client::view::{SurvivorRow, WorkerState};
use bulkhead_proto::ids::{JobId, KindId, PoolId, Seq, WorkerId};

pub(crate) use entry::Worker;
pub(crate) use offer::Offer;
pub(crate) use pool::Pool;
pub(crate) use prefetch::ALONE_NS;
pub(crate) use state::Kill;
pub(crate) use values::{Fit, FollowUp, HeadCheck, MetLimit, NewOffer, NowDegraded, NowHealthy, Settled};

use crate::config::{Config, Users};
use crate::turn::Owner;
use crate::worker::flavours::Flavours;
use crate::worker::lending::Lending;
use crate::worker::output_habit::OutputHabit;
use crate::worker::pool::WorkerSlot;
use crate::worker::prefetch::PrefetchDepth;
use crate::worker::shortage::Shortage;

/// All workers, their slots and their pools. `T` is the machine's ticket in an offer.
///
/// | of one pool | of all together |
/// |---|---|
/// | slots, wanted and ready spares, when the next worker is spawned | numbers of workers and slots |
/// | restart intensity, degraded or not | the table of workers: a number says which pool it is of |
/// | the prefetch depth while a client with one job shares it | how long tasks of a kind take, recycling, limits |
///
/// No decision about a pool reads another pool, so nothing that happens in one delays another. The default pool is number 0.
///
/// | file | subject |
/// |---|---|
/// | `state`, `entry`, `pool`, `offer`, `ring` | a worker's states, its data, its pool, its offers |
/// | `held` | how many workers each user holds |
/// | `held_max` | how many a user may hold, also beside stuck workers |
/// | `one_user` | pools whose workers serve one user each |
/// | `life`, `spares` | spawn, ready, place, retire; spares of pools that have them on demand alone |
/// | `survivors` | processes that cannot be ended |
/// | `ending`, `end_order` | kill, hang-up, stuck; running tasks that are told to end |
/// | `stack_request` | workers that write their stack before they are killed |
/// | `stopped`, `program_stop` | workers that a signal stopped; tasks whose program a signal stopped |
/// | `settle`, `head`, `task_watch` | answers of workers; limits of wall time; limits that need examinations |
/// | `prefetch`, `flavours`, `balance`, `shortage` | offers ahead, offers taken back, offers that wait for a descriptor |
/// | `output_habit` | offers with which an output goes that their tasks will ask for |
/// | `lending`, `loans` | slots beyond the number of a pool, for users who wait while others hold all |
/// | `restart`, `recycle` | pools whose workers keep dying; replacement of old and grown workers |
#[derive(Debug)]
pub(crate) struct Workers<T> {
    table: BTreeMap<WorkerId, Worker<T>>,
    /// The slots of every pool's own, then those that the pools may lend.
    slots: Vec<WorkerSlot>,
    pools: Vec<Pool>,
    /// By the number of the kind: the pool that runs it.
    pool_of_kind: Vec<PoolId>,
    /// By the number of the kind: how many of its tasks one worker may hold.
    depths: Vec<PrefetchDepth>,
    /// By the number of the kind: what its results were like.
    output_habits: Vec<OutputHabit>,
    /// The same of tasks that have a flavour.
    flavours: Flavours,
    shortage: Shortage,
    /// Whether a worker ever had too many files to close.
    has_unclosed: bool,
    /// Processes that dead workers left and that cannot be ended.
    survivors: Vec<(SurvivorRow, Owner)>,
    last: u64,
    /// Whether one user's stuck workers bound what that user may hold.
    users: Users,
    /// Whether [`Action::Ready`](crate::action::Action::Ready) was sent.
    said_ready: bool,
}

impl<T: Copy> Workers<T> {
    /// No workers yet.
    pub(crate) fn new(config: &Config) -> Self {
        let own: usize = config.all_pools().map(|pool| usize::from(pool.slots)).sum();
        let (mut pools, mut first, mut first_lent) = (Vec::new(), 0, own);
        for size in config.all_pools() {
            // Without a time after which it lends, a pool has no slots to lend.
            let (lend_max, after_ms) =
                config.lend_after_ms.map_or((0, 0), |after_ms| (size.lend_max, after_ms));
            let lending = Lending::new(first_lent, lend_max, after_ms);
            let pool = Pool::new(size, first, lending);
            first += pool.size();
            first_lent = pool.lending.places.end;
            pools.push(pool);
        }
        Self {
            table: BTreeMap::new(),
            slots: (0..first_lent).map(|_| WorkerSlot::default()).collect(),
            pools,
            pool_of_kind: config.kinds.iter().map(|kind| config.pool_of(kind)).collect(),
            depths: config.kinds.iter().map(|kind| PrefetchDepth::new(kind.ring)).collect(),
            output_habits: vec![OutputHabit::default(); config.kinds.len()],
            flavours: Flavours::default(),
            shortage: Shortage::default(),
            has_unclosed: false,
            survivors: Vec::new(),
            last: config.first.worker.saturating_sub(1),
            users: config.users,
            said_ready: false,
        }
    }

    /// The number that the next worker gets.
    pub(crate) fn next_number(&self) -> u64 {
        self.last + 1
    }

    /// The numbers of all pools.
    pub(crate) fn pool_ids(&self) -> impl Iterator<Item = PoolId> + use<T> {
        (0..self.pools.len()).map(|at| PoolId(u16::try_from(at).unwrap_or(u16::MAX)))
    }

    /// All pools.
    pub(crate) fn pools(&self) -> impl Iterator<Item = &Pool> {
        self.pools.iter()
    }

    /// One pool.
    pub(crate) fn pool(&self, pool: PoolId) -> &Pool {
        &self.pools[usize::from(pool.0)]
    }

    fn pool_mut(&mut self, pool: PoolId) -> &mut Pool {
        &mut self.pools[usize::from(pool.0)]
    }

    /// The pool that runs this kind.
    pub(crate) fn pool_of_kind(&self, kind: KindId) -> PoolId {
        self.pool_of_kind.get(usize::from(kind.0)).copied().unwrap_or_default()
    }

    /// One worker.
    pub(crate) fn get(&self, id: WorkerId) -> Option<&Worker<T>> {
        self.table.get(&id)
    }

    /// All workers, in the order of their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (WorkerId, &Worker<T>)> {
        self.table.iter().map(|(id, worker)| (*id, worker))
    }

    /// The number of workers.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// The numbers of all workers.
    pub(crate) fn ids(&self) -> Vec<WorkerId> {
        self.table.keys().copied().collect()
    }

    /// Workers in this state, of all pools.
    pub(crate) fn count(&self, state: WorkerState) -> usize {
        self.pools.iter().map(|pool| pool.count(state)).sum()
    }

    /// Slots of all pools, without those that they lend.
    pub(crate) fn slot_count(&self) -> usize {
        self.pools.iter().map(Pool::size).sum()
    }

    /// The slots of a pool's own, among all of them.
    pub(crate) fn places(&self, pool: PoolId) -> Range<usize> {
        self.pool(pool).places.clone()
    }

    /// The worker in this slot, if it has one.
    pub(crate) fn in_slot(&self, slot: usize) -> Option<(WorkerId, &Worker<T>)> {
        let id = self.slots.get(slot)?.worker?;
        self.table.get(&id).map(|worker| (id, worker))
    }

    /// The workers in the slots of a pool's own.
    pub(crate) fn in_slots(&self, pool: PoolId) -> impl Iterator<Item = (WorkerId, &Worker<T>)> {
        self.places(pool).filter_map(|slot| self.in_slot(slot))
    }

    /// The offer of this seq, while it is not settled.
    pub(crate) fn offer(&self, id: WorkerId, seq: Seq) -> Option<&Offer<T>> {
        self.table.get(&id)?.ring.get(seq)
    }

    /// Whether a worker has not settled this offer.
    pub(crate) fn holds(&self, id: WorkerId, seq: Seq) -> bool {
        self.offer(id, seq).is_some()
    }

    /// Whether any worker has not settled an offer of this job. It walks all rings: for a job that has left the table, in whose entry the
    /// worker stood.
    pub(crate) fn holds_job(&self, job: JobId) -> bool {
        self.table.values().any(|worker| worker.ring.iter().any(|offer| offer.shown() == job))
    }

    /// The first offer in a worker's ring.
    pub(crate) fn head(&self, id: WorkerId) -> Option<Offer<T>> {
        self.table.get(&id)?.ring.head().copied()
    }

    /// Whether a worker holds exactly one offer.
    pub(crate) fn has_one_offer(&self, id: WorkerId) -> bool {
        self.table.get(&id).is_some_and(|worker| worker.ring.len() == 1)
    }
}
