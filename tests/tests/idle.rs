//! An idle daemon does nothing at all: no system call in ten seconds, from supervisor and workers.

use std::process::{Command, Stdio};
use std::time::Duration;

use bulkhead_proto::client::view::WorkerState;
use bulkhead_tests::daemon::{Daemon, eventually, send_signal};
use bulkhead_tests::wire::Wire;

/// Traces all threads of `pids` for `span`; a line for each system call, whole or begun.
fn trace(daemon: &Daemon, pids: &[u32], span: Duration) -> Vec<String> {
    let log = daemon.folder().join("strace");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o"]).arg(&log);
    for pid in pids {
        command.arg("-p").arg(pid.to_string());
    }
    let mut tracer = command.stdin(Stdio::null()).spawn().expect("strace is installed by the set-up");
    let traced = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
    };
    eventually("all are traced", || pids.iter().all(traced).then_some(()));
    // This is the span that is promised to be quiet, not a wait for anything.
    std::thread::sleep(span);
    let seen = std::fs::read_to_string(&log).unwrap_or_default();
    send_signal(tracer.id(), "INT");
    tracer.wait().expect("strace ends");
    seen.lines().map(str::to_owned).collect()
}

/// A thread that sleeps in a call when the trace begins shows that one call as begun, and never its end.
fn is_ended(line: &str) -> bool {
    line.contains(" = ")
}

#[test]
fn an_idle_daemon_makes_no_system_call() {
    let daemon = Daemon::start();
    let mut wire = Wire::connect(&daemon.socket());
    assert_eq!(wire.run("noop", &["warm"]).len(), 1);
    daemon.await_worker(WorkerState::Spare);
    let mut pids: Vec<u32> = daemon.workers().iter().filter_map(|row| row.pid).collect();
    pids.push(daemon.pid());
    assert_eq!(pids.len(), 4, "two workers, a spare and the supervisor");
    let calls = trace(&daemon, &pids, Duration::from_secs(10));
    let ended: Vec<_> = calls.into_iter().filter(|line| is_ended(line)).collect();
    assert!(ended.is_empty(), "{} system calls:\n{}", ended.len(), ended.join("\n"));
    assert_eq!(wire.run("noop", &["awake"]).len(), 1, "and it still works");
}

/// The same trace sees the calls of a daemon that is asked something: the check above can fail.
#[test]
fn a_daemon_that_is_asked_something_is_seen_to_answer() {
    let daemon = Daemon::start();
    let socket = daemon.socket();
    let asking = std::thread::spawn(move || {
        let mut wire = Wire::connect(&socket);
        for _ in 0..20 {
            wire.run("sleep", &["100"]);
        }
    });
    let calls = trace(&daemon, &[daemon.pid()], Duration::from_secs(1));
    assert!(calls.iter().any(|line| is_ended(line)), "nothing was seen of a busy daemon");
    asking.join().expect("it was answered");
}
