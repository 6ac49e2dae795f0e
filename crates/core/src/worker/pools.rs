//! The pools as data: who works where, which slots are free, and what waits in each.
//!
//! A kind belongs to one pool, and so do a worker and a slot, for good. What a pool has of its own:
//!
//! | of one pool | of all together |
//! |---|---|
//! | slots, wanted and ready spares, when the next worker is spawned | numbers of workers and slots |
//! | restart intensity, degraded or not | the table of workers: a number says which pool it is of |
//! | the queue (`queues.rs`) and the jobs that wait to run alone | bounds of admission, results kept, descriptors |
//! | jobs in parts and the window of their parts | recycling, limits, drain |
//!
//! So nothing that happens in one pool delays another. Driven by `pool.rs`; the default pool is number 0.

use std::collections::{BTreeMap, VecDeque};
use std::ops::{Index, IndexMut, Range};

use bulkhead_proto::client::view::{PoolHealth, WorkerState};
use bulkhead_proto::ids::{KindId, PoolId, WorkerId};

use crate::config::{Config, PoolSize};
use crate::worker::entry::{Duty, Worker};
use crate::worker::prefetch::Company;
use crate::worker::restart::Restart;

/// A place for a worker.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) worker: Option<WorkerId>,
    /// Who had it before, and since when it is free.
    pub(crate) vacated: Option<(WorkerId, u64)>,
}

/// One pool.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) name: String,
    /// Its slots, among all of them.
    pub(crate) places: Range<usize>,
    /// Warm workers that it should have beside them.
    pub(crate) spares_wanted: u16,
    /// Ready spares, the oldest first.
    pub(crate) spares: VecDeque<WorkerId>,
    /// Slots without a worker.
    pub(crate) vacant: usize,
    /// Stuck workers that were replaced.
    pub(crate) stuck_replaced: usize,
    counts: [usize; 7],
    /// Before this nobody is spawned, CLOCK_MONOTONIC nanoseconds.
    pub(crate) next_spawn_ns: u64,
    pub(crate) restart: Restart,
    pub(crate) company: Company,
}

impl Pool {
    fn new(size: PoolSize, first: usize) -> Self {
        let slots = usize::from(size.slots);
        Self {
            name: size.name,
            places: first..first + slots,
            spares_wanted: size.spares,
            spares: VecDeque::new(),
            vacant: slots,
            stuck_replaced: 0,
            counts: [0; 7],
            next_spawn_ns: 0,
            restart: Restart::default(),
            company: Company::default(),
        }
    }

    /// Its slots, as many as there are.
    pub(crate) fn size(&self) -> usize {
        self.places.len()
    }

    /// Workers of it in this state.
    pub(crate) fn count(&self, state: WorkerState) -> usize {
        self.counts[state as usize]
    }

    /// How it is, and why if it is not well.
    pub(crate) fn health(&self) -> (PoolHealth, String) {
        match &self.restart.degraded {
            Some(degraded) => (PoolHealth::Degraded, degraded.reason()),
            None if self.restart.came_up => (PoolHealth::Healthy, String::new()),
            None => (PoolHealth::Starting, "the first workers are coming up".to_owned()),
        }
    }

    /// Workers that are there or on their way, against those that should be. A slot whose worker is about to
    /// die counts as filled until it is free.
    pub(crate) fn missing(&self) -> usize {
        let wanted = self.size() + usize::from(self.spares_wanted);
        let there = self.count(WorkerState::Starting) + self.count(WorkerState::Spare);
        wanted.saturating_sub(there + self.size() - self.vacant)
    }
}

/// All pools, all workers and their places.
#[derive(Debug)]
pub(crate) struct Pools<T> {
    pub(crate) workers: BTreeMap<WorkerId, Worker<T>>,
    pub(crate) slots: Vec<Slot>,
    list: Vec<Pool>,
    kinds: Vec<PoolId>,
    last: u64,
}

impl<T> Index<PoolId> for Pools<T> {
    type Output = Pool;

    fn index(&self, pool: PoolId) -> &Pool {
        &self.list[usize::from(pool.0)]
    }
}

