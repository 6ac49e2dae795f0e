//! `stuck`: for whose tasks workers of a pool are stuck, that user is given no further worker beyond half of the slots, less the
//! stuck ones. So one user's tasks never take the pool from others.
//!
//! It follows records, offers and proofs. A task that waited in a ring behind those of others, and begins, is no worker that
//! was given.

use std::collections::BTreeMap;

use bulkhead_core::action::{Action, Output};
use bulkhead_core::config::{Config, Users};
use bulkhead_proto::ids::{PoolId, WorkerId};

use crate::oracle::ledger::JobOracle;
use crate::oracle::lending::heads;
use crate::oracle::pool::PoolOracle;
use crate::report::{Verdict, broken};

/// Follows for whom workers are stuck.
#[derive(Debug)]
pub struct StuckOracle {
    /// The slots of each pool; none if nothing is bounded, or not to be seen.
    slots: Vec<u16>,
    /// Stuck workers by pool and user, after the last turn.
    stuck: BTreeMap<(PoolId, u32), u16>,
}

impl StuckOracle {
    /// No worker is stuck. `is_honest`: of a worker that lies it is not known which task it has begun.
    pub fn new(config: &Config, is_honest: bool) -> Self {
        let is_on = is_honest && config.users == Users::Several;
        Self {
            slots: config.all_pools().filter(|_| is_on).map(|pool| pool.slots).collect(),
            stuck: BTreeMap::new(),
        }
    }

    /// The core has decided this turn.
    ///
    /// # Errors
    /// A user was given a worker whose stuck workers leave it none.
    pub fn decided(&mut self, out: &Output, pool: &PoolOracle, jobs: &JobOracle) -> Verdict {
        let heads = heads(jobs);
        let of = |home: PoolId, uid: u32, is_stuck: bool| {
            let its = |id: &&WorkerId| pool.pool_of(**id) == Some(home) && pool.is_stuck(**id) == is_stuck;
            let its = heads.iter().filter(|(id, head)| **head == uid && its(id));
            u16::try_from(its.count()).unwrap_or(u16::MAX)
        };
        for action in &out.actions {
            let Action::Offer { worker, seq, .. } = action else { continue };
            let first = jobs.offers.range((*worker, bulkhead_proto::ids::Seq(0))..).next();
            let is_given = first.is_some_and(|(key, _)| *key == (*worker, *seq));
            let (Some(uid), Some(home)) = (heads.get(worker).filter(|_| is_given), pool.pool_of(*worker))
            else {
                continue;
            };
            let Some(slots) = self.slots.get(usize::from(home.0)) else { continue };
            let before = self.stuck.get(&(home, *uid)).copied().unwrap_or(0);
            let (stuck, held) = (before.min(of(home, *uid, true)), of(home, *uid, false));
            if stuck > 0 && held > (slots / 2).saturating_sub(stuck) {
                return broken(
                    "stuck",
                    format!(
                        "user {uid} is given worker {worker} of pool {home} with {slots} slots and holds {held}, with {stuck} stuck"
                    ),
                );
            }
        }
        self.stuck.clear();
        for (id, uid) in heads.iter().filter(|(id, _)| pool.is_stuck(**id)) {
            if let Some(home) = pool.pool_of(*id) {
                *self.stuck.entry((home, *uid)).or_default() += 1;
            }
        }
        Ok(())
    }
}
