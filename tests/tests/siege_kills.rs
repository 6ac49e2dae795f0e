//! A thousand random kills while workers come up, and a thousand while they work: nothing is left behind, and every job
//! ends exactly once.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bulkhead_proto::client::message::Submit;
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::ids::JobId;
use bulkhead_proto::job::Policy;
use bulkhead_tests::daemon::{DEADLINE, Daemon, Setup};
use bulkhead_tests::inventory::{Inventory, await_peace, mappings};
use bulkhead_tests::reaper::{Dice, Reaper, soon};
use bulkhead_tests::wire::{Wire, submit};

const KILLS: usize = 1000;
const WORKERS: u16 = 4;
const SPARES: u16 = 4;
/// Jobs in one submit.
const ROUND: usize = 50;
/// Mappings that the daemon may gain: stacks and arenas that threads leave to the next. Less than one for each kill.
const GAIN_MAPPINGS: usize = 100;

/// Nobody is to blame for what happens here, and nothing is broken: no death degrades the pool.
fn besieged() -> Daemon {
    let config =
        format!("spares = {SPARES}\nrestart_intensity = 1000000\nbackoff_min_ms = 1\nbackoff_max_ms = 1\n");
    let daemon = Daemon::start_with(&Setup { workers: WORKERS, chaos: false, config, ..Setup::default() });
    await_peace(&daemon, usize::from(WORKERS + SPARES));
    daemon
}

/// Runs jobs until it is over; each must be done, once. Gives how many that were.
fn run_jobs(socket: &Path, over: &AtomicBool) -> usize {
    let mut wire = Wire::connect(socket);
    let mut seen: BTreeSet<JobId> = BTreeSet::new();
    let mut submits = 0;
    while !over.load(Ordering::SeqCst) {
        let policy = Policy { crashes_max: Some(u8::MAX), ..Policy::default() };
        let ended = wire.run_submit(Submit { policy, ..submit("sleep", &["2"; ROUND], true) });
        assert!(ended.iter().all(|end| end.outcome == Outcome::Done), "{ended:?}");
        seen.extend(ended.iter().map(|end| end.job));
        submits += ROUND;
    }
    assert_eq!(seen.len(), submits, "a job ended twice, or never");
    submits
}

/// Lets the jobs end even if the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Kills while jobs run; then the daemon must have what it had before.
fn withstand(what: &str, kill: impl Fn(&mut Reaper, &mut Dice)) {
    let mut dice = Dice::new(what);
    let mut daemon = besieged();
    let mut reaper = Reaper::new(&daemon);
    reaper.await_that("its first events are read", |reaper| reaper.placed.len() == usize::from(WORKERS));
    let mut watch = Wire::connect(&daemon.socket());
    let before = Inventory::at_rest(&daemon, &mut watch);
    let maps_before = mappings(&daemon).lines().count();
    let over = AtomicBool::new(false);
    let socket = daemon.socket();
    let jobs = std::thread::scope(|scope| {
        let _over = Over(&over);
        let jobs = scope.spawn(|| run_jobs(&socket, &over));
        kill(&mut reaper, &mut dice);
        over.store(true, Ordering::SeqCst);
        jobs.join().expect("every job ends once")
    });
    await_peace(&daemon, usize::from(WORKERS + SPARES));
    before.await_again(&daemon);
    let maps = mappings(&daemon).lines().count();
    println!(
        "{what}: killed={} unborn={} charged={} jobs={jobs} mappings={maps_before}->{maps}",
        reaper.killed.len(),
        reaper.unborn.len(),
        reaper.charged.len(),
    );
    assert!(maps <= maps_before + GAIN_MAPPINGS);
    assert!(daemon.end("TERM").success());
    assert_eq!(daemon.leftovers(), Vec::<String>::new());
}

#[test]
fn a_thousand_kills_while_workers_come_up() {
    withstand("kills while workers come up", |reaper, dice| {
        let end = Instant::now() + 3 * DEADLINE;
        while reaper.unborn.len() < KILLS {
            assert!(Instant::now() < end, "only {} were killed", reaper.unborn.len());
            // The youngest: the others may be up, and the first to be killed are.
            let youngest = |reaper: &Reaper| {
                let found = reaper.spawned.iter().next_back().map(|(worker, pid)| (*worker, *pid));
                found.filter(|(worker, _)| !reaper.killed.contains(worker))
            };
            reaper.await_that("another worker is spawned", |reaper| youngest(reaper).is_some());
            let Some((worker, pid)) = youngest(reaper) else { continue };
            // Within a quarter of a millisecond up to four: coming up takes one to five, by how busy the machine is.
            let span_us = 250 << dice.below(5);
            reaper.hear_until(soon(dice, span_us), |reaper| !reaper.spawned.contains_key(&worker));
            reaper.kill(worker, pid);
        }
    });
}

#[test]
fn a_thousand_kills_while_workers_work() {
    withstand("kills while workers work", |reaper, dice| {
        let end = Instant::now() + 3 * DEADLINE;
        while reaper.charged.len() < KILLS {
            assert!(Instant::now() < end, "only {} were charged", reaper.charged.len());
            reaper.hear_until(soon(dice, 3000), |_| false);
            let living: Vec<_> = reaper
                .placed
                .iter()
                .filter(|(worker, _)| !reaper.killed.contains(worker))
                .map(|(worker, pid)| (*worker, *pid))
                .collect();
            if let Some((worker, pid)) = living.get(dice.below(living.len().max(1) as u64) as usize) {
                reaper.kill(*worker, *pid);
            }
        }
    });
}
