//! A worker program with one kind whose jobs are split over the workers: how many primes there are up to a number.
//!
//! `bulkhead.toml` names this program and the kind, and says that it plans:
//!
//! ```toml
//! worker_program = "/path/to/primes"
//! builtin_kinds = false
//! [kinds.primes]
//! usage = "N"
//! summary = "how many primes there are up to N"
//! plans = true
//! ```
//!
//! Then `bulkhead run primes 10000000` gives 664579.

use std::process::ExitCode;

use bulkhead_worker::{Registry, TaskContext, run};

type Range = (u64, u64);

fn plan(n: &u64, _: &mut dyn TaskContext) -> Result<Vec<Range>, String> {
    let step = 100_000;
    let parts = n.div_ceil(step);
    if parts > 10_000 {
        return Err(format!("{n} is above 1000000000: that would take too long"));
    }
    Ok((0..parts).map(|part| (part * step + 1, (part * step + step).min(*n))).collect())
}

fn part(_: &u64, (first, last): Range, task: &mut dyn TaskContext) -> Result<u64, String> {
    task.say(&format!("primes from {first} to {last}"));
    let is_prime = |n: &u64| *n > 1 && (2..).take_while(|d| d * d <= *n).all(|d| !n.is_multiple_of(d));
    Ok((first..=last).filter(is_prime).count() as u64)
}

fn merge(_: &u64, counts: Vec<u64>, _: &mut dyn TaskContext) -> Result<u64, String> {
    Ok(counts.iter().sum())
}

fn main() -> ExitCode {
    run(&Registry::new().planned("primes", plan, part, merge))
}
