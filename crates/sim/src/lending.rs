//! Scenarios in which pools lend slots to users who wait, and users have hard shares.
//!
//! Drawn apart from everything else, so that a seed without lending means what it always did. Tasks that never end, and slow
//! ones, hold all slots of a pool often enough; the times here are short beside theirs.

use bulkhead_core::config::Config;

use crate::rng::SimRng;
use crate::scenario::Profile;

/// What the draws of this file begin with. Chosen so that few seeds of `tests/regressions.rs` lend.
const SALT: u64 = 0x1e7d_0001;

/// Lets the pools of some seeds lend, and bounds the workers of each user in some.
pub(crate) fn lend(seed: u64, profile: Profile, config: &mut Config) {
    let mut rng = SimRng::new(seed ^ SALT);
    // The oracle `fairness` counts by the number of slots.
    if profile == Profile::Flood || !rng.chance(500) {
        return;
    }
    config.lend_after_ms = Some(*rng.pick(&[1, 20, 300, 2000]));
    config.lend_max = rng.below(4) as u16;
    // One user holds all of a small pool more often.
    if rng.chance(600) {
        config.slots = 1;
    }
    let share = |rng: &mut SimRng| *rng.pick(&[None, None, Some(1), Some(2)]);
    config.running_max = share(&mut rng);
    for pool in &mut config.pools {
        pool.lend_max = rng.below(3) as u16;
        pool.running_max = share(&mut rng);
    }
}
