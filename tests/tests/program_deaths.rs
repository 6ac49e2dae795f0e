//! Programs that died of a signal, and queued jobs that ended: what `deaths`, `why`, `events` and the log tell of them.

use std::process::Command;

use bulkhead_proto::client::view::WorkerState;
use bulkhead_tests::daemon::{Daemon, Setup, eventually};
use bulkhead_tests::skip;

fn daemon() -> Daemon {
    let config = "grace_seconds = 0\n".to_owned();
    Daemon::start_with(&Setup { workers: 1, chaos: false, config, ..Setup::default() })
}

fn core_pattern() -> String {
    std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default().trim().to_owned()
}

#[test]
fn a_program_that_died_of_a_signal_is_listed_with_what_became_of_its_core() {
    let daemon = daemon();
    let worker = daemon.await_worker(WorkerState::Idle);
    for (signal, name, number, core) in
        [("SEGV", "SIGSEGV", 139, true), ("ABRT", "SIGABRT", 134, true), ("KILL", "SIGKILL", 137, false)]
    {
        let script = format!("ulimit -c 0; echo last words >&2; kill -{signal} $$");
        let ran = daemon.cli(&["run", "exec", "--", "sh", "-c", &script]);
        let stderr = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert_eq!(ran.status.code(), Some(number), "{stderr}");
        assert!(stderr.contains(&format!("killed by {name}")) && stderr.contains(": last words"), "{stderr}");
        // A pattern that pipes cores to a program does so whatever the limit is.
        let is_piped = core_pattern().starts_with('|');
        assert_eq!(stderr.contains("no core was left"), core && !is_piped, "{stderr}");
        let rows = daemon.ok(&["deaths", "--json", "--limit", "1"]);
        let row: serde_json::Value = serde_json::from_str(&rows).expect("a death");
        let death = &row["death"];
        assert_eq!((&death["death"], &row["charged"]), (&"of-program".into(), &false.into()), "{row}");
        assert_eq!(row["worker"], worker.worker.0, "the worker that ran it");
        assert_eq!(row["pid"].as_u64(), worker.pid.map(u64::from));
        let table = daemon.ok(&["deaths", "--limit", "1"]);
        let core = if core && !is_piped { " (no core)" } else { "" };
        assert!(table.contains(&format!("its program: {name}{core}")), "{table}");
        let why = daemon.ok(&["why", &row["job"].to_string()]);
        assert!(why.contains(&format!("lives on, its program died of {name}{core}.")), "{why}");
    }
    assert_eq!(daemon.await_worker(WorkerState::Idle).pid, worker.pid, "it lives on");
    assert_eq!(daemon.events_named("died").len(), 0);
}

/// The limit of core files is inherited from the daemon; where the kernel writes them, it says.
#[test]
fn a_core_that_was_left_is_told() {
    let limit = Command::new("sh").args(["-c", "ulimit -c unlimited"]).status();
    if !limit.is_ok_and(|status| status.success()) {
        skip!("the limit of core files cannot be raised");
    }
    let through = ["sh", "-c", "ulimit -c unlimited; exec \"$0\" \"$@\""].map(str::to_owned).to_vec();
    let daemon = Daemon::start_with(&Setup { workers: 1, chaos: false, through, ..Setup::default() });
    let ran = daemon.cli(&["run", "exec", "--", "sh", "-c", "kill -SEGV $$"]);
    let stderr = String::from_utf8_lossy(&ran.stderr).into_owned();
    if stderr.contains("no core was left") {
        skip!("the kernel leaves no core files here: core_pattern is {:?}", core_pattern());
    }
    let wanted = match core_pattern().chars().next() {
        Some('|') => "core dumped to ",
        Some('/') => "the kernel's core_pattern",
        _ => "core dumped into its folder, which is removed",
    };
    assert!(stderr.contains(wanted), "{stderr}");
    assert!(daemon.ok(&["deaths"]).contains("its program: SIGSEGV (core dumped)"));
}

#[test]
fn a_program_that_the_daemon_ended_is_not_listed() {
    let daemon = daemon();
    let ran = daemon.cli(&["run", "exec", "--timeout", "200ms", "--", "sleep", "1000"]);
    assert_eq!(ran.status.code(), Some(124));
    let job = daemon.ok(&["submit", "exec", "--", "sleep", "1000"]);
    daemon.await_worker(WorkerState::Busy);
    daemon.ok(&["cancel", job.trim()]);
    daemon.await_worker(WorkerState::Idle);
    assert_eq!(daemon.ok(&["deaths", "--json"]), "");
}

#[test]
fn queued_jobs_that_expire_or_are_lost_are_one_line_of_events_and_log() {
    let mut daemon = daemon();
    daemon.ok(&["submit", "sleep", "1000000"]);
    daemon.await_worker(WorkerState::Busy);
    let jobs = daemon.ok(&["submit", "noop", "--count", "500", "--expires", "100ms"]);
    let (first, last) = (jobs.lines().next().expect("one"), jobs.lines().last().expect("one"));
    let expired = format!("queued jobs ended outcome=\"expired\" count=500 jobs={first}..{last}");
    eventually("they expire", || daemon.log().contains(&expired).then_some(()));
    assert!(daemon.ok(&["events"]).contains(&expired));
    let told = daemon.events_named("ended-queued");
    assert_eq!((told.len(), &told[0]["count"]), (1, &500.into()), "{told:?}");
    let jobs = daemon.ok(&["submit", "noop", "--count", "300"]);
    let (first, last) = (jobs.lines().next().expect("one"), jobs.lines().last().expect("one"));
    daemon.end("TERM");
    let lost =
        format!("queued jobs ended outcome=\"lost: the service stopped\" count=300 jobs={first}..{last}");
    assert!(daemon.log().contains(&lost), "{}", daemon.log());
}
