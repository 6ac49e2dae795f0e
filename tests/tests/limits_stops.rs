//! Workers that a signal stops: noticed at once whatever they are doing, killed after a while, or not if they go on.

use bulkhead_proto::client::exit;
use bulkhead_proto::client::view::{WorkerRow, WorkerState};
use bulkhead_tests::daemon::{Daemon, Setup, eventually, send_signal};
use bulkhead_tests::told::{death_of, ended, job};
use bulkhead_tests::wire::Wire;
use serde_json::Value;

/// A daemon that lets workers be stopped for so long.
fn patient(seconds: u64) -> Daemon {
    let config = format!("stopped_seconds = {seconds}\n");
    Daemon::start_with(&Setup { config, ..Setup::default() })
}

/// The events of this name about a worker.
fn of(daemon: &Daemon, name: &str, row: &WorkerRow) -> Vec<Value> {
    daemon.events_named(name).into_iter().filter(|event| event["worker"] == row.worker.0).collect()
}

fn pid(row: &WorkerRow) -> u32 {
    row.pid.expect("a worker that is up has a process")
}

/// A job that stops its own worker has it killed in the end, and is charged.
#[test]
fn who_stops_itself_is_killed_and_charged() {
    let daemon = patient(1);
    let (id, code) = ended(&daemon, &["--crashes-max", "1", "chaos", "stop"]);
    assert_eq!(code, Some(i32::from(exit::CRASHED)));
    let death = death_of(&daemon, &id);
    assert_eq!(death["death"]["why"]["why"], "stopped", "{death}");
    assert_eq!(death["evidence"]["seen"]["state"], "stopped", "{death}");
    let suspended = daemon.events_named("suspended").pop().expect("it was noticed");
    assert_eq!((&suspended["worker"], &suspended["signal"]), (&death["worker"], &19.into()), "{suspended}");
    assert_eq!(suspended["job"].to_string(), id, "{suspended}");
    assert!(daemon.ok(&["events"]).contains("signal=SIGSTOP"));
    assert!(daemon.ok(&["deaths", "--limit", "1"]).contains("stopped by a signal and not continued"));
}

/// One that is stopped, by itself or from outside, and continued in time ends its job as if nothing had been.
#[test]
fn who_is_continued_in_time_goes_on() {
    for (kind, input) in [("chaos", "stop"), ("sleep", "3000")] {
        // Of a worker that is stopped again within a minute, not every stop is an event.
        let daemon = patient(3600);
        let mut wire = Wire::connect(&daemon.socket());
        let id = wire.submit(kind, &[input]);
        let busy = eventually("it runs", || {
            daemon.workers().into_iter().find(|row| row.state == WorkerState::Busy && row.job == Some(id))
        });
        if kind == "sleep" {
            send_signal(pid(&busy), "STOP");
        }
        let suspended = eventually("the stop is noticed", || {
            of(&daemon, "suspended", &busy).into_iter().find(|event| event["job"] == id.0)
        });
        assert_eq!(suspended["signal"], 19, "{suspended}");
        let shown = daemon.ok(&["workers"]);
        let line =
            shown.lines().find(|line| line.contains(&format!(" {} ", pid(&busy)))).expect("it is listed");
        assert!(line.contains(" stopped ") && line.contains("unless SIGCONT comes"), "{line}");
        let resumed = of(&daemon, "resumed", &busy).len();
        send_signal(pid(&busy), "CONT");
        eventually("it goes on", || (of(&daemon, "resumed", &busy).len() > resumed).then_some(()));
        assert!(!daemon.ok(&["workers"]).contains("SIGCONT"));
        assert_eq!(daemon.cli(&["wait", &id.to_string()]).status.code(), Some(0));
        assert_eq!(job(&daemon, &id.to_string())["row"]["attempts"], 1);
        assert_eq!(daemon.events_named("died"), Vec::<Value>::new());
    }
}

/// A worker that is stopped and continued again and again leaves two events, and its death tells of the other stops.
#[test]
fn stops_of_one_worker_are_summed_up() {
    let daemon = patient(3600);
    let mut wire = Wire::connect(&daemon.socket());
    let id = wire.submit("sleep", &["600000"]);
    let busy = eventually("it runs", || daemon.workers().into_iter().find(|row| row.job == Some(id)));
    let state = || std::fs::read_to_string(format!("/proc/{}/stat", pid(&busy))).unwrap_or_default();
    let is_stopped = || state().rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'));
    let stop = || {
        send_signal(pid(&busy), "STOP");
        eventually("it is stopped", || is_stopped().then_some(()));
    };
    let go_on = || {
        send_signal(pid(&busy), "CONT");
        eventually("it goes on", || (!is_stopped()).then_some(()));
    };
    stop();
    eventually("the stop is noticed", || of(&daemon, "suspended", &busy).pop());
    go_on();
    eventually("it is noticed that it goes on", || of(&daemon, "resumed", &busy).pop());
    for _ in 0..30 {
        stop();
        // What it is asked for shows that the daemon has heard of the stop.
        wire.workers();
        go_on();
        wire.workers();
    }
    send_signal(pid(&busy), "KILL");
    eventually("its death is proven", || of(&daemon, "died", &busy).pop());
    assert_eq!((of(&daemon, "suspended", &busy).len(), of(&daemon, "resumed", &busy).len()), (1, 1));
    let summed = of(&daemon, "suspended-often", &busy);
    let count = summed.first().and_then(|event| event["count"].as_u64()).expect("the others are told in one");
    assert!(summed.len() == 1 && (1..=30).contains(&count), "{summed:?}");
    assert!(daemon.log().contains("worker stopped and continued again and again"));
}

/// Nobody has to give it a job first: a spare and an idle worker are noticed too, and replaced.
#[test]
fn idle_workers_and_spares_are_noticed_at_once() {
    let daemon = patient(1);
    let mut wire = Wire::connect(&daemon.socket());
    assert_eq!(wire.run("noop", &["warm"]).len(), 1);
    for state in [WorkerState::Spare, WorkerState::Idle] {
        let row = daemon.await_worker(state);
        send_signal(pid(&row), "STOP");
        eventually("the stop is noticed", || of(&daemon, "suspended", &row).pop());
        let died = eventually("it is killed", || of(&daemon, "died", &row).pop());
        assert_eq!(died["death"]["why"]["why"], "stopped", "{state:?}: {died}");
        assert_eq!(died["evidence"]["seen"]["state"], "stopped", "{state:?}: {died}");
        daemon.await_worker(state);
    }
    assert_eq!(daemon.events_named("blamed"), Vec::<Value>::new());
    assert_eq!(wire.run("noop", &["on"]).len(), 1);
}

/// A worker that is stopped takes no offers: jobs go to the others.
#[test]
fn a_stopped_worker_is_given_nothing() {
    let daemon = patient(3600);
    let mut wire = Wire::connect(&daemon.socket());
    assert_eq!(wire.run("noop", &["warm"]).len(), 1);
    let row = daemon.await_worker(WorkerState::Idle);
    send_signal(pid(&row), "STOP");
    eventually("the stop is noticed", || of(&daemon, "suspended", &row).pop());
    let inputs: Vec<String> = (0..50).map(|number| number.to_string()).collect();
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    let ends = wire.run("noop", &inputs);
    assert!(ends.iter().all(|end| end.attempts == 1), "somebody had to wait for it: {ends:?}");
    send_signal(pid(&row), "CONT");
    eventually("it goes on", || of(&daemon, "resumed", &row).pop());
    assert_eq!(daemon.events_named("died"), Vec::<Value>::new());
}
