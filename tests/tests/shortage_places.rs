//! The places of a daemon are full, read-only or gone, its log is not read, its budgets are used up: what runs goes on,
//! and what cannot be done is said with the place and the limit.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::places;
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_tests::daemon::{Daemon, Setup, binary, eventually, new_folder};
use bulkhead_tests::or_skip;
use bulkhead_tests::shortage::{Witness, possible};
use bulkhead_tests::wire::{Wire, submit};

/// By its Linux number.
const O_NONBLOCK: i32 = 0o4000;

const TRY_MOUNT: [&str; 7] = ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"];

/// A daemon with mounts of its own, which go with it.
fn daemon_with_mounts() -> Daemon {
    let through = vec!["unshare".to_owned(), "--mount".to_owned()];
    Daemon::start_with(&Setup { through, ..Setup::default() })
}

/// Runs a command where only the daemon's mounts are seen.
fn inside(daemon: &Daemon, command: &[&str]) {
    let mut nsenter = Command::new("nsenter");
    nsenter.arg(format!("--target={}", daemon.pid())).arg("--mount").args(command);
    assert!(nsenter.status().expect("nsenter runs").success(), "{command:?} failed");
}

/// Whatever is wrong with the folder in which workers come up, and what is said of it.
const FOLDERS: [(&str, &str); 4] = [
    // Room for the folder itself; for a worker's folder; for the one below too; for nothing but reading.
    ("mode=700,nr_inodes=1", "No space left on device (os error 28); the file system is full"),
    ("mode=700,nr_inodes=2", "cannot open the task channel: No space left on device"),
    ("mode=700,nr_inodes=3", "cannot open the task channel: No space left on device"),
    ("mode=700,ro", "Read-only file system (os error 30); the file system is read-only"),
];

#[test]
fn a_folder_that_is_full_or_read_only_stops_no_running_job_and_is_named() {
    or_skip!(possible(&TRY_MOUNT));
    for (options, said) in FOLDERS {
        println!("mounted with {options}");
        let daemon = daemon_with_mounts();
        let mut witness = Witness::begin(&daemon);
        let boot = places::boot_folder(&daemon.socket());
        let boot = boot.to_str().expect("a plain path");
        inside(&daemon, &["mount", "-t", "tmpfs", "-o", options, "tmpfs", boot]);
        witness.kill_the_others();
        let reason = witness.await_degraded(&[said]);
        assert!(said.starts_with("cannot open") || reason.contains(boot), "{reason}");
        witness.assert_job_runs();
        witness.assert_no_storm();
        inside(&daemon, &["umount", boot]);
        witness.await_recovery();
    }
}

/// Somebody removed the whole folder: who is connected goes on, and workers still come up.
#[test]
fn a_folder_that_was_removed_is_made_again_for_the_workers() {
    let folder = new_folder();
    let deep = folder.path().join("run");
    std::fs::create_dir(&deep).expect("a folder");
    let mut child =
        supervisor(&deep.join("s"), folder.path()).stderr(Stdio::null()).spawn().expect("it starts");
    let mut ready = [0; 6];
    std::io::Read::read_exact(&mut child.stdout.take().expect("a pipe"), &mut ready).expect("it is ready");
    let mut wire = Wire::connect(&deep.join("s"));
    eventually("a spare is there", || (wire.status().spares == 1).then_some(()));
    std::fs::remove_dir_all(&deep).expect("it is there");
    let ended = wire.run("chaos", &["abort"]).remove(0);
    assert!(matches!(ended.outcome, Outcome::Crashed { crashes: 3, .. }), "{ended:?}");
    assert_eq!(wire.run("noop", &["on"])[0].outcome, Outcome::Done);
    drop(child.stdin.take());
    assert!(child.wait().expect("it ends").success());
}

/// A private supervisor on this socket.
fn supervisor(socket: &Path, state: &Path) -> Command {
    let mut command = Command::new(binary("bulkhead-supervisor"));
    command.args(["--private", "--enable-chaos", "--workers", "1", "--socket"]).arg(socket);
    command.arg("--state").arg(state.join("state")).stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

#[test]
fn a_place_that_is_full_at_the_start_is_named() {
    or_skip!(possible(&TRY_MOUNT));
    let folder = new_folder();
    let (full, state) = (folder.path().join("full"), folder.path().join("state"));
    std::fs::create_dir(&full).expect("a folder");
    for (socket, state, said) in
        [(full.join("s"), state, "s.lock"), (folder.path().join("s"), full.join("x"), "full/x")]
    {
        let plain = supervisor(&socket, &state);
        let script = "mount -t tmpfs -o nr_inodes=1 tmpfs \"$0\" && exec \"$@\"";
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", script])
            .arg(&full)
            .arg(plain.get_program())
            .args(plain.get_args());
        let output = command.stdin(Stdio::piped()).output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(said), "{text}");
        assert!(text.contains("No space left on device (os error 28); the file system is full"), "{text}");
    }
}

