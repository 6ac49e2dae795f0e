//! Worker programs as others write them, with a real daemon: what they may do, and what the daemon says of it.

use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use bulkhead_proto::client::view::WorkerState;
use bulkhead_tests::daemon::{Daemon, Setup, binary, eventually, new_folder, send_signal};
use bulkhead_tests::foreign::{
    AT_EXIT, CHILDREN, FAULT, HANGS, LONG, LONG_BYTES, NOTES, PAST_THE_CHECKS, VARIABLES,
};
use bulkhead_tests::ordinary_user::OrdinaryUser;
use bulkhead_tests::{or_skip, skip};
use tempfile::TempDir;

/// A daemon whose workers run the program, with these lines in its configuration.
fn daemon_with(lines: &str) -> Daemon {
    let config = format!("worker_program = {:?}\n{lines}", binary("foreign-worker"));
    Daemon::start_with(&Setup { workers: 1, config, ..Setup::default() })
}

/// A job may write files of its own of any length, also beside an output in memory, whose length stays bounded.
#[test]
fn files_of_its_own_may_be_long_and_its_output_may_not() {
    let daemon = daemon_with("[kinds.noop]\noutput_max_bytes = 100000\n");
    let long = daemon.folder().join("long");
    let deed = format!("{LONG}:{}", long.display());
    for flags in [&["run", "noop"][..], &["run", "noop", "--large"]] {
        daemon.ok(&[flags, &[&deed]].concat());
        assert_eq!(std::fs::metadata(&long).expect("it was made").len(), LONG_BYTES, "{flags:?}");
        std::fs::remove_file(&long).expect("it is there");
    }
    let fits = daemon.ok(&["run", "noop", "--large", &format!("{PAST_THE_CHECKS}:100000")]);
    assert_eq!(fits.trim_end().len(), 100_000);
    let failed = daemon.cli(&["run", "noop", "--large", &format!("{PAST_THE_CHECKS}:100001")]);
    let text = String::from_utf8_lossy(&failed.stderr);
    assert_eq!(failed.status.code(), Some(1), "{text}");
    assert!(text.contains("longer than the 100000 bytes") && text.contains("output_max_bytes"), "{text}");
    assert_eq!(daemon.events_named("died").len(), 0, "the worker has done nothing wrong");
}

/// `TMPDIR` is the daemon's from the first instruction of the program on, and no other variable changes later.
#[test]
fn temporary_files_go_where_those_of_the_daemon_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let named = format!("TMPDIR={}", folder.path().display());
    for (through, wanted) in [(vec!["env", &named], Some(&named)), (vec!["env", "-u", "TMPDIR"], None)] {
        let config = format!("worker_program = {:?}\n", binary("foreign-worker"));
        let through = through.into_iter().map(str::to_owned).collect();
        let daemon = Daemon::start_with(&Setup { workers: 1, config, through, ..Setup::default() });
        let told = daemon.ok(&["run", "noop", VARIABLES]);
        let (before, now) = told.trim_end().split_once('\n').expect("two lines");
        assert_eq!(before, now);
        let found = before.split(' ').find(|variable| variable.starts_with("TMPDIR="));
        assert_eq!(found, wanted.map(String::as_str), "{before}");
    }
}

/// The newest death.
fn newest_death(daemon: &Daemon) -> serde_json::Value {
    let text = daemon.ok(&["deaths", "--limit", "1", "--json"]);
    serde_json::from_str(&text).expect("one death")
}

/// A user of this file alone, in a group that every machine has.
const USER: u32 = 60_413;
const GROUP: u32 = 65_534;
const SYSTEM: &str = "mode = \"system\"\ngroup = \"nogroup\"\nadmin_group = \"bulkhead-test-none\"\n";

/// Debuggers and profilers of the same user look into the workers of the user's own daemon; in a service they do not.
#[test]
fn workers_of_a_users_own_daemon_may_be_traced_and_those_of_a_service_not() {
    let user = or_skip!(OrdinaryUser::in_group(USER, GROUP));
    for (config, may_look) in [("", true), (SYSTEM, false)] {
        let daemon = user.daemon(config, &[]);
        let worker = daemon.await_worker(WorkerState::Idle).pid.expect("an idle worker has a process");
        let (uid, gid) = (format!("--reuid={USER}"), format!("--regid={GROUP}"));
        for file in ["environ", "maps", "fd/2"] {
            let path = format!("/proc/{worker}/{file}");
            let mut look = Command::new("setpriv");
            look.args([&uid, &gid, "--clear-groups", "ls", "-L", &path]);
            let looked = look.output().expect("setpriv runs");
            let mut read = Command::new("setpriv");
            read.args([&uid, &gid, "--clear-groups", "head", "-c", "1", &path]);
            let read = read.output().expect("setpriv runs");
            let text = String::from_utf8_lossy(&read.stderr);
            let is_open = if file == "fd/2" { looked.status.success() } else { read.status.success() };
            assert_eq!(is_open, may_look, "{config:?} {file}: {text}");
        }
    }
}

/// Whether a process that a signal ends leaves a core file on this machine.
fn cores_are_written(folder: &Path) -> bool {
    let mut dies = Command::new("sh");
    dies.args(["-c", "ulimit -c unlimited && kill -SEGV $$"]).current_dir(folder);
    dies.status().expect("sh runs").core_dumped()
}

