//! `first`: with `one_first`, the first worker of each pool comes up alone: no other one is spawned before it is ready or a second has
//! passed, and then one is. If it does not come up, `backoff` says when the next one may be spawned, but not before that second is over.
//!
//! It follows events and actions, and never asks the core. Time in which nothing ran (`pauses`) does not count.

use std::collections::BTreeMap;

use bulkhead_core::action::{Action, Output};
use bulkhead_core::config::Config;
use bulkhead_core::event::{Event, Now};
use bulkhead_proto::ids::{PoolId, WorkerId};

use crate::clock::S;
use crate::oracle::pauses::PauseOracle;
use crate::report::{Verdict, broken};

/// How long others wait at most.
const ALONE_NS: u64 = S;
/// How much later than it asked for the core may be woken.
const LATE_NS: u64 = S;

/// How far the first worker of a pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FirstState {
    /// It comes up.
    Alone,
    /// It does not come up.
    Failed,
    /// It is up, or others have come.
    Over,
}

/// The first worker of a pool.
#[derive(Debug)]
struct FirstWorker {
    worker: WorkerId,
    since_ns: u64,
    state: FirstState,
}

/// Follows the first worker of each pool.
#[derive(Debug)]
pub struct FirstOracle {
    /// The workers that each pool is to have; none without `one_first`.
    sizes: Vec<u16>,
    firsts: BTreeMap<PoolId, FirstWorker>,
    is_leaving: bool,
}

impl FirstOracle {
    /// No worker was spawned.
    pub fn new(config: &Config) -> Self {
        let pools = config.all_pools().filter(|_| config.one_first);
        Self {
            sizes: pools.map(|pool| pool.slots + pool.spares).collect(),
            firsts: BTreeMap::new(),
            is_leaving: false,
        }
    }

    /// Follows an event.
    pub fn told(&mut self, event: &Event) {
        match event {
            Event::WorkerReady { worker, .. } => self.change(*worker, FirstState::Over),
            Event::SpawnFailed { worker, .. }
            | Event::BootstrapFailed { worker, .. }
            | Event::HungUp { worker }
            | Event::Died { worker, .. } => self.change(*worker, FirstState::Failed),
            Event::Drain { .. } | Event::Stop => self.is_leaving = true,
            _ => {}
        }
    }

    fn change(&mut self, worker: WorkerId, state: FirstState) {
        let is_its = |first: &&mut FirstWorker| first.worker == worker && first.state == FirstState::Alone;
        self.firsts.values_mut().filter(is_its).for_each(|first| first.state = state);
    }

    /// The core has decided this turn.
    ///
    /// # Errors
    /// A second worker is spawned too soon, or none is.
    pub fn decided(&mut self, now: Now, out: &Output, pauses: &PauseOracle) -> Verdict {
        for action in &out.actions {
            let Action::Spawn { worker, pool } = action else { continue };
            if usize::from(pool.0) >= self.sizes.len() {
                continue;
            }
            let Some(first) = self.firsts.get_mut(pool) else {
                let first = FirstWorker { worker: *worker, since_ns: now.mono_ns, state: FirstState::Alone };
                self.firsts.insert(*pool, first);
                continue;
            };
            let ran_ns = pauses.ran_ns(first.since_ns, now.mono_ns);
            if first.state != FirstState::Over && ran_ns < ALONE_NS {
                return broken(
                    "first",
                    format!(
                        "worker {worker} of pool {pool} is spawned {ran_ns} ns after {first:?}, which is not up"
                    ),
                );
            }
            first.state = FirstState::Over;
        }
        // A step may come later than was asked for, and is no pause.
        let is_late = |first: &FirstWorker| pauses.ran_ns(first.since_ns, now.mono_ns) >= ALONE_NS + LATE_NS;
        let waits = |pool: &PoolId, first: &FirstWorker| {
            let size = self.sizes.get(usize::from(pool.0)).copied().unwrap_or(0);
            size > 1 && first.state == FirstState::Alone && is_late(first)
        };
        match self.firsts.iter().find(|(pool, first)| waits(pool, first)) {
            Some((pool, first)) if !self.is_leaving => {
                broken("first", format!("pool {pool} has no other worker, and {first:?} is not up"))
            }
            _ => Ok(()),
        }
    }
}
