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

/// Two signals, one after the other: the second one ends what has its grace.
fn stop_at_once(daemon: &mut Daemon) {
    send_signal(daemon.pid(), "INT");
    eventually("it was told", || daemon.log().contains("asked to stop at once").then_some(()));
    send_signal(daemon.pid(), "INT");
    daemon.await_end();
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

/// A shell, its trap, and a child that it waits for: TERM goes to the group, so that the wait ends.
const WAITS: &str = "trap 'echo bye; exit 3' TERM; echo on > \"$1\"; sleep 100 & wait";

#[test]
fn a_job_s_own_grace_goes_before_that_of_its_kind() {
    let daemon = daemon("[kinds.exec]\ncancel_grace_ms = 60000\n");
    let warm = daemon.await_worker(WorkerState::Idle);
    let file = daemon.folder().join("words").display().to_string();
    let run = |grace: &str, script: &str| {
        let words = ["--grace", grace, "--timeout", "300ms", "--", "sh", "-c", script, "sh", &file];
        said(&daemon.cli(&[&["run", "exec"], &words[..]].concat()))
    };
    assert_eq!(run("200ms", DEAF), (Some(124), "on\n".to_owned()), "it is killed long before a minute");
    assert_eq!(daemon.await_worker(WorkerState::Idle).pid, warm.pid, "its worker has killed it");
    assert_eq!(run("30s", WAITS), (Some(124), "bye\n".to_owned()));
    assert_eq!(run("0s", WAITS).0, Some(124));
    eventually("its worker is killed at once", || (!daemon.events_named("killing").is_empty()).then_some(()));
    let refused = daemon.cli(&["run", "exec", "--grace", "61s", "--", "true"]);
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn why_tells_that_a_program_was_told_to_end() {
    let mut daemon = daemon("");
    let file = daemon.folder().join("words");
    let path = file.display().to_string();
    let words =
        ["submit", "exec", "--grace", "60s", "--timeout", "200ms", "--", "sh", "-c", DEAF, "sh", &path];
    let job = daemon.ok(&words);
    let told = eventually("it was told to end", || {
        let text = daemon.ok(&["why", job.trim()]);
        text.contains("It was told to end").then_some(text)
    });
    assert!(told.contains("It ran longer than 200.00ms: it has timed out once it has ended."), "{told}");
    assert!(told.contains("s unless it ends before."), "{told}");
    daemon.ok(&["cancel", job.trim()]);
    let told = daemon.ok(&["why", job.trim()]);
    assert!(told.contains("still has it; it was told to end"), "{told}");
    stop_at_once(&mut daemon);
}

#[test]
fn the_end_of_a_daemon_gives_a_job_its_own_grace_and_a_second_signal_none() {
    let mut daemon = daemon("grace_seconds = 0\n[kinds.exec]\ncancel_grace_ms = 0\n");
    let file = daemon.folder().join("words");
    let path = file.display().to_string();
    daemon.ok(&["submit", "exec", "--grace", "30s", "--", "sh", "-c", POLITE, "sh", &path]);
    eventually("its program runs", || has(&file, "on\n"));
    daemon.end("TERM");
    assert_eq!(has(&file, "bye\n"), Some(()), "the trap has run");
    daemon.start_again(&Setup { workers: 1, chaos: false, ..Setup::default() });
    daemon.ok(&["submit", "exec", "--grace", "60s", "--", "sh", "-c", DEAF, "sh", &path]);
    eventually("its program runs", || has(&file, "on\n"));
    stop_at_once(&mut daemon);
}

/// Starts `bulkhead run exec` with a daemon of its own in this folder, and waits until its program says so.
fn run_alone(folder: &Path, words: &[&str], script: &str, stdout: Stdio) -> std::process::Child {
    let file = folder.join("words");
    let run = Command::new(binary("bulkhead"))
        .args(["run", "exec"])
        .args(words)
        .args(["--", "sh", "-c", script, "sh"])
        .arg(&file)
        .env("XDG_RUNTIME_DIR", folder)
        .env_remove("BULKHEAD_SOCKET")
        .stdout(stdout)
        .stderr(Stdio::null())
        .spawn()
        .expect("the command starts");
    eventually("its program runs", || has(&file, "on\n"));
    run
}

/// Waits until the daemon that a command in this folder has started for itself stops.
fn await_stop_of_own_daemon(folder: &Path) {
    let daemon = |row: &String| row.contains("bulkhead-supervisor");
    let log = || -> Option<String> {
        let row = bulkhead_tests::daemon::processes_under(folder).into_iter().find(daemon)?;
        let place = row.split(' ').skip_while(|word| *word != "--socket").nth(1)?;
        std::fs::read_to_string(Path::new(place).with_file_name("log")).ok()
    };
    eventually("its daemon stops", || log().filter(|text| text.contains("the parent has ended")));
}

/// Sends Ctrl-C until the command has ended, and waits until nothing of it is left. Again and again: the command watches
/// signals anew a moment after it has let go of its daemon.
fn end_by_ctrl_c(mut run: std::process::Child, folder: &Path) -> Option<i32> {
    let code = eventually("it ends", || {
        send_signal(run.id(), "INT");
        run.try_wait().expect("it can be asked")
    });
    let left = || bulkhead_tests::daemon::processes_under(folder);
    eventually("all is gone", || left().is_empty().then_some(()));
    code.code()
}

/// Says `bye` twelve seconds after it was asked to end: longer than the ten that a daemon has to stop.
#[test]
fn a_private_daemon_is_not_killed_while_a_long_grace_runs() {
    const SLOW: &str =
        "trap 'sleep 12; echo bye > \"$1\"; exit 7' TERM; echo on > \"$1\"; while :; do sleep 0.02; done";
    let folder = new_folder();
    let mut run = run_alone(folder.path(), &["--grace", "60s"], SLOW, Stdio::null());
    send_signal(run.id(), "INT");
    assert_eq!(run.wait().expect("it ends").code(), Some(130));
    assert_eq!(
        has(&folder.path().join("words"), "bye\n"),
        Some(()),
        "the trap has run when the command leaves"
    );
}

#[test]
fn a_second_ctrl_c_ends_a_long_grace() {
    let folder = new_folder();
    let run = run_alone(folder.path(), &["--grace", "60s"], DEAF, Stdio::null());
    send_signal(run.id(), "INT");
    await_stop_of_own_daemon(folder.path());
    assert_eq!(end_by_ctrl_c(run, folder.path()), Some(130));
}

/// The result of one job cannot be written; the program of the other ignores that it is to end.
#[test]
fn ctrl_c_ends_a_long_grace_after_a_failed_write_too() {
    const ONE_DEAF: &str = "if mkdir \"$1.one\" 2> /dev/null; then until [ -s \"$1\" ]; do sleep 0.02; done; echo x; exit; fi; \
                            trap '' TERM; echo on > \"$1\"; while :; do sleep 0.02; done";
    if std::thread::available_parallelism().is_ok_and(|cores| cores.get() < 2) {
        skip!("on one core two jobs do not run at a time");
    }
    let folder = new_folder();
    let full = std::fs::File::options().write(true).open("/dev/full").expect("it is there");
    let words = ["--unordered", "--count", "2", "--grace", "60s"];
    let run = run_alone(folder.path(), &words, ONE_DEAF, full.into());
    await_stop_of_own_daemon(folder.path());
    assert_eq!(end_by_ctrl_c(run, folder.path()), Some(1));
}

/// ffmpeg writes an mp4, whose index comes last: with ffprobe it is read after Ctrl-C, a cancel of the daemon's client.
#[test]
fn an_mp4_of_a_job_that_ctrl_c_ended_can_be_read() {
    if !Path::new("/usr/bin/ffmpeg").exists() || !Path::new("/usr/bin/ffprobe").exists() {
        skip!("there is no ffmpeg");
    }
    let folder = new_folder();
    let clip = folder.path().join("clip.mp4");
    let mut run = Command::new(binary("bulkhead"))
        .args(["run", "exec", "--grace", "60s", "--", "/usr/bin/ffmpeg", "-v", "error", "-re", "-f", "lavfi"])
        .args(["-i", "testsrc=size=64x64:rate=10", "-flush_packets", "1", "-y"])
        .arg(&clip)
        .env("XDG_RUNTIME_DIR", folder.path())
        .env_remove("BULKHEAD_SOCKET")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the command starts");
    eventually("frames are written", || clip.metadata().is_ok_and(|file| file.len() > 100).then_some(()));
    send_signal(run.id(), "INT");
    assert_eq!(run.wait().expect("it ends").code(), Some(130));
    let words = ["-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0"];
    let read = Command::new("/usr/bin/ffprobe").args(words).arg(&clip).output().expect("ffprobe runs");
    let (code, duration) = said(&read);
    assert!(code == Some(0) && duration.trim().parse::<f64>().is_ok_and(|s| s > 0.0), "{read:?}");
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