#[test]
fn a_worker_that_may_be_traced_leaves_no_core_file() {
    let folder = tempfile::tempdir().expect("a folder");
    if !cores_are_written(folder.path()) {
        skip!("no process leaves a core file here");
    }
    let config = format!("worker_program = {:?}\n", binary("foreign-worker"));
    let through = ["prlimit", "--core=unlimited:unlimited"].map(str::to_owned).to_vec();
    let daemon = Daemon::start_with(&Setup { workers: 1, config, through, ..Setup::default() });
    daemon.cli(&["run", "noop", FAULT, "--crashes-max", "1"]);
    let death = newest_death(&daemon);
    assert_eq!(
        (&death["death"]["death"], &death["death"]["core"]),
        (&"fault".into(), &false.into()),
        "{death}"
    );
}

/// Neither a child from before the worker library was called, nor one of a job, has the connection to the daemon.
#[test]
fn no_child_has_the_lane() {
    let daemon = daemon_with("");
    let told = daemon.ok(&["run", "noop", CHILDREN]);
    let (before, now) = told.split_once("--\n").expect("two lists");
    for list in [before, now] {
        assert!(list.contains(" 0 -> /dev/null"), "{told}");
        assert!(!list.contains("socket:"), "{told}");
    }
}

/// A daemon whose workers note what happens to them in a file of its folder.
fn noting_daemon(lines: &str) -> Daemon {
    noting_daemon_in(new_folder(), lines)
}

fn noting_daemon_in(folder: TempDir, lines: &str) -> Daemon {
    std::fs::write(folder.path().join(NOTES), "").expect("a file");
    let program = folder.path().join("worker");
    symlink(binary("foreign-worker"), &program).expect("a link");
    let config = format!("worker_program = {program:?}\n{lines}");
    Daemon::start_in(folder, &Setup { workers: 1, config, ..Setup::default() })
}

fn notes(daemon: &Daemon) -> String {
    std::fs::read_to_string(daemon.folder().join(NOTES)).expect("it is there")
}

/// Handlers that the program installed before it served: that of a fault runs after the daemon has what it needs for the
/// death's name, those of other signals run as if no library were there.
#[test]
fn handlers_of_the_program_run_and_the_death_has_its_name() {
    let daemon = noting_daemon("");
    let worker = daemon.await_worker(WorkerState::Idle).pid.expect("an idle worker has a process");
    for (signal, note) in [("INT", "02\n"), ("USR1", "02\n10\n")] {
        send_signal(worker, signal);
        eventually("its handler runs", || (notes(&daemon) == note).then_some(()));
    }
    daemon.cli(&["run", "noop", FAULT, "--crashes-max", "1"]);
    let death = newest_death(&daemon);
    assert_eq!(death["death"]["death"], "fault", "{death}");
    assert!(death["death"]["address"].as_u64().is_some_and(|address| address != 0), "{death}");
    assert!(!death["backtrace"].as_array().expect("a list").is_empty(), "{death}");
    assert_eq!((&death["pid"], notes(&daemon).as_str()), (&worker.into(), "02\n10\n11\n"));
}

/// The names of the deaths of all workers so far.
fn deaths(daemon: &Daemon) -> Vec<String> {
    let died = daemon.events_named("died").into_iter();
    died.map(|died| died["death"]["death"].as_str().unwrap_or_default().to_owned()).collect()
}

/// A worker that is recycled, or leaves because the daemon stops, runs its exit handlers.
#[test]
fn workers_that_leave_in_order_run_their_exit_handlers() {
    let folder = new_folder();
    std::fs::write(folder.path().join(AT_EXIT), "").expect("a file");
    let mut daemon = noting_daemon_in(folder, "recycle_tasks = 1\n");
    daemon.ok(&["run", "noop", "x"]);
    eventually("the recycled worker has left", || (deaths(&daemon) == ["retired"]).then_some(()));
    assert_eq!(notes(&daemon), "exit\n");
    eventually("there is a spare again", || (daemon.workers().len() == 2).then_some(()));
    daemon.await_worker(WorkerState::Spare);
    assert!(daemon.end("TERM").success());
    assert_eq!(notes(&daemon), "exit\n".repeat(3));
}

/// One whose exit handler hangs is killed when its time is over, and the daemon runs jobs meanwhile.
#[test]
fn a_worker_whose_exit_hangs_is_killed() {
    let folder = new_folder();
    std::fs::write(folder.path().join(AT_EXIT), HANGS).expect("a file");
    let mut daemon = noting_daemon_in(folder, "recycle_tasks = 1\n");
    daemon.ok(&["run", "noop", "x"]);
    eventually("the recycled worker leaves", || (notes(&daemon) == "exit\n").then_some(()));
    daemon.ok(&["run", "noop", "y"]);
    eventually("it was killed", || {
        let killed = daemon.events_named("died").into_iter().next()?;
        assert_eq!(killed["death"]["why"]["why"], "unresponsive", "{killed}");
        Some(())
    });
    assert!(daemon.end("TERM").success(), "the daemon waits for no exit handler for ever");
}