impl<T> IndexMut<PoolId> for Pools<T> {
    fn index_mut(&mut self, pool: PoolId) -> &mut Pool {
        &mut self.list[usize::from(pool.0)]
    }
}

impl<T: Copy> Pools<T> {
    /// Without workers.
    pub(crate) fn new(config: &Config) -> Self {
        let mut slots = Vec::new();
        let mut list = Vec::new();
        for size in config.all_pools() {
            list.push(Pool::new(size, slots.len()));
            slots.extend((0..list[list.len() - 1].size()).map(|_| Slot::default()));
        }
        let kinds = config.kinds.iter().map(|kind| config.pool_of(kind)).collect();
        Self { workers: BTreeMap::new(), slots, list, kinds, last: 0 }
    }

    /// The numbers of all pools.
    pub(crate) fn ids(&self) -> impl Iterator<Item = PoolId> + use<T> {
        (0..self.list.len()).map(|at| PoolId(u16::try_from(at).unwrap_or(u16::MAX)))
    }

    /// All pools.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Pool> {
        self.list.iter()
    }

    /// Who runs this kind.
    pub(crate) fn of_kind(&self, kind: KindId) -> PoolId {
        self.kinds.get(usize::from(kind.0)).copied().unwrap_or_default()
    }

    /// Where this worker works; the default pool if there is no such worker.
    pub(crate) fn of_worker(&self, id: WorkerId) -> PoolId {
        self.workers.get(&id).map_or(PoolId(0), |worker| worker.pool)
    }

    /// Workers in this state, of all pools.
    pub(crate) fn count(&self, state: WorkerState) -> usize {
        self.list.iter().map(|pool| pool.count(state)).sum()
    }

    /// Who has this slot, if somebody has.
    pub(crate) fn in_slot(&self, slot: usize) -> Option<(WorkerId, &Worker<T>)> {
        let id = self.slots.get(slot)?.worker?;
        self.workers.get(&id).map(|worker| (id, worker))
    }

    /// Who is in the slots of a pool.
    pub(crate) fn in_slots(&self, pool: PoolId) -> impl Iterator<Item = (WorkerId, &Worker<T>)> {
        self[pool].places.clone().filter_map(|slot| self.in_slot(slot))
    }

    /// Adds a worker that is about to be spawned.
    pub(crate) fn add(&mut self, pool: PoolId, now_ns: u64, wall_us: u64) -> WorkerId {
        self.last += 1;
        let id = WorkerId(self.last);
        self.workers.insert(id, Worker::new(pool, now_ns, wall_us));
        self[pool].counts[WorkerState::Starting as usize] += 1;
        id
    }

    /// The one way from state to state.
    pub(crate) fn enter(&mut self, id: WorkerId, duty: Duty) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let (from, to) = (worker.duty, duty.shown());
        assert!(from.leads_to().contains(&to), "worker {id} went from {from:?} to {duty:?}");
        worker.duty = duty;
        let pool = &mut self.list[usize::from(worker.pool.0)];
        pool.counts[from.shown() as usize] -= 1;
        pool.counts[to as usize] += 1;
        if from == Duty::Spare {
            pool.spares.retain(|spare| *spare != id);
        }
    }

    /// Removes a worker, from its slot too.
    pub(crate) fn remove(&mut self, id: WorkerId, now_ns: u64) -> Option<Worker<T>> {
        self.vacate(id, now_ns);
        let worker = self.workers.remove(&id)?;
        self[worker.pool].counts[worker.duty.shown() as usize] -= 1;
        if worker.duty == Duty::Spare {
            self.unspare(worker.pool, id);
        }
        Some(worker)
    }

    /// Frees the slot of a worker.
    pub(crate) fn vacate(&mut self, id: WorkerId, now_ns: u64) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let pool = worker.pool;
        if let Some(slot) = worker.slot.take() {
            self.slots[usize::from(slot.0)] = Slot { worker: None, vacated: Some((id, now_ns)) };
            self[pool].vacant += 1;
        }
    }

    /// A spare is not to get a slot for now.
    pub(crate) fn unspare(&mut self, pool: PoolId, id: WorkerId) {
        self[pool].spares.retain(|spare| *spare != id);
    }
}
