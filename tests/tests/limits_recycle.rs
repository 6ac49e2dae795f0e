//! Workers make room for fresh ones after so many tasks, at an age, or when they have grown: under load, and at no cost.

use std::collections::BTreeSet;

use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::view::WorkerState;
use bulkhead_tests::daemon::{Daemon, Setup, eventually};
use bulkhead_tests::wire::Wire;
use serde_json::Value;

fn daemon_with(config: &str) -> Daemon {
    Daemon::start_with(&Setup { config: format!("{config}\n"), ..Setup::default() })
}

/// Runs so many short jobs at once: each has one result, of its first attempt.
fn run_many(daemon: &Daemon, count: usize) {
    let inputs: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    let ends = Wire::connect(&daemon.socket()).run("noop", &inputs);
    let ids: BTreeSet<_> = ends.iter().map(|end| end.job).collect();
    assert_eq!((ids.len(), ends.len()), (count, count), "each has one end");
    for end in &ends {
        assert_eq!((&end.outcome, end.attempts), (&Outcome::Done, 1), "{end:?}");
    }
}

/// Workers that have left: all of them asked to, and nobody charged.
fn left(daemon: &Daemon) -> BTreeSet<u64> {
    let died = daemon.events_named("died");
    assert!(died.iter().all(|event| event["death"]["death"] == "retired"), "{died:?}");
    for name in ["blamed", "nobody-blamed", "degraded", "killing"] {
        assert_eq!(daemon.events_named(name), Vec::<Value>::new());
    }
    died.iter().filter_map(|event| event["pid"].as_u64()).collect()
}

/// Runs jobs in rounds until so many workers have left; then those that live are others, and as many as ever.
fn check(daemon: &Daemon, generations: usize) {
    let before = left(daemon).len();
    let first: BTreeSet<u32> = daemon.workers().iter().filter_map(|row| row.pid).collect();
    eventually("workers are replaced", || {
        run_many(daemon, 200);
        (left(daemon).len() >= before + generations).then_some(())
    });
    let placed = eventually("both slots are filled", || {
        let rows = daemon.workers();
        let placed = rows.iter().filter(|row| matches!(row.state, WorkerState::Idle | WorkerState::Busy));
        Some(placed.filter_map(|row| row.pid).collect::<BTreeSet<u32>>()).filter(|pids| pids.len() == 2)
    });
    assert!(placed.is_disjoint(&first) || generations < 3, "{placed:?} were there from the beginning");
    run_many(daemon, 200);
}

#[test]
fn workers_are_replaced_after_so_many_tasks_under_load() {
    let daemon = daemon_with("recycle_tasks = 20");
    run_many(&daemon, 2000);
    check(&daemon, 8);
}

#[test]
fn workers_are_replaced_at_an_age() {
    check(&daemon_with("recycle_age_seconds = 1"), 2);
}

/// Every worker is larger than that: each leaves after its first tasks, once it was weighed.
#[test]
fn workers_are_replaced_when_they_have_grown() {
    check(&daemon_with("recycle_resident_bytes = 4096"), 3);
}

/// Each worker that left has ended exactly its share, with a spare or a cold start for each, one at a time or with work ahead.
#[test]
fn strict_workers_run_their_share_and_not_one_task_more() {
    for (spares, tasks) in [(1, 1), (0, 5), (2, 20)] {
        let daemon =
            daemon_with(&format!("recycle_tasks = {tasks}\nrecycle_strict = true\nspares = {spares}"));
        let count = 8 * tasks;
        run_many(&daemon, count);
        let died = eventually("all but the last workers have left", || {
            let died = daemon.events_named("died");
            (died.len() >= 6).then_some(died)
        });
        for event in &died {
            assert_eq!(
                (&event["death"]["death"], &event["ended"]),
                (&"retired".into(), &tasks.into()),
                "{event}"
            );
        }
        let rows = daemon.workers();
        assert!(rows.iter().all(|row| row.ended <= tasks as u64), "{rows:?}");
    }
}
