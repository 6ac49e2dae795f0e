//! The end of the daemon has one exit code for each thing that a command may be waiting for, whatever its verb.
//!
//! Real commands wait on a real daemon, which is then killed or told to stop. The table is that of
//! `docs/src/reference/exit-codes.md`.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use bulkhead_proto::client::exit::{DONE, LOST, NO_DAEMON};
use bulkhead_proto::client::places::SYSTEM_SOCKET;
use bulkhead_proto::client::view::{Status, WorkerState};
use bulkhead_tests::daemon::{Daemon, Setup, binary, eventually, new_folder, processes_under, send_signal};
use bulkhead_tests::skip;

/// A command that waits, and is killed if its test fails.
struct Waiting {
    words: String,
    child: Option<Child>,
}

impl Waiting {
    fn start(daemon: &Daemon, words: &str) -> Self {
        let words = words.replace("FOLDER", &daemon.folder().display().to_string());
        let arguments: Vec<&str> = words.split(' ').collect();
        let mut command = daemon.command(&arguments);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        Self { words, child: Some(child) }
    }

    fn ended(mut self) -> Output {
        let child = self.child.take().expect("it was not waited for");
        child.wait_with_output().expect("it ends")
    }

    fn assert_code(self, code: u8) {
        let words = self.words.clone();
        let output = self.ended();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(i32::from(code)), "{words}: {said}");
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn daemon() -> Daemon {
    let config = "grace_seconds = 0\n".to_owned();
    Daemon::start_with(&Setup { workers: 2, chaos: false, config, ..Setup::default() })
}

fn status(daemon: &Daemon) -> Status {
    serde_json::from_str(&daemon.ok(&["status", "--json"])).expect("a status")
}

/// Ends the daemon while these commands wait for jobs on it, and for its events.
fn assert_lost(how: &str) {
    let mut daemon = daemon();
    let job = daemon.ok(&["submit", "exec", "--", "sleep", "1000"]);
    let job = job.trim();
    daemon.await_worker(WorkerState::Busy);
    let lines = [
        "run sleep 1000000".to_owned(),
        "run exec -- sleep 1000".to_owned(),
        "run sleep 900000 --count 3 --priority 0".to_owned(),
        "run exec -o FOLDER/out -- sleep 1000".to_owned(),
        "-q run sleep 1000001 --unordered".to_owned(),
        "--json run sleep 1000002".to_owned(),
        format!("wait {job}"),
        format!("--json wait {job}"),
        format!("logs --follow {job}"),
    ];
    let waiting: Vec<Waiting> = lines.iter().map(|words| Waiting::start(&daemon, words)).collect();
    let follower = Waiting::start(&daemon, "events --follow");
    let clients = u32::try_from(lines.len()).expect("few") + 2;
    eventually("all wait", || {
        let status = status(&daemon);
        (status.clients == clients && status.queued + status.running == 9).then_some(())
    });
    daemon.end(how);
    waiting.into_iter().for_each(|one| one.assert_code(LOST));
    follower.assert_code(NO_DAEMON);
    for verb in ["status", "result 1", "submit noop"] {
        assert_eq!(Waiting::start(&daemon, verb).ended().status.code(), Some(i32::from(NO_DAEMON)), "{verb}");
    }
}

#[test]
fn commands_that_wait_for_jobs_lose_them_with_a_daemon_that_is_killed() {
    assert_lost("KILL");
}

#[test]
fn commands_that_wait_for_jobs_lose_them_with_a_daemon_that_stops() {
    assert_lost("TERM");
}

#[test]
fn a_drain_waits_for_that_end_and_tells_whether_jobs_were_lost() {
    for (kind, how, code) in [("sleep", "KILL", LOST), ("sleep", "INT", LOST), ("noop", "", DONE)] {
        let mut daemon = daemon();
        if kind == "sleep" {
            daemon.ok(&["submit", "sleep", "1000000"]);
        }
        let drain = Waiting::start(&daemon, "drain");
        if !how.is_empty() {
            eventually("it drains", || status(&daemon).draining.then_some(()));
            daemon.end(how);
        }
        drain.assert_code(code);
        daemon.await_end();
    }
}

/// The private daemon of a command is found by the command's own runtime folder.
#[test]
fn a_private_daemon_that_is_killed_loses_its_jobs_as_well() {
    if Path::new(SYSTEM_SOCKET).exists() {
        skip!("this machine has a system daemon, so no private one would be started");
    }
    let folder = new_folder();
    let child = Command::new(binary("bulkhead"))
        .args(["run", "exec", "--", "sh", "-c", "echo > \"$1\"; sleep 1000", "sh"])
        .arg(folder.path().join("runs"))
        .env("XDG_RUNTIME_DIR", folder.path())
        .env_remove("BULKHEAD_SOCKET")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let run = Waiting { words: "run".to_owned(), child: Some(child) };
    eventually("its program runs", || folder.path().join("runs").exists().then_some(()));
    let is_daemon = |row: &String| row.contains("bulkhead-supervisor");
    let row = processes_under(folder.path()).into_iter().find(is_daemon).expect("its daemon");
    let pid = row.split(' ').next().and_then(|pid| pid.parse().ok()).expect("a pid");
    send_signal(pid, "KILL");
    run.assert_code(LOST);
}
