//! Runs a seed, and turns a broken promise or a panic into a failure that can be replayed.
//!
//! A panic of the core (an assertion, or its audit) is the oracle `panic`. A run is done without text first;
//! only a seed that failed is run again with it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::report::{BrokenRule, RunReport, SeedFailure};
use crate::sabotage::Sabotage;
use crate::scenario::Scenario;
use crate::trace::{Keep, Trace};
use crate::world::World;

/// Runs one seed.
///
/// # Errors
/// The first broken promise, with the end of the trace.
pub fn run(seed: u64) -> Result<RunReport, Box<SeedFailure>> {
    run_broken(seed, None)
}

/// Runs one seed with a deliberate defect.
///
/// # Errors
/// The first broken promise, with the end of the trace.
pub fn run_broken(seed: u64, sabotage: Option<Sabotage>) -> Result<RunReport, Box<SeedFailure>> {
    match run_kept(seed, sabotage, Keep::Hash).0 {
        Ok(report) => Ok(report),
        Err(broken) => {
            let (_, tail) = run_kept(seed, sabotage, Keep::Tail);
            let profile = Scenario::new(seed).profile;
            Err(Box::new(SeedFailure { seed, profile, broken, tail }))
        }
    }
}

/// Runs one seed and keeps as much of the trace as asked for.
pub fn run_kept(
    seed: u64,
    sabotage: Option<Sabotage>,
    keep: Keep,
) -> (Result<RunReport, BrokenRule>, Vec<String>) {
    let mut world = World::new(Scenario::new(seed), sabotage, Trace::new(keep));
    let result = catch_unwind(AssertUnwindSafe(|| world.run())).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(BrokenRule { oracle: "panic", what: text.unwrap_or_else(|| "without a text".to_owned()) })
    });
    (result, world.trace.take_lines())
}
