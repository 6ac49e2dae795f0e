//! `cargo xtask demo`: a crash that hurts no other job, with real jobs and a real `kill -9`.
//!
//! It starts a daemon in a folder of its own, uses it as any user would, checks every result and every count, prints
//! the daemon's answers, and leaves nothing behind. It fails if a promise is not kept.

mod arithmetic;
mod batch;
mod daemon;
mod events;
mod kill;
mod poison;

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::{cargo, setup};
use batch::FactorialBatch;
use daemon::Daemon;
use events::EventFollower;

/// Jobs of the first chapter: about a tenth of a second each, so that a kill hits one in its middle.
const LARGE: u64 = 40;
/// The smallest of them.
const LARGE_N: u64 = 200_001;
/// Jobs around the poison job, before and after it.
const SMALL: (u64, u64) = (80, 79);
/// The smallest of them.
const SMALL_N: u64 = 2_001;

/// Builds the programs and runs the demo.
///
/// # Errors
/// A package is missing, the build fails, or the daemon does not keep a promise.
pub(crate) fn run() -> Result<()> {
    setup::run(setup::Purpose::Build)?;
    let packages = ["-p", "bulkhead-supervisor", "-p", "bulkhead-worker", "-p", "bulkhead-cli"];
    cargo::run(&[&["build", "--release", "--bins"], &packages[..]].concat())?;
    let begun = Instant::now();
    show(&cargo::programs("release"))?;
    println!("\nThe demo took {:.1} s and left nothing behind.", begun.elapsed().as_secs_f64());
    Ok(())
}

fn show(programs: &Path) -> Result<()> {
    chapter(1, "A daemon with two workers, and a batch of real work");
    let daemon = Daemon::start(programs)?;
    let mut events = EventFollower::follow(&daemon)?;
    println!("    $ bulkhead-supervisor --workers 2 --enable-chaos");
    let large = FactorialBatch::submit(&daemon, LARGE_N..=LARGE_N + LARGE - 1)?;
    println!("    $ bulkhead submit factorial --as decimal {LARGE_N}..{}", LARGE_N + LARGE - 1);
    println!("    {} factorials are accepted, each of about 973,000 digits.", large.len());

    chapter(2, "kill -9 in the middle of it");
    large.wait(&daemon, large.len() / 4)?;
    let victim = kill::run(&daemon, &mut events)?;

    chapter(3, "A poison job, which kills every worker that runs it, amid the innocent");
    let before = FactorialBatch::submit(&daemon, SMALL_N..=SMALL_N + SMALL.0 - 1)?;
    let poison = poison::submit(&daemon)?;
    let after = FactorialBatch::submit(&daemon, SMALL_N + SMALL.0..=SMALL_N + SMALL.0 + SMALL.1 - 1)?;
    println!("    $ bulkhead submit chaos segv        # job {poison}, between {} others", SMALL.0 + SMALL.1);
    poison::run(&daemon, &mut events, poison)?;

    chapter(4, "Every result, checked");
    let batches = [&large, &before, &after];
    for batch in batches {
        batch.wait(&daemon, batch.len())?;
        batch.check(&daemon)?;
    }
    let total: usize = batches.iter().map(|batch| batch.len()).sum();
    println!("    The digits of {total} results equal 1 * 2 * ... * n modulo the prime 2^61 - 1,");
    println!("    multiplied here, without the library that the workers use.");
    let rows = batch::rows(&daemon)?;
    for batch in batches {
        batch.judge(&rows, victim.job)?;
    }
    let pids = events.pids();
    drop(events);
    daemon.stop()?;
    let left: Vec<&u64> =
        pids.iter().filter(|pid| Path::new("/proc").join(pid.to_string()).exists()).collect();
    ensure!(left.is_empty(), "worker processes were left behind: {left:?}");
    summary(total, victim.job, poison);
    Ok(())
}

fn chapter(number: u32, title: &str) {
    println!("\n{number}. {title}\n");
}

fn summary(total: usize, victim: u64, poison: u64) {
    println!("\n{total} of {total} innocents done, none run twice");
    println!("  but job {victim}, whose first run was killed and gave nothing.");
    println!("The guilty one, job {poison}: tried 3 times, then quarantined by name.");
}
