//! Processor time of programs: that of all their processes counts, whoever of them used it, and nobody else's.

use bulkhead_proto::client::exit;
use bulkhead_tests::daemon::{Daemon, Setup};
use bulkhead_tests::told::{death_of, ended, job};

/// Uses 0.6 s of processor time by its own account, then ends.
const WORK: &str =
    "while read -r line </proc/$$/stat; set -- $line; [ $((${14} + ${15})) -lt 60 ]; do :; done";
const LOOP: &str = "while :; do :; done";

/// Submits `sh -c SCRIPT` with a limit, and waits for its end.
fn run(daemon: &Daemon, limit: &str, script: &str) -> (String, Option<i32>) {
    ended(daemon, &["--cpu-time", limit, "exec", "--", "sh", "-c", script])
}

/// A daemon that kills the worker of a program at its limit, so that a death with its evidence is listed.
fn without_grace(workers: u16) -> Daemon {
    let config = "[kinds.exec]\ncancel_grace_ms = 0\n".to_owned();
    Daemon::start_with(&Setup { workers, config, ..Setup::default() })
}

/// Checks that it met its limit.
fn assert_met(daemon: &Daemon, (id, code): &(String, Option<i32>), limit_ms: u64) {
    assert_eq!(*code, Some(i32::from(exit::TIMED_OUT)), "{}", daemon.ok(&["job", id]));
    let outcome = &job(daemon, id)["outcome"];
    assert_eq!((&outcome["limit"], &outcome["limit_ms"]), (&"cpu".into(), &limit_ms.into()), "{outcome}");
}

/// Checks that its worker was killed at the limit, and gives the processor time that was seen of what that had started.
fn seen_below(daemon: &Daemon, ended: &(String, Option<i32>), limit_ms: u64) -> u64 {
    assert_met(daemon, ended, limit_ms);
    let id = &ended.0;
    let death = death_of(daemon, id);
    assert_eq!(death["death"]["why"]["why"], "cpu-time", "{death}");
    let told = daemon.ok(&["job", id]);
    assert!(told.contains("by the processes that it has started"), "{told}");
    let seen = &death["evidence"]["seen"];
    seen["below_us"].as_u64().unwrap_or_else(|| panic!("nothing was seen: {death}"))
}

#[test]
fn a_loop_far_below_the_program_meets_the_limit() {
    let daemon = without_grace(1);
    let script = format!("(setsid sh -c '{LOOP}') & sleep 3600");
    let used_us = seen_below(&daemon, &run(&daemon, "300ms", &script), 300);
    assert!(used_us >= 300_000, "{used_us}");
}

#[test]
fn children_that_use_little_each_are_summed() {
    let daemon = without_grace(1);
    let script = "while :; do sh -c 'i=0; while [ $i -lt 5000 ]; do i=$((i+1)); done'; done";
    let used_us = seen_below(&daemon, &run(&daemon, "500ms", script), 500);
    assert!(used_us >= 500_000, "{used_us}");
}

/// One worker runs them all, and has waited for all before.
#[test]
fn a_program_pays_for_none_that_ran_before_it() {
    let daemon = without_grace(1);
    for _ in 0..3 {
        let (id, code) = run(&daemon, "1s", &format!("sh -c '{WORK}' & wait"));
        assert_eq!(code, Some(0), "{}", daemon.ok(&["job", &id]));
    }
    assert_eq!(daemon.events_named("died"), Vec::<serde_json::Value>::new());
    let two = format!("sh -c '{WORK}' & sh -c '{WORK}' & wait");
    seen_below(&daemon, &run(&daemon, "1s", &two), 1000);
}

/// The program is asked to end and its worker goes on, so there is no death.
#[test]
fn the_usual_limit_of_the_kind_holds_for_programs() {
    let config = "[kinds.exec]\ncpu_seconds = 1\n".to_owned();
    let daemon = Daemon::start_with(&Setup { config, ..Setup::default() });
    let ended = ended(&daemon, &["exec", "--", "sh", "-c", &format!("sh -c '{LOOP}' & wait")]);
    assert_met(&daemon, &ended, 1000);
    assert_eq!(daemon.events_named("died"), Vec::<serde_json::Value>::new());
}
