//! Scenarios with two pools: which kinds the second one runs, and which of both cannot start a worker. And those with pools
//! that are to have no spare, whose workers serve one user each, or whose first workers come up alone.
//!
//! A pool that is down stays so until the other one has come to rest beside it; the oracle `ends` judges then that one pool
//! does not hold up the other. Drawn apart from everything else, so that a seed without a second pool means what it always
//! did.

use bulkhead_core::config::{Config, PoolSize};
use bulkhead_proto::ids::{PoolId, WorkerId};

use crate::agenda::Move;
use crate::clock::S;
use crate::report::Verdict;
use crate::rng::SimRng;
use crate::scenario::Profile;
use crate::world::World;

/// What the draws of [`without_spares`] begin with. Chosen so that no seed of `tests/regressions.rs` is without spares.
const SPARELESS_SALT: u64 = 0x5ba2_e499;

/// Name of the second pool.
const HEAVY: &str = "heavy";

/// A pool that cannot start a worker for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Down {
    /// Which.
    pub pool: PoolId,
    /// Whether from the beginning on; else from the end of all other trouble.
    pub early: bool,
}

/// Gives some seeds a second pool, and takes one of both down in most of these.
pub(crate) fn split(seed: u64, profile: Profile, config: &mut Config) -> Option<Down> {
    let mut rng = SimRng::new(seed ^ 0x9001_0002);
    // The oracle `fairness` counts as if there were one queue.
    if profile == Profile::Flood || !rng.chance(400) {
        return None;
    }
    // The first kind stays, and one of the others goes, so that each pool has something to run.
    let moved = 1 + rng.below(config.kinds.len() as u64 - 1) as usize;
    for (at, kind) in config.kinds.iter_mut().enumerate().skip(1) {
        if at == moved || rng.chance(300) {
            HEAVY.clone_into(&mut kind.pool);
        }
    }
    let (slots, spares) = (rng.between(1, 3) as u16, rng.between(1, 2) as u16);
    config.pools = vec![PoolSize { name: HEAVY.to_owned(), slots, spares, ..PoolSize::default() }];
    let (pool, early) = (PoolId(rng.below(2) as u16), rng.chance(500));
    rng.chance(700).then_some(Down { pool, early })
}

/// Takes the spares of one pool or of all in some seeds: what needs one waits for its start.
pub(crate) fn without_spares(seed: u64, config: &mut Config) {
    let mut rng = SimRng::new(seed ^ SPARELESS_SALT);
    if !rng.chance(350) {
        return;
    }
    let (only_first, only_others) = (rng.chance(300), rng.chance(300));
    if only_first || !only_others {
        config.spares = 0;
    }
    if !only_first {
        config.pools.iter_mut().for_each(|pool| pool.spares = 0);
    }
}

/// What the draws of [`serve_one_user`] begin with. Chosen so that no seed of `tests/regressions.rs` has such pools.
const ONE_USER_SALT: u64 = 0x0e05_e41b;

/// Lets the workers of one pool or of all serve one user each in some seeds.
pub(crate) fn serve_one_user(seed: u64, profile: Profile, config: &mut Config) {
    let mut rng = SimRng::new(seed ^ ONE_USER_SALT);
    // The oracle `fairness` counts as if every worker could serve everybody.
    if profile == Profile::Flood || !rng.chance(250) {
        return;
    }
    config.one_user = rng.chance(700);
    let others = !config.one_user || rng.chance(500);
    config.pools.iter_mut().for_each(|pool| pool.one_user = others);
}

/// What the draws of [`recycle_strictly`] begin with. Chosen so that no seed of `tests/regressions.rs` has such pools.
const STRICT_SALT: u64 = 0x51c7_006f;

/// Lets one pool or all recycle strictly in some seeds.
pub(crate) fn recycle_strictly(seed: u64, profile: Profile, config: &mut Config) {
    let mut rng = SimRng::new(seed ^ STRICT_SALT);
    // The oracle `fairness` counts as if no worker waited for a spare.
    if profile == Profile::Flood || !rng.chance(250) {
        return;
    }
    config.recycle_strict = rng.chance(700);
    let others = !config.recycle_strict || rng.chance(500);
    config.pools.iter_mut().for_each(|pool| pool.recycle_strict = others);
    // Most of these seeds have something to be strict about.
    if config.recycle_tasks.is_none() {
        config.recycle_tasks = *rng.pick(&[None, Some(1), Some(2), Some(5), Some(60)]);
    }
}

/// What the draws of [`start_one_first`] begin with. Chosen so that no seed of `tests/regressions.rs` starts so.
const ONE_FIRST_SALT: u64 = 0x0f12_59fc;

/// Lets the first worker of each pool come up alone in some seeds.
pub(crate) fn start_one_first(seed: u64, config: &mut Config) {
    config.one_first = SimRng::new(seed ^ ONE_FIRST_SALT).chance(300);
}

impl World {
    /// One pool loses its workers and cannot start any: all others come to rest meanwhile. Then it can.
    pub(crate) fn rest_beside_a_dead_pool(&mut self) -> Verdict {
        let Some(Down { pool, .. }) = self.scenario.down else { return Ok(()) };
        self.down = Some(pool);
        let mut ids: Vec<WorkerId> = self.workers.keys().copied().collect();
        ids.retain(|id| self.oracles.pool.pool_of(*id) == Some(pool));
        for id in ids {
            let after = self.rng.span(S);
            self.plan(after, Move::Die(id));
        }
        self.rest()?;
        self.down = None;
        Ok(())
    }

    /// Whether a kind is run by a pool that is down.
    pub(crate) fn is_down(&self, kind: &str) -> bool {
        let config = &self.scenario.config;
        let found = config.kinds.iter().find(|known| known.name == kind);
        found.is_some_and(|kind| self.down == Some(config.pool_of(kind)))
    }
}