/// The lock file was removed under a running daemon: a second one is refused all the same, and takes nothing away.
#[test]
fn a_removed_lock_file_lets_no_second_daemon_in() {
    let daemon = Daemon::start();
    std::fs::remove_file(places::lock_file(&daemon.socket())).expect("it is there");
    let output = supervisor(&daemon.socket(), daemon.folder()).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("lock file was removed"), "{text}");
    assert!(text.contains(&daemon.pid().to_string()), "{text}");
    assert_eq!(
        Wire::connect(&daemon.socket()).run("chaos", &["abort"]).len(),
        1,
        "its folders are there still"
    );
}

/// Starts a daemon that logs much, into a pipe that `look` holds the other end of; gives what `look` keeps open.
fn log_into_pipe(look: impl FnOnce(File) -> Option<File>) {
    let folder = new_folder();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    let both = File::options().read(true).write(true).open(&pipe).expect("a pipe");
    let script = format!("BULKHEAD_LOG=debug; export BULKHEAD_LOG; exec \"$0\" \"$@\" 2>{}", pipe.display());
    let through = vec!["sh".to_owned(), "-c".to_owned(), script];
    let daemon = Daemon::start_in(folder, &Setup { through, ..Setup::default() });
    let held = look(both);
    let mut wire = Wire::connect(&daemon.socket());
    for _ in 0..2000 {
        wire.submit("noop", &["a line in the log"]);
    }
    let ended = wire.run("chaos", &["abort"]).remove(0);
    assert!(matches!(ended.outcome, Outcome::Crashed { .. }), "{ended:?}");
    assert_eq!(wire.run("noop", &["on"])[0].outcome, Outcome::Done);
    drop(daemon);
    drop(held);
}

#[test]
fn a_log_that_nobody_reads_stops_nothing() {
    log_into_pipe(|both| {
        fill(&both);
        Some(both)
    });
}

/// Fills a pipe to its last byte, so that not even the shortest line fits.
fn fill(pipe: &File) {
    let own = format!("/proc/self/fd/{}", pipe.as_raw_fd());
    let mut writer =
        File::options().write(true).custom_flags(O_NONBLOCK).open(own).expect("a second descriptor of it");
    for bytes in [4096, 1] {
        while writer.write(&vec![b'x'; bytes]).is_ok() {}
    }
}

#[test]
fn a_log_whose_reader_is_gone_stops_nothing() {
    log_into_pipe(|both| {
        drop(both);
        None
    });
}

#[test]
fn a_full_queue_of_bytes_is_refused_by_name_and_takes_jobs_again() {
    let config = "queue_bytes_max = 4096".to_owned();
    let daemon = Daemon::start_with(&Setup { workers: 1, config, ..Setup::default() });
    let mut witness = Witness::begin(&daemon);
    let long = "x".repeat(3000);
    let first = witness.wire.submit("noop", &[&long]);
    match witness.wire.call(Request::Submit(submit("noop", &[&long], false))) {
        Reply::Refused(refusal @ Refusal::Busy { limit: 4096, .. }) => {
            assert!(
                refusal.to_string().contains("bytes of queued inputs (limit 4096, set by queue_bytes_max)"),
                "{refusal}"
            );
        }
        other => panic!("not refused: {other:?}"),
    }
    witness.assert_job_runs();
    witness.end_job();
    witness.wire.call(Request::Wait { jobs: vec![first] });
    witness.wire.submit("noop", &[&long]);
}

#[test]
fn results_beyond_their_budget_go_oldest_first_and_that_is_said() {
    let config = "keep_bytes_max = 1000".to_owned();
    let daemon = Daemon::start_with(&Setup { config, ..Setup::default() });
    let mut wire = Wire::connect(&daemon.socket());
    let long = "x".repeat(600);
    let jobs: Vec<_> = (0..3)
        .map(|_| {
            let job = wire.submit("noop", &[&long]);
            wire.call(Request::Wait { jobs: vec![job] });
            job
        })
        .collect();
    let gone = wire.call(Request::Result { job: jobs[0] });
    assert!(matches!(gone, Reply::Refused(Refusal::Gone { .. })), "{gone:?}");
    assert!(matches!(wire.call(Request::Result { job: jobs[2] }), Reply::Ended(_)));
    let says =
        |what: &What| matches!(what, What::Evicted { limit, .. } if limit.contains("bytes of kept results"));
    assert!(wire.records().iter().any(|record| says(&record.what)));
    assert!(wire.status().totals.evicted >= 1);
}
