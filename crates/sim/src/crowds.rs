//! Scenarios with a crowd: some users with several connections each that submit as much as they can, and many users with
//! one connection and few jobs.
//!
//! Drawn apart from everything else, so that a seed without a crowd means what it always did. Bounds are small enough to
//! be met, and large enough that a 64th of them is something.

use bulkhead_core::config::Config;

use crate::client::Role;
use crate::rng::SimRng;
use crate::scenario::Profile;

/// What the draws of this file begin with. Chosen so that no seed of `tests/regressions.rs` has a crowd.
const SALT: u64 = 0x0c40_3d10;
/// The user of the first connection of the hostile ones; each of them has [`HOSTILE_CONNECTIONS`].
pub(crate) const FIRST_HOSTILE: u32 = 1000;
const HOSTILE_CONNECTIONS: usize = 3;
/// The user of the first of the others.
const FIRST_SMALL: u32 = 2000;
/// Requests of each client: a flood of them fills every bound.
pub(crate) const ACTS: u32 = 12;

/// How many of a crowd's users are hostile, and how many are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crowd {
    hostile: usize,
    small: usize,
}

impl Crowd {
    /// The connections at the start.
    pub(crate) fn connections(self) -> usize {
        self.hostile * HOSTILE_CONNECTIONS + self.small
    }

    /// Who makes a connection.
    pub(crate) fn maker(self, number: usize) -> (Role, u32) {
        match number.checked_sub(self.hostile * HOSTILE_CONNECTIONS) {
            None => (Role::Flooder, FIRST_HOSTILE + (number / HOSTILE_CONNECTIONS) as u32),
            Some(number) => (Role::Mixed, FIRST_SMALL + number as u32),
        }
    }
}

/// Gives some seeds a crowd, and bounds for it.
pub(crate) fn gather(seed: u64, profile: Profile, config: &mut Config) -> Option<Crowd> {
    let mut rng = SimRng::new(seed ^ SALT);
    if profile == Profile::Flood || !rng.chance(250) {
        return None;
    }
    config.queue_max = *rng.pick(&[128, 320, 640]);
    config.queue_bytes_max = *rng.pick(&[6400, 64_000]);
    config.files_max = *rng.pick(&[128, 640]);
    config.files_bytes_max = *rng.pick(&[64_000, 640_000]);
    config.keep_bytes_max = *rng.pick(&[6400, 64_000]);
    Some(Crowd { hostile: rng.between(1, 3) as usize, small: rng.between(2, 8) as usize })
}
