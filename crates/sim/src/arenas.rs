//! Scenarios whose clients take results in arenas: which do, and how much may be there.
//!
//! Drawn apart from everything else, so that a seed without them means what it always did. A client frees what it has read a
//! while later where memory is little (`outputs.rs`); else at once.

use bulkhead_core::action::Action;
use bulkhead_core::config::Config;
use bulkhead_proto::job::OutputMode;

use crate::rng::SimRng;
use crate::sabotage::Sabotage;

/// What the draws of this file begin with.
const SALT: u64 = 0x0a5e_4a11;

/// Gives some seeds little room in arenas, or none. Gives whether clients take results there.
pub(crate) fn bound(seed: u64, config: &mut Config) -> bool {
    let mut rng = SimRng::new(seed ^ SALT);
    config.arena_bytes_max = *rng.pick(&[0, 6000, 30_000, 1 << 30]);
    rng.chance(600)
}

/// Whether a submit whose tasks may ask for outputs takes arenas too.
pub(crate) fn takes(seed: u64, now_ns: u64) -> bool {
    SimRng::new(seed ^ SALT ^ now_ns.rotate_left(7)).chance(600)
}

impl Sabotage {
    /// Has every task that may ask for an output use the arena.
    pub(crate) fn spoil_arenas(self, actions: &mut [Action]) {
        if self != Self::EndlessArenas {
            return;
        }
        for action in actions {
            if let Action::Offer { task, .. } = action
                && task.output == OutputMode::Auto
            {
                task.output = OutputMode::Arena;
            }
        }
    }
}
