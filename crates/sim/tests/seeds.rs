//! Some hundreds of seeds, the same ones each time, and the proof that a seed says everything.
//!
//! One test for each profile, so that they run side by side. Thousands more: `cargo run -p bulkhead-sim --release
//! -- --seeds 0..10000`.

use bulkhead_proto::limits::RING;
use bulkhead_sim::runner::{run, run_kept};
use bulkhead_sim::scenario::{PROFILES, Profile, Scenario};
use bulkhead_sim::trace::Keep;

/// Seeds of each profile.
const SEEDS: u64 = 50;

fn run_profile(profile: Profile) {
    let place =
        PROFILES.iter().position(|known| *known == profile).expect("every profile is in the list") as u64;
    let (mut jobs, mut stopped, mut limits, mut retired) = (0, 0, 0, 0);
    let (mut asked, mut heeded) = (0, 0);
    let (mut forgotten, mut freed) = (0, 0);
    let (mut deepest, mut strays, mut jammed) = (0, 0, 0);
    let (mut programs, mut programs_ended, mut blocks) = (0, 0, 0);
    let (mut parts, mut merges, mut files, mut told, mut logs) = (0, 0, 0, 0, 0);
    for seed in (0..SEEDS).map(|number| place + number * PROFILES.len() as u64) {
        assert_eq!(Scenario::new(seed).profile, profile);
        match run(seed) {
            Ok(report) => {
                jobs += report.jobs;
                stopped += report.stopped;
                limits += report.limits;
                retired += report.retired;
                asked += report.asked;
                programs += report.programs;
                blocks += report.blocks;
                programs_ended += report.programs_ended;
                heeded += report.heeded;
                parts += report.parts;
                merges += report.merges;
                files += report.files;
                told += report.told;
                logs += report.logs;
                deepest = deepest.max(report.deepest);
                strays += report.strays;
                jammed += report.jammed;
                forgotten += report.forgotten;
                freed += report.freed;
            }
            Err(failure) => panic!("{failure}"),
        }
    }
    assert!(jobs > SEEDS, "a profile without jobs proves nothing");
    assert!(parts > SEEDS && merges > 0, "{parts} parts and {merges} merges");
    let is_flood = profile == Profile::Flood;
    assert!(is_flood || blocks > 0, "no result went into an arena");
    assert!(is_flood || files > 0 && told > 0, "{files} files, told {told} times");
    assert!(is_flood || logs > SEEDS / 2, "{logs} logs were shown");
    let is_deep = !matches!(profile, Profile::Flood | Profile::Starved);
    assert!(!is_deep || deepest == RING as u64, "the deepest ring held {deepest} tasks");
    let is_rough = matches!(profile, Profile::Crashy | Profile::Hostile);
    assert!(!is_rough || heeded > 0 && asked > heeded, "{asked} {heeded}");
    assert!(!is_rough || programs > programs_ended && programs_ended > 0, "{programs} {programs_ended}");
    assert!(!is_rough || stopped > 0 && limits > 0 && retired > 0, "{stopped} {limits} {retired}");
    assert!(!is_rough || strays > 0, "no worker left a process");
    assert!(is_flood || jammed > 0, "no worker was replaced because of files that it could not close");
    assert!(
        is_flood || forgotten > 0 && freed > 0,
        "{forgotten} registrations forgotten, {freed} blocks free"
    );
}

#[test]
fn quiet_seeds_keep_every_promise() {
    run_profile(Profile::Quiet);
}

#[test]
fn crashy_seeds_keep_every_promise() {
    run_profile(Profile::Crashy);
}

#[test]
fn lying_seeds_keep_every_promise() {
    run_profile(Profile::Hostile);
}

#[test]
fn flood_seeds_keep_every_promise() {
    run_profile(Profile::Flood);
}

#[test]
fn starved_seeds_keep_every_promise() {
    run_profile(Profile::Starved);
}

#[test]
fn stuck_seeds_keep_every_promise() {
    run_profile(Profile::Stuck);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let mut all = 0;
    for seed in 0..12 {
        let first = run(seed).unwrap_or_else(|failure| panic!("{failure}"));
        let (second, lines) = run_kept(seed, None, Keep::All);
        assert_eq!(Ok(first), second, "seed {seed}");
        all += lines.len();
    }
    // Some are stopped early.
    assert!(all > 10_000, "the seeds hardly did anything: {all} lines");
}

#[test]
fn other_seeds_give_other_traces() {
    let hash = |seed| run(seed).unwrap_or_else(|failure| panic!("{failure}")).hash;
    assert_ne!(hash(1), hash(7));
}
