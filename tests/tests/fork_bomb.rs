//! Fork bombs in jobs of an ordinary user: nothing of one is left after the cancel of its job, nor after the stop of the
//! daemon.
//!
//! Each has a user of its own, so that all its processes can be counted, and killed at the end whatever happens. Before the
//! daemon starts, the user gets a limit of processes: without it a bomb would take the whole machine.

use std::path::Path;

use bulkhead_tests::daemon::{Daemon, eventually};
use bulkhead_tests::ordinary_user::OrdinaryUser;
use bulkhead_tests::{or_skip, skip};

/// How many processes and threads the user may have.
const PROCESSES_MAX: usize = 100;
const LIMIT: &str = "--nproc=100:100";
/// The program gets no time to end by itself.
const CONFIG: &str = "grace_seconds = 0\n[kinds.exec]\ncancel_grace_ms = 100\n";

/// Forks without pause, up to the limit of the user. Each child does `in_child` first.
fn bomb(in_child: &str) -> String {
    format!(
        "use POSIX; $SIG{{CHLD}} = \"IGNORE\"; $SIG{{TERM}} = \"IGNORE\"; \
         while (1) {{ my $pid = fork; {in_child} if defined $pid && $pid == 0; select(undef, undef, undef, 0.002) }}"
    )
}

/// Starts a bomb, and returns its job when the user has nearly all the processes that it may have.
fn light(daemon: &Daemon, user: &OrdinaryUser, in_child: &str) -> String {
    let job = daemon.ok(&["submit", "exec", "--", "perl", "-e", &bomb(in_child)]);
    // The threads of the daemon count too.
    eventually("the bomb is at its limit", || (user.processes().len() > PROCESSES_MAX * 3 / 4).then_some(()));
    job.trim().to_owned()
}

fn has_perl() -> bool {
    Path::new("/usr/bin/perl").exists()
}

/// The processes of the user that run the bomb, and the dead ones, as `pid name`.
fn bombs(user: &OrdinaryUser) -> Vec<String> {
    let name = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let named = user.processes().into_iter().map(|pid| format!("{pid} {}", name(&pid).trim()));
    named.filter(|text| !text.contains("bulkhead")).collect()
}

fn assert_ended_by_cancel(uid: u32, in_child: &str) {
    let user = or_skip!(OrdinaryUser::new(uid));
    if !has_perl() {
        skip!("there is no perl");
    }
    let daemon = user.daemon(CONFIG, &[LIMIT]);
    for _ in 0..3 {
        let job = light(&daemon, &user, in_child);
        daemon.ok(&["cancel", &job]);
        eventually("nothing of the bomb is left", || bombs(&user).is_empty().then_some(()));
        assert_eq!(daemon.ok(&["run", "exec", "--", "echo", "fine"]), "fine\n");
    }
    assert_eq!(daemon.events_named("lives-on").len(), 0);
}

fn assert_ended_by_stop(uid: u32, in_child: &str) {
    let user = or_skip!(OrdinaryUser::new(uid));
    if !has_perl() {
        skip!("there is no perl");
    }
    for _ in 0..3 {
        let mut daemon = user.daemon(CONFIG, &[LIMIT]);
        light(&daemon, &user, in_child);
        assert!(daemon.end("TERM").success());
        // The kernel lists a dead process until its new parent has reaped it, so the dead do not count.
        let left = eventually("the dead are reaped, or some live", || {
            let left = user.processes();
            let lives = |pid: &u32| {
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.starts_with(" Z"))
            };
            (left.is_empty() || left.iter().any(lives)).then_some(left.len())
        });
        assert_eq!(left, 0, "processes outlive the daemon; its log:\n{}", daemon.log());
        assert!(!daemon.log().contains("outlives"), "{}", daemon.log());
    }
}

#[test]
fn one_in_a_group_ends_with_a_cancel() {
    assert_ended_by_cancel(60_151, "1");
}

#[test]
fn one_in_many_sessions_ends_with_a_cancel() {
    assert_ended_by_cancel(60_152, "POSIX::setsid()");
}

#[test]
fn one_in_a_group_ends_with_the_daemon() {
    assert_ended_by_stop(60_153, "1");
}

#[test]
fn one_in_many_sessions_ends_with_the_daemon() {
    assert_ended_by_stop(60_154, "POSIX::setsid()");
}

/// The daemon is killed, so the worker has to end the bomb, and then itself.
#[test]
fn one_in_many_sessions_ends_after_the_daemon_was_killed() {
    let user = or_skip!(OrdinaryUser::new(60_156));
    if !has_perl() {
        skip!("there is no perl");
    }
    let mut daemon = user.daemon(CONFIG, &[LIMIT]);
    light(&daemon, &user, "POSIX::setsid()");
    daemon.end("KILL");
    eventually("nothing of the user is left", || user.processes().is_empty().then_some(()));
}

/// The worker is killed, so the daemon itself has to end the bomb.
#[test]
fn one_in_many_sessions_ends_after_its_worker() {
    let user = or_skip!(OrdinaryUser::new(60_155));
    if !has_perl() {
        skip!("there is no perl");
    }
    let daemon = user.daemon(CONFIG, &[LIMIT]);
    let job =
        daemon.ok(&["submit", "exec", "--crashes-max", "1", "--", "perl", "-e", &bomb("POSIX::setsid()")]);
    eventually("the bomb is at its limit", || (user.processes().len() > PROCESSES_MAX * 3 / 4).then_some(()));
    let row = daemon.workers().into_iter().find(|row| row.job.is_some()).expect("one runs it");
    bulkhead_tests::daemon::send_signal(row.pid.expect("it lives"), "KILL");
    assert_ne!(daemon.cli(&["wait", job.trim()]).status.code(), Some(0), "it crashed");
    eventually("nothing of the bomb is left", || bombs(&user).is_empty().then_some(()));
}
