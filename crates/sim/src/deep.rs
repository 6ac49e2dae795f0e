//! Scenarios in which the rings of workers are filled to the last entry, once faults have stopped.
//!
//! Drawn apart from everything else, so that a seed without it means what it always did. Nothing else asks for so many of the
//! shortest tasks; the oracle `depth` judges all other offers. Between two bursts of one flavour come slow tasks of another, which
//! must not matter. Also here: the flavours of all other jobs.

use bulkhead_proto::client::message::{Reply, Request, Submit};
use bulkhead_proto::limits::RING;

use crate::report::{Verdict, broken};
use crate::rng::SimRng;
use crate::scenario::{Profile, Scenario};
use crate::truth::Truth;
use crate::world::World;

/// What the draws of this file begin with. Chosen so that no seed of `tests/regressions.rs` has it.
const SALT: u64 = 0x9393_585d;
/// What the draws of flavours begin with. Chosen so that no seed of `tests/regressions.rs` has any.
const FLAVOUR_SALT: u64 = 0x3ae1_045f;
/// More flavours than the daemon keeps.
const FLAVOURS: u64 = 100;
/// The kind that fills them.
const FILLING: &str = "quick";
/// Jobs of one burst: several rings for each worker of a pool.
const BURST: usize = 3000;

/// Lets a seed fill the rings. Its workers have wide channels, and are not replaced for the number of their tasks. Each offer of a
/// task that keeps a log takes 1 MiB and two files, which little memory does not have for a whole ring.
pub(crate) fn fill(scenario: &mut Scenario) -> bool {
    let has_log = scenario.config.kinds.iter().any(|kind| kind.name == FILLING && kind.logs);
    let is_small = matches!(scenario.profile, Profile::Starved | Profile::Flood);
    if is_small
        || has_log && scenario.little_memory
        || scenario.crowd.is_some()
        || !SimRng::new(scenario.seed ^ SALT).chance(150)
    {
        return false;
    }
    scenario.faults.narrow = 0;
    scenario.config.queue_max = scenario.config.queue_max.max(2 * BURST as u64);
    scenario.config.queue_bytes_max = scenario.config.queue_bytes_max.max(1 << 20);
    scenario.config.recycle_tasks = None;
    scenario.config.recycle_age_ms = None;
    scenario.config.recycle_resident_bytes = None;
    true
}

/// Whether jobs of a seed have flavours.
fn has_flavours(seed: u64) -> bool {
    SimRng::new(seed ^ FLAVOUR_SALT).chance(300)
}

impl World {
    /// The flavour of a submit: few that come often, many that come once, or none.
    pub(crate) fn some_flavour(&self) -> u32 {
        if !has_flavours(self.scenario.seed) {
            return 0;
        }
        let mut rng = SimRng::new(self.scenario.seed ^ FLAVOUR_SALT ^ self.clock.ns());
        let most = *rng.pick(&[1, 3, FLAVOURS]);
        rng.below(most) as u32
    }

    /// At rest: the first burst of the shortest tasks teaches the core how long they take, the second fills a ring. Slow tasks of
    /// another flavour between them are no matter.
    pub(crate) fn fill_rings(&mut self) -> Verdict {
        if !self.scenario.deep {
            return Ok(());
        }
        let flavour = self.scenario.seed as u32 % 2 * 1000;
        self.burst(flavour, BURST, Truth::Harmless(0))?;
        self.burst(flavour + 1, 3, Truth::Slow(20))?;
        self.oracles.depth.deepest = 0;
        self.burst(flavour, BURST, Truth::Harmless(0))?;
        match self.oracles.depth.deepest {
            RING => Ok(()),
            deepest => broken("depth", format!("{BURST} short tasks fill {deepest} of {RING} entries")),
        }
    }

    /// Submits so many jobs of this flavour and waits until all have ended.
    fn burst(&mut self, flavour: u32, count: usize, truth: Truth) -> Verdict {
        let inputs = (0..count).map(|_| truth.hide(self.rng.draw())).collect();
        let submit = Submit { kind: FILLING.to_owned(), flavour, inputs, ..Submit::default() };
        let answer = self.ask_as_inspector(vec![Request::Submit(submit)])?;
        if !matches!(answer.as_slice(), [Reply::Accepted { refused: None, .. }]) {
            return broken("depth", format!("{count} jobs are not accepted: {answer:?}"));
        }
        self.rest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bounds of 20, 40 and 200 MiB, with 24 files or as many as wanted.
    #[test]
    fn rings_are_not_filled_with_logs_where_memory_is_little() {
        for seed in [457, 949, 1081] {
            let scenario = Scenario::new(seed);
            assert!(scenario.logs && scenario.little_memory && !scenario.deep, "seed {seed}");
        }
    }
}
