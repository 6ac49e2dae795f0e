//! `first`: with `one_first`, the first worker of each pool comes up alone: no other one is spawned before it, or one that replaces it, is
//! ready or a second has passed, and then one is.
//!
//! It follows events and actions, and never asks the core. Without the time in which nothing ran (`pauses`).

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

/// A pool whose first worker was spawned.
#[derive(Debug)]
struct FirstWorker {
    worker: WorkerId,
    since_ns: u64,
    /// The others need not wait any longer, or may wait for longer, because it did not come up.
    is_over: bool,
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
            Event::WorkerReady { worker, .. } => self.end(*worker),
            Event::Drain { .. } | Event::Stop => self.is_leaving = true,
            _ => {}
        }
    }

    /// Of a worker that did not come up the pool's backoff says when the next one is spawned, but not before the second is over.
    fn end(&mut self, worker: WorkerId) {
        let own = self.firsts.values_mut().filter(|first| first.worker == worker);
        own.for_each(|first| first.is_over = true);
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
                let first = FirstWorker { worker: *worker, since_ns: now.mono_ns, is_over: false };
                self.firsts.insert(*pool, first);
                continue;
            };
            let ran_ns = pauses.ran_ns(first.since_ns, now.mono_ns);
            if !first.is_over && ran_ns < ALONE_NS {
                return broken(
                    "first",
                    format!(
                        "worker {worker} of pool {pool} is spawned {ran_ns} ns after {first:?}, which is not up"
                    ),
                );
            }
            first.is_over = true;
        }
        let is_late = |first: &FirstWorker| pauses.ran_ns(first.since_ns, now.mono_ns) >= ALONE_NS + S;
        let waits = |pool: &PoolId| self.sizes.get(usize::from(pool.0)).is_some_and(|size| *size > 1);
        match self.firsts.iter().find(|(pool, first)| waits(pool) && !first.is_over && is_late(first)) {
            Some((pool, first)) if !self.is_leaving => {
                broken("first", format!("pool {pool} has no other worker, and {first:?} is not up"))
            }
            _ => Ok(()),
        }
    }
}
