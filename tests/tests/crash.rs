//! A crash hurts nobody but the guilty: 199 of 199 innocents, budgets, quarantine, kill -9 from outside.

use std::collections::BTreeSet;

use bulkhead_proto::client::exit;
use bulkhead_proto::client::message::{Reply, Request, Walk};
use bulkhead_proto::client::outcome::{JobEnded, Outcome};
use bulkhead_proto::client::view::WorkerState;
use bulkhead_proto::ids::JobId;
use bulkhead_tests::daemon::{Daemon, eventually, send_signal};
use bulkhead_tests::wire::{Wire, submit};

/// Waits for all of `jobs`; their ends, in the order they came.
fn wait_for(wire: &mut Wire, jobs: Vec<JobId>) -> Vec<JobEnded> {
    let count = jobs.len();
    let tag = wire.ask(Request::Wait { jobs });
    let mut ended = Vec::new();
    while ended.len() < count {
        let frame = wire.next_reply().expect("the daemon answers");
        match frame.reply {
            Reply::Ended(some) if frame.tag == tag => ended.extend(some),
            other => panic!("unexpected reply: {other:?}"),
        }
    }
    ended
}

/// 199 jobs beside one that kills its own worker with `kill -9`: nobody else is lost, rerun or charged, and the
/// guilty one is tried exactly as often as its budget says.
#[test]
fn all_of_199_innocents_are_done_once_beside_a_killer() {
    let daemon = Daemon::start();
    let mut wire = Wire::connect(&daemon.socket());
    let before = wire.submit("factorial", &["3000 sha256"; 100]);
    let guilty = wire.submit("chaos", &["kill"]);
    wire.submit("factorial", &["3000 sha256"; 99]);
    let ended = wait_for(&mut wire, (before.0..before.0 + 200).map(JobId).collect());

    let ids: BTreeSet<_> = ended.iter().map(|end| end.job).collect();
    assert_eq!(ids.len(), 200, "each job has one end");
    let innocents = || ended.iter().filter(|end| end.job != guilty);
    let results: BTreeSet<_> = innocents().map(|end| format!("{:?}", end.output)).collect();
    assert_eq!(results.len(), 1, "one factorial has one checksum, whoever computed it");
    for end in innocents() {
        assert_eq!((&end.outcome, end.attempts), (&Outcome::Done, 1), "{end:?}");
    }
    let end = ended.iter().find(|end| end.job == guilty).expect("the guilty one has its end too");
    assert!(matches!(end.outcome, Outcome::Crashed { crashes: 3, .. }), "{end:?}");
    assert_eq!(end.attempts, 3, "{end:?}");

    let blamed = daemon.events_named("blamed");
    assert_eq!(blamed.len(), 3);
    assert!(blamed.iter().all(|event| event["job"] == guilty.0), "{blamed:?}");
    let retried = daemon.events_named("retried");
    assert_eq!(retried.len(), 2, "{retried:?}");
    assert!(retried.iter().all(|event| event["alone"] == true && event["job"] == guilty.0), "{retried:?}");
    assert_eq!(daemon.events_named("died").len(), 3);
}

/// A worker killed from outside: its job is retried alone, a warm spare takes the place, and all of it is shown.
#[test]
fn a_worker_killed_from_outside_costs_one_attempt() {
    let daemon = Daemon::start();
    let mut wire = Wire::connect(&daemon.socket());
    let job = wire.submit("sleep", &["60000"]);
    let victim = daemon.await_worker(WorkerState::Busy);
    assert_eq!(victim.job, Some(job));
    send_signal(victim.pid.expect("a busy worker has a process"), "KILL");
    let retried = eventually("the job is retried", || daemon.events_named("retried").pop());
    assert_eq!(retried["job"], job.0);
    assert_eq!(retried["attempt"], 2);
    assert_eq!(retried["alone"], true);
    let died = daemon.events_named("died").pop().expect("its death was seen");
    assert_eq!(died["death"]["signal"], 9);
    assert_eq!(died["worker"], victim.worker.0);
    let placed = daemon.events_named("placed").pop().expect("its place was filled");
    assert_eq!(placed["replaces"], died["worker"]);
    assert_eq!(placed["warm"], true);
    daemon.ok(&["cancel", &job.to_string()]);
    assert_eq!(wire.run("noop", &["still here"]).len(), 1);
}

