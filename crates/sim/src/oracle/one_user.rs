//! `one user`: of a pool whose workers serve one user each, no worker is offered tasks of two.
//!
//! It follows offers alone, and never asks the core: what was offered to a worker may have been read by it.

use std::collections::BTreeMap;

use bulkhead_core::action::{Action, Output};
use bulkhead_core::config::Config;
use bulkhead_proto::ids::WorkerId;

use crate::oracle::ledger::JobOracle;
use crate::oracle::pool::PoolOracle;
use crate::report::{Verdict, broken};
use crate::task::TaskId;

/// Follows whom workers serve.
#[derive(Debug)]
pub struct OneUserOracle {
    /// By the number of the pool: whether its workers serve one user.
    pools: Vec<bool>,
    served: BTreeMap<WorkerId, u32>,
}

impl OneUserOracle {
    /// No worker has served anybody.
    pub fn new(config: &Config) -> Self {
        Self { pools: config.all_pools().map(|pool| pool.one_user).collect(), served: BTreeMap::new() }
    }

    /// The core has decided this turn.
    ///
    /// # Errors
    /// A worker is offered tasks of two users.
    pub fn decided(&mut self, out: &Output, pool: &PoolOracle, jobs: &JobOracle) -> Verdict {
        self.served.retain(|worker, _| pool.pool_of(*worker).is_some());
        for action in &out.actions {
            let Action::Offer { worker, task, .. } = action else { continue };
            let home = pool.pool_of(*worker).map_or(0, |pool| usize::from(pool.0));
            let Some(job) = jobs.task(TaskId::own(task.job)).filter(|_| self.pools[home]) else { continue };
            let served = *self.served.entry(*worker).or_insert(job.uid);
            if served != job.uid {
                let uid = job.uid;
                return broken(
                    "one user",
                    format!("worker {worker}, which serves user {served}, is offered a task of {uid}"),
                );
            }
        }
        Ok(())
    }
}
