//! `pool`: which worker may be offered which task.
//!
//! Numbers of workers are never reused. Offers go only to workers that are ready, in a slot of the pool that runs the kind,
//! and neither killed nor retired. Seqs count up by one. No worker holds more of a kind than its ring allows, and a kind
//! with a ring of one is alone. Each slot has at most one worker that is neither stuck nor about to leave. It follows
//! actions, records and proofs, and never asks the core.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_core::action::{Action, Task, TaskFile};
use bulkhead_core::config::Config;
use bulkhead_core::event::Event;
use bulkhead_proto::client::record::{Record, What};
use bulkhead_proto::ids::{KindId, PoolId, Seq, SlotId, WorkerId};
use bulkhead_proto::worker::stage::Stage;

use crate::report::{Verdict, broken};

/// The knowledge about one worker.
#[derive(Debug, Default)]
struct KnownWorker {
    pool: PoolId,
    ready: bool,
    killed: bool,
    retired: bool,
    stuck: bool,
    hung_up: bool,
    /// A signal stopped it, and the core was told so.
    suspended: bool,
    /// Tasks of it that the core was told to have ended.
    ended: u64,
    /// Its size, as last examined.
    resident_bytes: u64,
    slot: Option<SlotId>,
    last: u64,
    /// Offers that it holds, and their kinds.
    holds: BTreeMap<Seq, KindId>,
    /// Those of them that must be alone.
    alone: BTreeSet<Seq>,
}

/// Follows the pool.
#[derive(Debug)]
pub struct PoolOracle {
    /// Slots and spares of each pool.
    sizes: Vec<(u16, u16)>,
    /// How many slots each pool may lend.
    lend_max: Vec<u16>,
    rings: Vec<u16>,
    /// Which pool runs a kind.
    homes: Vec<PoolId>,
    recycle_tasks: Option<u64>,
    recycle_resident_bytes: Option<u64>,
    /// Which pools recycle strictly.
    strict: Vec<bool>,
    workers: BTreeMap<WorkerId, KnownWorker>,
    newest: WorkerId,
}

impl PoolOracle {
    /// An oracle that knows no worker.
    pub fn new(config: &Config) -> Self {
        Self {
            sizes: config.all_pools().map(|pool| (pool.slots, pool.spares)).collect(),
            lend_max: config.all_pools().map(|pool| pool.lend_max).collect(),
            homes: config.kinds.iter().map(|kind| config.pool_of(kind)).collect(),
            rings: config.kinds.iter().map(|kind| kind.ring).collect(),
            recycle_tasks: config.recycle_tasks,
            recycle_resident_bytes: config.recycle_resident_bytes,
            strict: config.all_pools().map(|pool| pool.recycle_strict).collect(),
            workers: BTreeMap::new(),
            newest: WorkerId(0),
        }
    }

    /// Whether the core has decided to end a worker.
    pub fn is_killed(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_none_or(|known| known.killed)
    }

    /// Whether the core has asked a worker to leave.
    pub fn is_retired(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_none_or(|known| known.retired)
    }

    /// The pool of a worker, while it lives.
    pub fn pool_of(&self, worker: WorkerId) -> Option<PoolId> {
        self.workers.get(&worker).map(|known| known.pool)
    }

    /// The first slot of a pool, and how many it has.
    pub fn places(&self, pool: PoolId) -> (u16, u16) {
        let at = usize::from(pool.0);
        let first = self.sizes.iter().take(at).map(|(slots, _)| slots).sum();
        (first, self.sizes.get(at).map_or(0, |(slots, _)| *slots))
    }

    /// The first slot that a pool may lend, and how many it may: they stand behind the slots of all pools.
    pub fn lent_places(&self, pool: PoolId) -> (u16, u16) {
        let at = usize::from(pool.0);
        let own: u16 = self.sizes.iter().map(|(slots, _)| slots).sum();
        let before: u16 = self.lend_max.iter().take(at).sum();
        (own + before, self.lend_max.get(at).copied().unwrap_or(0))
    }

