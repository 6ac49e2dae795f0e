//! One pool, and the slots that outlive their workers.
//!
//! A kind, a worker and a slot belong to one pool, for good. `life.rs`, `ending.rs` and `stopped.rs` call the methods that
//! count; each asserts that the count adds up.

use std::collections::VecDeque;
use std::ops::Range;

use bulkhead_proto::client::view::{PoolHealth, WorkerState};
use bulkhead_proto::ids::WorkerId;

use crate::config::PoolSize;
use crate::worker::held::HeldWorkers;
use crate::worker::lending::Lending;
use crate::worker::prefetch::DepthCap;
use crate::worker::restart::Restart;

/// A place for a worker.
#[derive(Debug, Default)]
pub(super) struct WorkerSlot {
    pub(super) worker: Option<WorkerId>,
    /// The worker that had it before, and since when it is free, nanoseconds on the clock of the turns.
    pub(super) vacated: Option<(WorkerId, u64)>,
}

/// One pool.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(super) name: String,
    /// Its slots, among all of them.
    pub(super) places: Range<usize>,
    /// Warm workers that its configuration wants beside them.
    pub(super) spares_usual: u16,
    /// Whether one more is needed, of a pool that is to have none otherwise (`spares.rs`).
    pub(super) is_spare_needed: bool,
    /// Ready spares, the oldest first.
    pub(super) spares: VecDeque<WorkerId>,
    /// Slots without a worker.
    pub(super) vacant: usize,
    /// Stuck workers that were replaced.
    pub(super) stuck_replaced: usize,
    /// Workers in each state.
    pub(super) counts: [usize; 7],
    /// No worker is spawned before this, nanoseconds on the clock of the turns.
    pub(super) next_spawn_ns: u64,
    pub(super) restart: Restart,
    pub(super) depth_cap: DepthCap,
    /// Most workers of it that one user may hold.
    pub(super) running_max: Option<u32>,
    /// Whether each of its workers serves one user.
    pub(super) one_user: bool,
    /// Whether a worker of it that is due to be recycled is offered nothing more.
    pub(super) recycle_strict: bool,
    /// How many of its workers each user holds.
    pub(super) held: HeldWorkers,
    /// Its slots beyond its number.
    pub(super) lending: Lending,
}

impl Pool {
    /// A pool without workers. Its slots begin at `first`, as `lending` says where those that it may lend begin.
    pub(super) fn new(size: PoolSize, first: usize, lending: Lending) -> Self {
        let slots = usize::from(size.slots);
        Self {
            name: size.name,
            places: first..first + slots,
            spares_usual: size.spares,
            is_spare_needed: false,
            spares: VecDeque::new(),
            vacant: slots,
            stuck_replaced: 0,
            counts: [0; 7],
            next_spawn_ns: 0,
            restart: Restart::default(),
            depth_cap: DepthCap::default(),
            held: HeldWorkers::default(),
            running_max: size.running_max.map(u32::from),
            one_user: size.one_user,
            recycle_strict: size.recycle_strict,
            lending,
        }
    }

    /// Its name, as kinds name it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The number of its slots.
    pub(crate) fn size(&self) -> usize {
        self.places.len()
    }

    /// Slots that have a worker.
    pub(crate) fn filled(&self) -> usize {
        self.size() - self.vacant
    }

    /// Whether a spare stands ready.
    pub(crate) fn has_spare(&self) -> bool {
        !self.spares.is_empty()
    }

    /// Workers of it in this state.
    pub(crate) fn count(&self, state: WorkerState) -> usize {
        self.counts[state as usize]
    }

    /// Why it is degraded, if it is.
    pub(crate) fn degraded(&self) -> Option<String> {
        self.restart.degraded.as_ref().map(|degraded| degraded.reason())
    }

    /// Its health, and the reason if it is not healthy.
    pub(crate) fn health(&self) -> (PoolHealth, String) {
        match self.degraded() {
            Some(reason) => (PoolHealth::Degraded, reason),
            None if self.restart.came_up => (PoolHealth::Healthy, String::new()),
            None => (PoolHealth::Starting, "the first workers are coming up".to_owned()),
        }
    }

    /// How many workers are to be spawned: slots and wanted spares, less the filled slots, the spares and the workers that
    /// are starting. A slot whose worker was killed counts as filled until it is free.
    pub(super) fn missing(&self) -> usize {
        let wanted = self.size() + self.spares_wanted();
        let there = self.count(WorkerState::Starting) + self.count(WorkerState::Spare);
        wanted.saturating_sub(there + self.filled())
    }

    /// Counts a worker that is in this state from now on.
    pub(super) fn count_in(&mut self, state: WorkerState) {
        self.counts[state as usize] += 1;
    }

    /// Counts a worker out that leaves this state.
    ///
    /// # Panics
    /// If none is counted there.
    pub(super) fn count_out(&mut self, state: WorkerState) {
        let count = &mut self.counts[state as usize];
        let less = count.checked_sub(1);
        *count = less.unwrap_or_else(|| panic!("pool {} counts no worker as {state:?}", self.name));
    }

    /// A slot of it gets a worker.
    ///
    /// # Panics
    /// If every slot is counted as filled.
    pub(super) fn fill(&mut self) {
        let less = self.vacant.checked_sub(1);
        self.vacant = less.unwrap_or_else(|| panic!("pool {} has no vacant slot to fill", self.name));
    }

    /// A slot of it loses its worker.
    ///
    /// # Panics
    /// If every slot is counted as vacant.
    pub(super) fn free(&mut self) {
        assert!(self.vacant < self.size(), "pool {} has no filled slot to free", self.name);
        self.vacant += 1;
    }

    /// The slot of a stuck worker is given to another worker.
    ///
    /// # Panics
    /// If that was done for as many workers as the pool has slots.
    pub(super) fn replace_stuck(&mut self) {
        assert!(self.stuck_replaced < self.size(), "pool {} replaces too many stuck workers", self.name);
        self.stuck_replaced += 1;
    }

    /// A stuck worker whose slot was given away is gone.
    ///
    /// # Panics
    /// If no such worker is counted.
    pub(super) fn forget_stuck(&mut self) {
        let less = self.stuck_replaced.checked_sub(1);
        self.stuck_replaced = less.unwrap_or_else(|| panic!("pool {} replaced no stuck worker", self.name));
    }

    /// A worker in state [`WorkerState::Spare`] may get a slot.
    ///
    /// # Panics
    /// If all such workers are listed already.
    pub(super) fn add_spare(&mut self, id: WorkerId) {
        let is_counted = self.spares.len() < self.count(WorkerState::Spare);
        assert!(is_counted, "pool {} lists worker {id} among more spares than it has", self.name);
        self.spares.push_back(id);
    }

    /// A spare is not to get a slot for now, or is none any more.
    pub(super) fn unspare(&mut self, id: WorkerId) {
        self.spares.retain(|spare| *spare != id);
    }
}
