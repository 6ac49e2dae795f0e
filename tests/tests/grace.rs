//! Programs of real daemons that are to end: TERM first, KILL after their grace, and what they wrote is told.
//!
//! A cancel, a limit of time, the stop of the daemon and Ctrl-C each end a real program here, which says with its last
//! words, or with the file that it completes, that it was asked first.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use bulkhead_proto::client::view::WorkerState;
use bulkhead_tests::daemon::{Daemon, Setup, binary, eventually, new_folder, send_signal};
use bulkhead_tests::skip;

/// Writes its last words into the file `$1` when it is asked to end.
const POLITE: &str = "trap 'echo bye; echo bye > \"$1\"; exit 7' TERM; echo on > \"$1\"; echo on; while :; do sleep 0.02; done";
/// Ignores that.
const DEAF: &str = "trap '' TERM; echo on > \"$1\"; echo on; while :; do sleep 0.02; done";

fn daemon(config: &str) -> Daemon {
    Daemon::start_with(&Setup { workers: 1, chaos: false, config: config.to_owned(), ..Setup::default() })
}

fn has(path: &Path, words: &str) -> Option<()> {
    std::fs::read_to_string(path).is_ok_and(|text| text == words).then_some(())
}

fn said(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_program_that_timed_out_runs_its_trap_and_what_it_wrote_is_told() {
    let daemon = daemon("");
    let warm = daemon.await_worker(WorkerState::Idle);
    let file = daemon.folder().join("words").display().to_string();
    let ran = daemon.cli(&["run", "exec", "--timeout", "300ms", "--", "sh", "-c", POLITE, "sh", &file]);
    assert_eq!(said(&ran), (Some(124), "on\nbye\n".to_owned()));
    let job = daemon.ok(&["submit", "exec", "--timeout", "300ms", "--", "sh", "-c", POLITE, "sh", &file]);
    let waited = daemon.cli(&["wait", job.trim()]);
    assert_eq!(waited.status.code(), Some(124));
    assert_eq!(said(&daemon.cli(&["result", job.trim()])).1, "on\nbye\n", "it is kept");
    assert_eq!(daemon.await_worker(WorkerState::Idle).pid, warm.pid, "its worker is as warm as before");
}

#[test]
fn a_program_that_ignores_it_is_killed_after_its_grace_and_heard() {
    let daemon = daemon("[kinds.exec]\ncancel_grace_ms = 300\n");
    let warm = daemon.await_worker(WorkerState::Idle);
    let file = daemon.folder().join("words").display().to_string();
    let ran = daemon.cli(&["run", "exec", "--timeout", "300ms", "--", "sh", "-c", DEAF, "sh", &file]);
    assert_eq!(said(&ran), (Some(124), "on\n".to_owned()));
    assert_eq!(daemon.await_worker(WorkerState::Idle).pid, warm.pid, "its worker has killed it");
    assert!(daemon.events_named("killing").is_empty());
}

#[test]
fn a_cancel_and_a_stop_of_the_daemon_let_a_trap_run() {
    let mut daemon = daemon("grace_seconds = 0\n");
    for ends in ["cancel", "drain"] {
        let file = daemon.folder().join(ends);
        let path = file.display().to_string();
        let job = daemon.ok(&["submit", "exec", "--", "sh", "-c", POLITE, "sh", &path]);
        eventually("its program runs", || has(&file, "on\n"));
        if ends == "cancel" {
            daemon.ok(&["cancel", job.trim()]);
        } else {
            daemon.end("TERM");
        }
        eventually("its trap has run", || has(&file, "bye\n"));
    }
}

#[test]
fn ctrl_c_on_a_run_with_a_daemon_of_its_own_lets_a_trap_run() {
    let folder = new_folder();
    let file = folder.path().join("words");
    let mut run = Command::new(binary("bulkhead"))
        .args(["run", "exec", "--", "sh", "-c", POLITE, "sh"])
        .arg(&file)
        .env("XDG_RUNTIME_DIR", folder.path())
        .env_remove("BULKHEAD_SOCKET")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the command starts");
    eventually("its program runs", || has(&file, "on\n"));
    send_signal(run.id(), "INT");
    assert_eq!(run.wait().expect("it ends").code(), Some(130));
    assert_eq!(has(&file, "bye\n"), Some(()), "the trap has run when the command leaves");
}

/// An mp4 has its index at its end, so it is of use only if ffmpeg was asked to end.
#[test]
fn an_mp4_of_a_job_that_timed_out_gets_its_index() {
    if !Path::new("/usr/bin/ffmpeg").exists() {
        skip!("there is no ffmpeg");
    }
    let daemon = daemon("[kinds.exec]\ncancel_grace_ms = 60000\n");
    let clip = daemon.folder().join("clip.mp4").display().to_string();
    let ran = daemon.cli(&[
        "run",
        "exec",
        "--timeout",
        "2s",
        "--",
        "/usr/bin/ffmpeg",
        "-v",
        "error",
        "-re",
        "-f",
        "lavfi",
        "-i",
        "testsrc=size=64x64:rate=10",
        "-y",
        &clip,
    ]);
    assert_eq!(ran.status.code(), Some(124));
    let bytes = std::fs::read(&clip).expect("a clip");
    assert!(bytes.windows(4).any(|four| four == b"moov"), "there is no index in {} bytes", bytes.len());
}
