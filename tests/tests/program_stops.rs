//! Programs of real daemons that a signal stops: said by `workers` and `why`, counted as no progress, ended by a limit
//! that is set and by nothing else.
//!
//! The programs stop themselves (`kill -STOP $$`), because no terminal can stop them: `terminal.rs` has that. Each test
//! runs as the user of the tests and, where that is root, as another user too.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use bulkhead_proto::client::exit;
use bulkhead_proto::client::view::{StoppedProgram, WorkerRow};
use bulkhead_tests::daemon::{Daemon, Setup, eventually, new_folder, send_signal};
use bulkhead_tests::told::job;
use serde_json::Value;

/// A user that is not root.
const NOBODY: u32 = 65_534;

/// A daemon of this user with one worker.
fn daemon_of(user: Option<u32>, config: &str) -> Daemon {
    let folder = new_folder();
    let mut setup = Setup { workers: 1, chaos: false, config: config.to_owned(), ..Setup::default() };
    if let Some(uid) = user {
        chown(folder.path(), Some(uid), Some(uid)).unwrap();
        let words = format!("setpriv --reuid {uid} --regid {uid} --clear-groups");
        setup.through = words.split(' ').map(str::to_owned).collect();
    }
    Daemon::start_in(folder, &setup)
}

/// The user of the tests, and another one if they run as root.
fn users() -> Vec<Option<u32>> {
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    if is_root { vec![None, Some(NOBODY)] } else { vec![None] }
}

fn submit(daemon: &Daemon, words: &[&str], script: &str) -> String {
    let program = ["--", "sh", "-c", script, "sh"];
    let folder = daemon.folder().display().to_string();
    daemon.ok(&[&["submit", "exec"], words, &program, &[&folder]].concat()).trim().to_owned()
}

/// The row of the worker that runs this job, and its program, once that is known to be stopped.
fn stopped(daemon: &Daemon, job: &str) -> (WorkerRow, StoppedProgram) {
    eventually("the stop is noticed", || {
        let of_job = |row: &WorkerRow| row.job.is_some_and(|id| id.to_string() == job);
        let row = daemon.workers().into_iter().find(of_job)?;
        row.program.map(|program| (row, program))
    })
}

fn running(daemon: &Daemon, job: &str) -> Value {
    serde_json::from_str::<Value>(&daemon.ok(&["why", job, "--json"])).unwrap()["now"].clone()
}

fn wait(daemon: &Daemon, job: &str) -> Option<i32> {
    daemon.cli(&["wait", job]).status.code()
}

fn has(path: &Path, words: &str) -> Option<()> {
    std::fs::read_to_string(path).is_ok_and(|text| text == words).then_some(())
}

/// The state letter in /proc/PID/stat.
fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}

/// The number of the signal that stops a program for sure.
const SIGSTOP: i32 = 19;

#[test]
fn a_stopped_program_is_said_and_goes_on_when_it_is_continued() {
    for user in users() {
        let daemon = daemon_of(user, "");
        let script = "kill -STOP $$; until test -e \"$1/go\"; do sleep 0.02; done; echo on";
        let id = submit(&daemon, &[], script);
        let (row, program) = stopped(&daemon, &id);
        assert_eq!((program.signal, program.left_ms), (SIGSTOP, None));
        assert_eq!(state(program.pid), Some('T'), "it is the program");
        assert_ne!(Some(program.pid), row.pid);
        let shown = format!("its program (pid {}) is stopped by SIGSTOP", program.pid);
        assert!(daemon.ok(&["workers"]).contains(&shown), "{}", daemon.ok(&["workers"]));
        let why = daemon.ok(&["why", &id]);
        let said = format!("Its program (pid {}) has been stopped by SIGSTOP for ", program.pid);
        assert!(why.contains(&said) && why.contains("`kill -CONT"), "{why}");
        let now = running(&daemon, &id);
        assert_eq!(
            (&now["program"]["pid"], &now["program"]["signal"]),
            (&program.pid.into(), &SIGSTOP.into())
        );
        assert!(now["program"]["since_us"].as_u64().unwrap() > row.spawned_us, "{now}");
        send_signal(program.pid, "CONT");
        let event = |name: &str| eventually(name, || daemon.events_named(name).pop());
        assert_eq!(event("program-stopped")["program"], program.pid);
        assert_eq!(event("program-continued")["job"].to_string(), id);
        assert_eq!(running(&daemon, &id)["program"], Value::Null);
        std::fs::write(daemon.folder().join("go"), "").unwrap();
        assert_eq!(wait(&daemon, &id), Some(0));
        assert_eq!(daemon.ok(&["result", &id]), "on\n");
        assert!(daemon.ok(&["events"]).contains("program stopped by a signal worker="));
        assert!(daemon.workers().iter().all(|row| row.program.is_none()));
    }
}