    /// The workers of a pool that have a slot, with the slot and whether they can be at work.
    pub fn placed(&self, pool: PoolId) -> impl Iterator<Item = (WorkerId, SlotId, bool)> + '_ {
        let own = self.workers.iter().filter(move |(_, known)| known.pool == pool && !known.retired);
        own.filter_map(|(id, known)| {
            let is_closed = known.killed || known.stuck || known.hung_up || known.suspended;
            Some((*id, known.slot?, !is_closed))
        })
    }

    /// Whether it was recorded that a worker is stuck.
    pub fn is_stuck(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_some_and(|known| known.stuck)
    }

    /// How many workers of a pool are on their way out: asked to leave, killed or stuck.
    pub fn leaving(&self, pool: PoolId) -> usize {
        let own = self.workers.values().filter(|known| known.pool == pool);
        own.filter(|known| known.retired || known.killed || known.stuck).count()
    }

    /// The kind of an offer, as long as its worker holds it.
    pub fn kind_of(&self, worker: WorkerId, seq: Seq) -> Option<KindId> {
        self.workers.get(&worker)?.holds.get(&seq).copied()
    }

    /// Offers that a worker holds.
    pub fn held(&self, worker: WorkerId) -> usize {
        self.workers.get(&worker).map_or(0, |known| known.holds.len())
    }

    /// Whether a worker is known to be stopped, or its lane hung up.
    pub fn is_deaf(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_none_or(|known| known.suspended || known.hung_up)
    }

    /// Follows an event.
    pub fn told(&mut self, event: &Event) {
        match event {
            Event::SpawnFailed { worker, .. } | Event::Died { worker, .. } => {
                drop(self.workers.remove(worker))
            }
            Event::WorkerReady { worker, .. } => self.change(*worker, |known| known.ready = true),
            Event::TookBack { worker, seq, won: true }
            | Event::OfferFailed { worker, seq, taken: true, .. }
            | Event::Finished { worker, seq, .. } => self.change(*worker, |known| {
                known.holds.remove(seq);
                known.alone.remove(seq);
                known.ended += u64::from(matches!(event, Event::Finished { .. }));
            }),
            Event::Examined { worker, seen: Some(seen), .. } => {
                self.change(*worker, |known| known.resident_bytes = seen.resident_bytes);
            }
            Event::HungUp { worker } => self.change(*worker, |known| known.hung_up = true),
            Event::Suspended { worker, .. } => self.change(*worker, |known| known.suspended = true),
            Event::Resumed { worker } => self.change(*worker, |known| known.suspended = false),
            _ => {}
        }
    }

    fn change(&mut self, worker: WorkerId, change: impl FnOnce(&mut KnownWorker)) {
        if let Some(known) = self.workers.get_mut(&worker) {
            change(known);
        }
    }

    /// Follows the records.
    ///
    /// # Errors
    /// A worker is placed where none may be.
    pub fn recorded(&mut self, record: &Record) -> Verdict {
        match &record.what {
            What::Placed { worker, slot, .. }
            | What::TakenIn { worker, slot, .. }
            | What::Lent { worker, slot, .. } => {
                let pool = self.pool_of(*worker).unwrap_or_default();
                let is_lent = matches!(record.what, What::Lent { .. });
                let (first, size) = if is_lent { self.lent_places(pool) } else { self.places(pool) };
                if slot.0 < first || slot.0 >= first + size {
                    return broken(
                        "pool",
                        format!(
                            "worker {worker} of pool {pool} is placed in slot {slot}, which is none of it"
                        ),
                    );
                }
                self.change(*worker, |known| known.slot = Some(*slot));
            }
            What::Stuck { worker, .. } => self.change(*worker, |known| known.stuck = true),
            _ => {}
        }
        Ok(())
    }

    /// Follows an action.
    ///
    /// # Errors
    /// The action is not allowed now.
    pub fn decided(&mut self, action: &Action) -> Verdict {
        match action {
            Action::Spawn { worker, pool } => self.spawned(*worker, *pool)?,
            Action::Kill { worker, .. } => self.change(*worker, |known| known.killed = true),
            Action::Retire { worker } => {
                let held = self.workers.get(worker).map_or(0, |known| known.holds.len());
                if held > 0 {
                    return broken("pool", format!("worker {worker} is retired, but holds {held} offers"));
                }
                self.change(*worker, |known| known.retired = true);
            }
            Action::Offer { worker, seq, task } => self.offered(*worker, *seq, task)?,
            _ => {}
        }
        Ok(())
    }

    fn spawned(&mut self, worker: WorkerId, pool: PoolId) -> Verdict {
        if worker <= self.newest {
            return broken("pool", format!("worker {worker} is spawned after worker {}", self.newest));
        }
        self.newest = worker;
        self.workers.insert(worker, KnownWorker { pool, ..KnownWorker::default() });
        Ok(())
    }

    /// Whether a spare of this pool is ready.
    pub fn has_spare(&self, pool: PoolId) -> bool {
        self.workers.values().filter(|known| known.pool == pool).any(|known| {
            let closed = known.killed || known.retired || known.hung_up || known.suspended;
            known.ready && !closed && known.slot.is_none()
        })
    }

    fn offered(&mut self, worker: WorkerId, seq: Seq, task: &Task) -> Verdict {
        let kind = task.kind;
        let home = self.homes.get(usize::from(kind.0)).copied();
        let has_spare = self.has_spare(home.unwrap_or_default());
        let Some(known) = self.workers.get_mut(&worker) else {
            return broken("pool", format!("offer {seq} goes to worker {worker}, which does not live"));
        };
        if !known.ready || known.killed || known.retired || known.stuck || known.slot.is_none() {
            return broken("pool", format!("offer {seq} goes to worker {worker}, which is {known:?}"));
        }
        if home != Some(known.pool) {
            return broken(
                "pool",
                format!("offer {seq} of kind {kind} goes to worker {worker} of pool {}", known.pool),
            );
        }
        if known.suspended {
            return broken("pool", format!("offer {seq} goes to worker {worker}, which is stopped"));
        }
        let share = known.ended + known.holds.len() as u64;
        if has_spare && known.ended > 0 && self.recycle_tasks.is_some_and(|tasks| share >= tasks) {
            return broken("pool", format!("offer {seq} goes to worker {worker}, which has done its share"));
        }
        if self.strict[usize::from(known.pool.0)] {
            let has_grown = |limit: u64| known.ended > 0 && known.resident_bytes >= limit;
            if self.recycle_tasks.is_some_and(|tasks| share >= tasks)
                || self.recycle_resident_bytes.is_some_and(has_grown)
            {
                return broken(
                    "pool",
                    format!("offer {seq} goes to worker {worker}, which is spent: {known:?}"),
                );
            }
        }
        if seq.0 != known.last + 1 {
            return broken("pool", format!("worker {worker}: offer {seq} follows offer {}", known.last));
        }
        known.last = seq.0;
        known.holds.insert(seq, kind);
        let ring = |kind: &KindId| usize::from(self.rings.get(usize::from(kind.0)).copied().unwrap_or(0));
        let mut files = task
            .files
            .iter()
            .filter(|file| !matches!(file, TaskFile::Log { .. } | TaskFile::Registered { .. }));
        if files.next().is_some() || task.stage != Stage::Whole {
            known.alone.insert(seq);
        }
        let shares = known.holds.len() > 1;
        if shares && !known.alone.is_empty() {
            return broken(
                "pool",
                format!("worker {worker} holds more beside a task with files: {:?}", known.holds),
            );
        }
        if shares && known.holds.values().any(|kind| ring(kind) == 1) {
            return broken("pool", format!("worker {worker} holds what must be alone: {:?}", known.holds));
        }
        let same = known.holds.values().filter(|held| **held == kind).count();
        if same > ring(&kind) {
            return broken("pool", format!("worker {worker} holds {same} offers of kind {kind}"));
        }
        Ok(())
    }

    /// After each step.
    ///
    /// # Errors
    /// Two workers share a slot, too many live, or a slot is free beside a spare.
    pub fn check(&self) -> Verdict {
        let mut places = BTreeMap::new();
        let mut warm = vec![0; self.sizes.len()];
        for (id, known) in &self.workers {
            warm[usize::from(known.pool.0)] += usize::from(!known.killed && !known.retired && !known.stuck);
            let Some(slot) = known.slot.filter(|_| !known.stuck && !known.retired) else { continue };
            if let Some(other) = places.insert(slot, id) {
                return broken("pool", format!("slot {slot} has worker {other} and worker {id}"));
            }
        }
        for (pool, (warm, (slots, spares))) in warm.into_iter().zip(&self.sizes).enumerate() {
            // A pool that is to have no spare starts one when something needs it.
            let most = usize::from(*slots) + usize::from(*spares.max(&1)) + usize::from(self.lend_max[pool]);
            if warm > most {
                return broken("pool", format!("{warm} workers of pool {pool} live, not {most}"));
            }
            let pool = PoolId(pool as u16);
            let placed = self.workers.values().filter(|known| known.pool == pool && !known.retired);
            let placed = placed.filter(|known| known.slot.is_some()).count();
            if placed < usize::from(*slots) && self.has_spare(pool) {
                return broken(
                    "pool",
                    format!("{placed} of {slots} slots of pool {pool} are taken, and a spare is ready"),
                );
            }
        }
        Ok(())
    }

    /// When all is quiet: every slot has its worker, and the spares stand ready; but in a pool that is down.
    ///
    /// # Errors
    /// Something is missing or too much.
    pub fn is_whole_but(&self, down: Option<PoolId>) -> Verdict {
        for (pool, (slots, spares)) in (0..).map(PoolId).zip(&self.sizes) {
            let ready = self.workers.values().filter(|known| known.pool == pool);
            let ready = ready.filter(|known| known.ready && !known.killed && !known.retired);
            let (placed, spare): (Vec<_>, Vec<_>) = ready.partition(|known| known.slot.is_some());
            let is_whole = placed.len() == usize::from(*slots) && spare.len() == usize::from(*spares);
            if !is_whole && down != Some(pool) {
                let (placed, spare) = (placed.len(), spare.len());
                return broken(
                    "pool",
                    format!("pool {pool}: {placed} of {slots} slots and {spare} of {spares} spares"),
                );
            }
        }
        Ok(())
    }
}
