//! Where a task hung: its worker is asked for its stack before it is killed for a limit of time or a cancel, and killed whatever
//! it does about that.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use bulkhead_proto::client::view::WorkerState;
use bulkhead_tests::daemon::{Daemon, Setup, binary, eventually, send_signal};
use bulkhead_tests::writing::{ASKED, ASKED_NOTE, DEAF, FRAIL, HANG, THREADS};
use serde_json::{Value, json};

/// How often a job may hang until one report is whole.
const TRIES: usize = 20;

fn daemon_of(way: &str) -> Daemon {
    let program = binary("writing-worker");
    let config = format!("worker_program = {program:?}\nworker_args = [{way:?}]\n");
    Daemon::start_with(&Setup { workers: 1, config, ..Setup::default() })
}

/// The death of the worker that ran this job.
fn death_of(daemon: &Daemon, id: &str) -> Value {
    eventually("the death is proven", || {
        let detail: Value = serde_json::from_str(&daemon.ok(&["job", id, "--json"])).expect("a job");
        detail["deaths"].as_array().and_then(|deaths| deaths.first().cloned())
    })
}

/// A job that hangs until its limit; its number and the death of its worker.
fn timed_out(daemon: &Daemon) -> (String, Value) {
    let id = daemon.ok(&["submit", "noop", &format!("{HANG}:"), "--timeout", "200ms"]).trim().to_owned();
    daemon.cli(&["wait", &id]);
    let death = death_of(daemon, &id);
    assert_eq!(death["death"]["why"]["why"], "timeout", "{death}");
    assert_eq!(death["charged"], json!(false), "{death}");
    (id, death)
}

#[test]
fn the_stacks_of_all_threads_are_shown_with_functions() {
    let daemon = daemon_of(THREADS);
    // On a busy machine a thread may not run within the 5 ms.
    let is_whole = |death: &Value| {
        let text = death["evidence"]["stack_text"].as_str().unwrap_or_default();
        text.matches("thread ").count() == 2 && text.contains("thread second (")
    };
    let mut tries = std::iter::repeat_with(|| timed_out(&daemon)).take(TRIES);
    let (id, _) = tries.find(|(_, death)| is_whole(death)).expect("one whole report");
    for shown in [daemon.ok(&["job", &id]), daemon.ok(&["deaths", "--evidence"])] {
        assert!(shown.contains("\n  wrote     thread "), "{shown}");
        assert!(shown.matches("bulkhead_tests::writing::hang_here (").count() >= 2, "{shown}");
    }
    let cancelled = || {
        let id = daemon.ok(&["submit", "noop", &format!("{HANG}:")]).trim().to_owned();
        eventually("both threads hang", || {
            let pid = daemon.await_worker(WorkerState::Busy).pid?;
            let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
            (tasks.count() == 2).then_some(())
        });
        daemon.ok(&["cancel", &id]);
        let death = death_of(&daemon, &id);
        assert_eq!(death["death"]["why"]["why"], "cancel", "{death}");
        death
    };
    assert!(std::iter::repeat_with(cancelled).take(TRIES).any(|death| is_whole(&death)));
    daemon.ok(&["run", "sleep", "1"]);
}

#[test]
fn a_handler_of_another_runtime_is_asked() {
    let daemon = daemon_of(ASKED);
    let mut tries = std::iter::repeat_with(|| timed_out(&daemon)).take(TRIES);
    let (id, _) = tries.find(|(_, death)| death["evidence"]["stack_text"] == ASKED_NOTE).expect("one report");
    assert!(daemon.ok(&["job", &id]).contains("\n  wrote     42\n"));
}

/// One ignores the question, one dies of it although it said otherwise: both were killed for the limit.
#[test]
fn a_worker_that_does_not_answer_is_killed() {
    for way in [DEAF, FRAIL] {
        let daemon = daemon_of(way);
        for _ in 0..2 {
            let (id, death) = timed_out(&daemon);
            assert_eq!(death["evidence"]["stack_text"], "", "{way}: {death}");
            let detail: Value = serde_json::from_str(&daemon.ok(&["job", &id, "--json"])).unwrap();
            assert_eq!(detail["row"]["crashes"], 0, "{way}: {detail}");
        }
    }
}

#[test]
fn a_worker_that_is_stopped_is_killed_without_a_question() {
    let daemon = daemon_of(ASKED);
    let id = daemon.ok(&["submit", "noop", &format!("{HANG}:")]).trim().to_owned();
    let pid = daemon.await_worker(WorkerState::Busy).pid.expect("a busy worker has a process");
    eventually("it has begun", || {
        (std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.count() == 2).then_some(())
    });
    send_signal(pid, "STOP");
    eventually("the daemon knows", || (!daemon.events_named("suspended").is_empty()).then_some(()));
    daemon.ok(&["cancel", &id]);
    let death = death_of(&daemon, &id);
    assert_eq!(
        (&death["evidence"]["stack_text"], &death["death"]["why"]["why"]),
        (&json!(""), &json!("cancel"))
    );
}