/// No client asks meanwhile, and once the task is known to have begun no alarm wakes the daemon: the doorbell does.
#[test]
fn a_sleeping_daemon_hears_of_a_stop_by_itself() {
    let daemon = daemon_of(None, "");
    let script = "until test -e \"$1/go\"; do sleep 0.02; done; kill -STOP $$; sleep 3600";
    let id = submit(&daemon, &[], script);
    eventually("its program runs", || daemon.workers().into_iter().find(|row| row.job.is_some()));
    std::fs::write(daemon.folder().join("go"), "").unwrap();
    let program = eventually("the stop is logged", || {
        let log = daemon.log();
        let said = log.split_once("program stopped by a signal ")?.1.split_once(" program=")?.1;
        said.split_once(' ')?.0.parse().ok()
    });
    send_signal(program, "CONT");
    eventually("its end is logged", || daemon.log().contains("program continued worker=").then_some(()));
    daemon.ok(&["cancel", &id]);
}

#[test]
fn a_limit_that_is_set_ends_it_with_its_grace_and_is_told() {
    for user in users() {
        let daemon = daemon_of(user, "program_stopped_seconds = 1\n");
        let script = "trap 'echo bye; exit 7' TERM; echo on; kill -STOP $$; echo never";
        let id = submit(&daemon, &["--retries-max", "3", "--timeout", "60s"], script);
        let (row, program) = stopped(&daemon, &id);
        assert!(program.left_ms.is_some_and(|left_ms| left_ms <= 1000), "{program:?}");
        assert_eq!(wait(&daemon, &id), Some(i32::from(exit::TIMED_OUT)));
        assert_eq!(daemon.ok(&["job", &id, "--json"]).matches("\"program-stopped\"").count(), 1);
        let outcome = job(&daemon, &id)["outcome"].clone();
        assert_eq!((&outcome["limit"], &outcome["limit_ms"]), (&"program-stopped".into(), &1000.into()));
        let told = daemon.cli(&["result", &id]);
        assert_eq!(told.status.code(), Some(i32::from(exit::TIMED_OUT)));
        assert_eq!(String::from_utf8_lossy(&told.stdout), "on\nbye\n", "TERM and CONT reached it");
        let why = daemon.ok(&["why", &id]);
        assert!(why.contains("attempt 1 ran a program that a signal had stopped for 1.00s"), "{why}");
        // Its worker is as warm as before, and a program that goes on in time is none of this.
        let id = submit(&daemon, &[], "kill -STOP $$; echo on");
        let (same, program) = stopped(&daemon, &id);
        send_signal(program.pid, "CONT");
        assert_eq!((wait(&daemon, &id), same.pid), (Some(0), row.pid));
    }
}

/// A limit of wall time goes on, and ends it as well.
#[test]
fn without_that_limit_the_others_and_a_cancel_end_it() {
    for user in users() {
        let daemon = daemon_of(user, "");
        let words = |name: &str| -> PathBuf { daemon.folder().join(name) };
        let polite = "trap 'echo bye > \"$1/words\"; exit' TERM; kill -STOP $$";
        let id = submit(&daemon, &[], polite);
        stopped(&daemon, &id);
        daemon.ok(&["cancel", &id]);
        eventually("its trap has run", || has(&words("words"), "bye\n"));
        assert_eq!(wait(&daemon, &id), Some(i32::from(exit::CANCELLED)));
        // One that stops itself again is killed.
        let id = submit(&daemon, &[], "trap 'echo bye > \"$1/again\"; kill -STOP $$' TERM; kill -STOP $$");
        let (_, program) = stopped(&daemon, &id);
        daemon.ok(&["cancel", &id]);
        eventually("its trap has run", || has(&words("again"), "bye\n"));
        eventually("it is killed", || state(program.pid).is_none().then_some(()));
        let id = submit(&daemon, &["--timeout", "1s"], "echo on; kill -STOP $$");
        assert_eq!(wait(&daemon, &id), Some(i32::from(exit::TIMED_OUT)));
        assert_eq!(job(&daemon, &id)["outcome"]["limit"], "wall");
        assert!(daemon.events_named("killing").is_empty(), "its worker has killed it each time");
    }
}

/// Another process of it goes on writing.
#[test]
fn a_stopped_program_makes_no_progress() {
    let daemon = daemon_of(None, "");
    let script = "while :; do echo on; sleep 0.02; done & kill -STOP $$";
    let id = submit(&daemon, &["--no-progress", "1s", "--timeout", "60s"], script);
    assert_eq!(wait(&daemon, &id), Some(i32::from(exit::TIMED_OUT)), "{}", daemon.ok(&["why", &id]));
    assert_eq!(job(&daemon, &id)["outcome"]["limit"], "no-progress");
}

/// As cpulimit does it, many times a second.
#[test]
fn a_program_that_is_slowed_down_by_signals_fills_no_log() {
    let daemon = daemon_of(None, "program_stopped_seconds = 3600\n");
    // Many stops are so long that they are noticed.
    let toggle = "while [ $((i+=1)) -lt 100 ]; do kill -STOP $$; sleep 0.01; kill -CONT $$; done";
    let id = submit(&daemon, &["--timeout", "60s"], &format!("({toggle}) & wait; echo on"));
    assert_eq!(wait(&daemon, &id), Some(0));
    let count = |name: &str| daemon.events_named(name).len();
    assert_eq!(count("program-stopped"), 1);
    assert!(count("program-continued") <= 1);
}
