//! Scenarios in which the rings of workers are filled to the last entry, once faults have stopped.
//!
//! Drawn apart from everything else, so that a seed without it means what it always did. Nothing else asks for so many of the
//! shortest tasks; the oracle `depth` judges all other offers.

use bulkhead_proto::client::message::{Reply, Request, Submit};
use bulkhead_proto::limits::RING;

use crate::report::{Verdict, broken};
use crate::rng::SimRng;
use crate::scenario::{Profile, Scenario};
use crate::truth::Truth;
use crate::world::World;

/// What the draws of this file begin with. Chosen so that no seed of `tests/regressions.rs` has it.
const SALT: u64 = 0x9393_585d;
/// Jobs of one burst: several rings for each worker of a pool.
const BURST: usize = 3000;

/// Lets a seed fill the rings. Its workers have wide channels, and are not replaced for the number of their tasks.
pub(crate) fn fill(scenario: &mut Scenario) -> bool {
    let is_small = matches!(scenario.profile, Profile::Starved | Profile::Flood);
    if is_small || scenario.crowd.is_some() || !SimRng::new(scenario.seed ^ SALT).chance(150) {
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

impl World {
    /// At rest: the first burst of the shortest tasks teaches the core how long they take, the second fills a ring.
    pub(crate) fn fill_rings(&mut self) -> Verdict {
        if !self.scenario.deep {
            return Ok(());
        }
        for _ in 0..2 {
            let inputs = (0..BURST).map(|_| Truth::Harmless(0).hide(self.rng.draw())).collect();
            let submit = Submit { kind: "quick".to_owned(), inputs, ..Submit::default() };
            let answer = self.ask_as_inspector(vec![Request::Submit(submit)])?;
            if !matches!(answer.as_slice(), [Reply::Accepted { refused: None, .. }]) {
                return broken("depth", format!("{BURST} jobs are not accepted: {answer:?}"));
            }
            self.rest()?;
        }
        match self.oracles.depth.deepest {
            RING => Ok(()),
            deepest => broken("depth", format!("{BURST} short tasks fill {deepest} of {RING} entries")),
        }
    }
}
