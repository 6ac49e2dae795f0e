//! A daemon under a filter of system calls (seccomp): under the default profile of container runtimes all works; what
//! only an old runtime refuses has a fallback; what nothing can replace is named at the start and by `--check-config`.
//!
//! The filter is real: `refuse-calls` installs it and becomes the program.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use std::process::{Command, Output, Stdio};

use bulkhead_proto::client::view::WorkerState;
use bulkhead_tests::daemon::{Daemon, Setup, binary, eventually, new_folder, processes_under};

/// The command that installs a filter with these rules.
fn through(rules: &[&str]) -> Vec<String> {
    let program = binary("refuse-calls").to_str().unwrap().to_owned();
    let rules = rules.iter().map(|rule| (*rule).to_owned());
    std::iter::once(program).chain(rules).chain(["--".to_owned()]).collect()
}

fn daemon(rules: &[&str]) -> Daemon {
    Daemon::start_with(&Setup { through: through(rules), ..Setup::default() })
}

/// The newest death.
fn crash(daemon: &Daemon) -> serde_json::Value {
    let id = daemon.ok(&["submit", "chaos", "segv", "--crashes-max", "1"]).trim().to_owned();
    assert_eq!(daemon.cli(&["wait", &id]).status.code(), Some(125));
    serde_json::from_str(&daemon.ok(&["deaths", "--limit", "1", "--json"])).unwrap()
}

/// A job of each sort: built in, a program, large output, a crash, a cancelled tree.
fn all_works(daemon: &Daemon) -> serde_json::Value {
    assert_eq!(daemon.ok(&["run", "factorial", "5"]).trim(), "120");
    assert!(daemon.ok(&["run", "factorial", "30000"]).len() > 100_000);
    assert_eq!(daemon.ok(&["run", "exec", "--", "sh", "-c", "cat; echo told"]), "told\n");
    let open = daemon.ok(&["run", "exec", "--", "ls", "/proc/self/fd"]);
    assert_eq!(open.split_whitespace().count(), 4, "a program gets the standard descriptors alone: {open}");
    let death = crash(daemon);
    assert_eq!(death["death"]["death"], "fault", "{death}");
    let id = daemon.ok(&["submit", "exec", "--", "sh", "-c", "sleep 3000 & setsid sleep 3000 & wait"]);
    daemon.await_worker(WorkerState::Busy);
    daemon.ok(&["cancel", id.trim()]);
    assert_eq!(daemon.cli(&["wait", id.trim()]).status.code(), Some(130));
    eventually("no process of the cancelled job is left", || {
        daemon.workers().iter().all(|row| row.job.is_none()).then_some(())
    });
    assert_eq!(daemon.ok(&["run", "noop", "after"]).trim(), "after");
    death
}

#[test]
fn under_the_profile_of_container_runtimes_all_works() {
    let daemon = daemon(&["container"]);
    let death = all_works(&daemon);
    assert!(!death["evidence"]["frames"].as_array().unwrap().is_empty(), "{death}");
    assert!(!daemon.log().contains("does not work"), "{}", daemon.log());
}

#[test]
fn calls_that_an_old_runtime_does_not_know_have_a_fallback() {
    for error in ["ENOSYS", "EPERM"] {
        let known = ["close_range", "copy_file_range", "faccessat2", "openat2", "renameat2"];
        let more = ["kcmp", "ptrace", "personality", "sched_setaffinity", "fallocate"];
        // Programs of the system cannot do without statx(2) either, but for a kernel that lacks it.
        let statx = ["statx=ENOSYS".to_owned()].into_iter().filter(|_| error == "ENOSYS");
        let rules: Vec<String> =
            known.iter().chain(&more).map(|call| format!("{call}={error}")).chain(statx).collect();
        let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
        all_works(&daemon(&rules));
    }
}

#[test]
fn what_evidence_lacks_is_said_once_and_all_else_works() {
    let daemon = daemon(&["process_vm_readv=EPERM"]);
    all_works(&daemon);
    let log = daemon.log();
    assert_eq!(log.matches("process_vm_readv(2) does not work").count(), 1, "{log}");
}

/// Starts a daemon, or checks a config, under a filter, and waits for its end.
fn ends(rules: &[&str], arguments: &[&str]) -> Output {
    let words = through(rules);
    let (first, rest) = words.split_first().unwrap();
    let mut command = Command::new(first);
    command.args(rest).arg(binary("bulkhead-supervisor")).args(arguments).stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap()
}

#[test]
fn a_call_without_which_nothing_works_is_named_and_nothing_waits() {
    let folder = new_folder();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("config"), format!("socket = {:?}\nstate = {:?}\n", path("s"), path("state")))
        .unwrap();
    let needed: [(&[&str], &str); 7] = [
        (&["container", "close_range=ENOSYS"], "close_range(2), and unshare(2)"),
        (&["pidfd_open=EPERM"], "pidfd_open(2)"),
        (&["pidfd_send_signal=ENOSYS"], "pidfd_send_signal(2)"),
        (&["memfd_create=EPERM"], "memfd_create(2)"),
        (&["waitid=EPERM"], "waitid(2)"),
        (&["prlimit64=ENOSYS"], "prlimit(2)"),
        (&["clone3=EPERM"], "clone3(2)"),
    ];
    for (rules, call) in needed {
        for option in ["--config", "--check-config"] {
            let output = ends(rules, &[option, &path("config")]);
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.contains(call) && said.contains("seccomp"), "{rules:?} {option}: {said}");
        }
    }
    let warned = ends(&["process_vm_readv=EPERM"], &["--check-config", &path("config")]);
    let said = String::from_utf8(warned.stderr).unwrap();
    assert!(warned.status.success() && said.contains("no backtrace: process_vm_readv(2)"), "{said}");
    assert_eq!(processes_under(folder.path()), Vec::<String>::new());
}
