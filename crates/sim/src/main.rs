//! Replays seeds: `--seed N` one, `--seeds A..B` many. Prints one line a run, and for a broken promise the end of its
//! trace.
//!
//! `--hashes` prints the seed and the hash of its trace instead, so that two builds can be compared with `diff`; a broken
//! seed's line names the oracle. `--trace` prints each run's whole trace first. It only drives the library, and decides
//! nothing.

use std::ops::Range;
use std::process::ExitCode;

use bulkhead_sim::report::{RunReport, SeedFailure};
use bulkhead_sim::runner::{run, run_kept};
use bulkhead_sim::scenario::Scenario;
use bulkhead_sim::trace::Keep;

const USAGE: &str = "usage: bulkhead-sim (--seed N | --seeds A..B) [--hashes | --trace]";

/// The arguments.
#[derive(Debug)]
struct CommandLine {
    seeds: Range<u64>,
    trace: bool,
    hashes: bool,
}

fn parse(args: impl Iterator<Item = String>) -> Option<CommandLine> {
    let mut wanted = CommandLine { seeds: 0..0, trace: false, hashes: false };
    let mut args = args;
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--seed" => {
                let seed = args.next()?.parse().ok()?;
                wanted.seeds = seed..seed + 1;
            }
            "--seeds" => {
                let range = args.next()?;
                let (from, to) = range.split_once("..")?;
                wanted.seeds = from.parse().ok()?..to.parse().ok()?;
            }
            "--trace" => wanted.trace = true,
            "--hashes" => wanted.hashes = true,
            _ => return None,
        }
    }
    let both = wanted.trace && wanted.hashes;
    if wanted.seeds.is_empty() || both { None } else { Some(wanted) }
}

fn trace(seed: u64) -> Result<RunReport, Box<SeedFailure>> {
    let (result, lines) = run_kept(seed, None, Keep::All);
    println!("seed {seed}");
    for line in lines {
        println!("{line}");
    }
    let profile = Scenario::new(seed).profile;
    result.map_err(|broken| Box::new(SeedFailure { seed, profile, broken, tail: Vec::new() }))
}

fn main() -> ExitCode {
    let Some(wanted) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let mut failed = 0_u32;
    for seed in wanted.seeds {
        match if wanted.trace { trace(seed) } else { run(seed) } {
            Ok(report) if wanted.hashes => println!("{seed} {:016x}", report.hash),
            Ok(report) => println!("{report:?}"),
            Err(failure) => {
                failed += 1;
                if wanted.hashes {
                    println!("{seed} broken {}", failure.broken.oracle);
                } else {
                    println!("{failure}");
                }
            }
        }
    }
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        eprintln!("{failed} seeds broke a promise");
        ExitCode::FAILURE
    }
}