/// Each kind of chaos is retried to its budget, named, and quarantined; `retry` and `forget` end that.
#[test]
fn poison_is_quarantined_with_its_deaths_named() {
    let daemon = Daemon::start();
    for (mode, name) in
        [("segv", "SIGSEGV"), ("abort", "SIGABRT"), ("kill", "SIGKILL"), ("exit:3", "exit code 3")]
    {
        let output = daemon.cli(&["run", "chaos", mode]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(i32::from(exit::CRASHED)), "{mode}: {stderr}");
        assert!(stderr.contains(name), "{mode} must name {name}: {stderr}");
    }
    assert_eq!(daemon.events_named("died").len(), 12, "four jobs, three attempts each");
    let mut wire = Wire::connect(&daemon.socket());
    let all = Request::Jobs { state: None, walk: Walk::Up(JobId(0)), limit: 100 };
    let Reply::Jobs { rows, .. } = wire.call(all) else { panic!("jobs are listed") };
    assert_eq!(rows.len(), 4, "the quarantined are kept: {rows:?}");
    let id = rows[0].job.to_string();
    assert!(daemon.ok(&["job", &id]).contains("SIGSEGV"));
    daemon.ok(&["retry", &id]);
    assert_eq!(daemon.cli(&["wait", &id]).status.code(), Some(i32::from(exit::CRASHED)));
    daemon.ok(&["forget", &id]);
    assert_ne!(daemon.cli(&["job", &id]).status.code(), Some(0), "forgotten is forgotten");
    assert_eq!(wire.run("noop", &["fine"]).len(), 1);
}

/// A panic is a failure of the job's own code: its worker reports it and leaves, another takes the place, nobody is
/// charged, and however many of them there are the pool is well.
#[test]
fn a_panic_is_a_failure_and_its_worker_is_replaced() {
    let daemon = Daemon::start();
    let output = daemon.cli(&["run", "chaos", "panic"]);
    assert_eq!(output.status.code(), Some(i32::from(exit::FAILED)));
    assert!(String::from_utf8_lossy(&output.stderr).contains("panicked"));
    for _ in 0..20 {
        daemon.cli(&["run", "chaos", "panic"]);
    }
    let died = eventually("their workers have left", || {
        Some(daemon.events_named("died")).filter(|died| died.len() == 21)
    });
    assert!(died.iter().all(|event| event["death"]["death"] == "left-after-panic"), "{died:?}");
    for charge in ["blamed", "nobody-blamed", "degraded"] {
        assert_eq!(daemon.events_named(charge), Vec::<serde_json::Value>::new());
    }
    // Only one that had closed its lane and was slow to die may have been helped along.
    let killed = daemon.events_named("killing");
    assert!(killed.iter().all(|event| event["why"]["why"] == "unresponsive"), "{killed:?}");
    assert_eq!(Wire::connect(&daemon.socket()).run("noop", &["on"]).len(), 1);
}

/// An endless loop ends at its time limit, and at a cancel; both kill the worker and blame nobody.
#[test]
fn an_endless_loop_ends_at_its_limit_and_by_cancel() {
    let daemon = Daemon::start();
    let output = daemon.cli(&["run", "--timeout", "200ms", "chaos", "loop"]);
    assert_eq!(output.status.code(), Some(i32::from(exit::TIMED_OUT)));
    let mut wire = Wire::connect(&daemon.socket());
    let job = wire.submit("chaos", &["loop"]);
    daemon.await_worker(WorkerState::Busy);
    assert!(matches!(wire.call(Request::Cancel { jobs: vec![job] }), Reply::Changed { count: 1, .. }));
    assert_eq!(daemon.cli(&["wait", &job.to_string()]).status.code(), Some(i32::from(exit::CANCELLED)));
    eventually("both workers are dead", || (daemon.events_named("died").len() == 2).then_some(()));
    assert!(daemon.events_named("blamed").is_empty());
}

/// What one client of two has to see: each of its 500 innocents once, and its two poisons by name.
fn drive_with_poison(socket: &std::path::Path) {
    let mut wire = Wire::connect(socket);
    let noops: Vec<String> = (0..500).map(|index| index.to_string()).collect();
    let noops: Vec<&str> = noops.iter().map(String::as_str).collect();
    let good = wire.ask(Request::Submit(submit("noop", &noops, true)));
    let bad = wire.ask(Request::Submit(submit("chaos", &["abort", "segv"], true)));
    let (mut done, mut crashed) = (BTreeSet::new(), 0);
    while done.len() < 500 || crashed < 2 {
        let frame = wire.next_reply().expect("the daemon answers");
        let Reply::Ended(some) = frame.reply else { continue };
        for end in some {
            match end.outcome {
                Outcome::Done if frame.tag == good => {
                    assert!(done.insert(end.job), "a result came twice: {end:?}");
                    assert_eq!(end.attempts, 1, "{end:?}");
                }
                Outcome::Crashed { crashes: 3, .. } if frame.tag == bad => crashed += 1,
                _ => panic!("unexpected end: {end:?}"),
            }
        }
    }
}

#[test]
fn two_clients_with_poison_get_every_result_once() {
    let daemon = Daemon::start();
    let socket = daemon.socket();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| drive_with_poison(&socket));
        }
    });
}
