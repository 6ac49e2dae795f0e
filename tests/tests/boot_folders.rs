//! What a daemon removes and what is removed under it: cleaners of temporary files, successors, and folders that took the
//! place of its own.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};

use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::places;
use bulkhead_proto::client::view::WorkerState;
use bulkhead_tests::daemon::{Daemon, Setup, binary, eventually, new_folder, processes_under, send_signal};
use bulkhead_tests::program_file::{copy_program, write_program};
use bulkhead_tests::shortage::possible;
use bulkhead_tests::wire::Wire;
use bulkhead_tests::{or_skip, skip};

const NOTHING: Vec<String> = Vec::new();
const USER: u32 = 61807;
const BECOME_USER: [&str; 4] = ["setpriv", "--clear-groups", "--reuid=61807", "--regid=61807"];

/// A private supervisor on this socket, with its state beside it.
fn supervisor(socket: &Path) -> Command {
    let mut command = Command::new(binary("bulkhead-supervisor"));
    command.args(["--private", "--workers", "1", "--socket"]).arg(socket);
    command.arg("--state").arg(socket.with_extension("state")).stdin(Stdio::piped()).stdout(Stdio::null());
    command
}

/// What a supervisor that must not come up says.
fn refused(socket: &Path) -> String {
    let output = supervisor(socket).output().expect("it runs");
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A daemon of this test's user, or of one without privileges.
fn daemon_of(is_user: bool) -> Daemon {
    let folder = new_folder();
    if !is_user {
        return Daemon::start_in(folder, &Setup::default());
    }
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).expect("permissions");
    for name in ["bulkhead-supervisor", "bulkhead-worker"] {
        copy_program(&binary(name), &folder.path().join(name));
    }
    chown(folder.path(), Some(USER), Some(USER)).expect("root gives it away");
    let through = BECOME_USER.map(str::to_owned).to_vec();
    let programs = folder.path().to_owned();
    Daemon::start_in(folder, &Setup { through, programs, ..Setup::default() })
}

/// Whether flock(1) finds the folder locked.
fn is_locked(folder: &Path) -> bool {
    let taken = Command::new("flock").arg("--nonblock").arg(folder).arg("true").status();
    !taken.expect("flock runs, it is part of util-linux").success()
}

/// A cleaner of temporary files took the boot folder away: new workers still come up.
#[test]
fn a_boot_folder_that_was_removed_is_made_again() {
    let daemon = Daemon::start();
    daemon.await_worker(WorkerState::Spare);
    std::fs::remove_dir_all(places::boot_folder(&daemon.socket())).expect("it is there");
    let mut wire = Wire::connect(&daemon.socket());
    let ended = wire.run("chaos", &["abort"]).remove(0);
    assert!(matches!(ended.outcome, Outcome::Crashed { crashes: 3, .. }), "{ended:?}");
    assert_eq!(wire.run("noop", &["on"])[0].outcome, Outcome::Done);
    assert!(daemon.events_named("spawn-failed").is_empty());
}

/// A cleaner of temporary files, while workers are idle: the programs of the same workers find a folder again, and the
/// folder of all workers stays locked to the end.
fn outlives_cleaners(is_user: bool) {
    let mut daemon = daemon_of(is_user);
    daemon.await_worker(WorkerState::Spare);
    let workers = || -> Vec<u64> { daemon.workers().iter().map(|row| row.worker.0).collect() };
    let before = workers();
    let boot = places::boot_folder(&daemon.socket());
    assert!(is_locked(&boot));
    for cleaner in ["find \"$0\" -mindepth 1 -delete", "rm -rf \"$0\"", "find \"$0\" -delete"] {
        let cleaned = Command::new("sh").args(["-c", cleaner]).arg(&boot).status().expect("it runs");
        assert!(cleaned.success(), "{cleaner}");
        for _ in 0..4 {
            let said = daemon.ok(&["run", "exec", "--", "sh", "-c", "touch here; ls"]);
            assert_eq!(said, "here\n", "{cleaner}");
            assert!(is_locked(&boot), "{cleaner}");
        }
    }
    let after = workers();
    assert!(
        before.iter().all(|worker| after.contains(worker)),
        "no worker had to be replaced: {before:?} {after:?}"
    );
    // The worker that made it again holds the lock: after its death the daemon does.
    for row in daemon.workers() {
        send_signal(row.pid.expect("it is up"), "KILL");
    }
    eventually("all are replaced", || {
        let rows = daemon.workers();
        let is_new = |pid: Option<u32>| pid.is_some();
        (rows.len() == 3 && rows.iter().all(|row| is_new(row.pid) && !before.contains(&row.worker.0)))
            .then_some(())
    });
    assert!(is_locked(&boot));
    if !is_user {
        for path in [daemon.socket(), places::lock_file(&daemon.socket())] {
            fs::remove_file(path).expect("it is there");
        }
        let text = refused(&daemon.socket());
        assert!(text.contains("s.boot") && text.contains("uses the boot folder"), "{text}");
    }
    assert!(daemon.end("INT").success());
    assert_eq!(daemon.leftovers(), NOTHING);
}

#[test]
fn programs_run_after_a_cleaner_took_the_folders_away() {
    outlives_cleaners(false);
}

#[test]
fn programs_of_an_unprivileged_user_run_after_a_cleaner_took_the_folders_away() {
    or_skip!(possible(&[&BECOME_USER[..], &["true"]].concat()));
    outlives_cleaners(true);
}

/// While a worker of the first daemon holds the folder that it made again, a second one is refused.
#[test]
fn a_folder_that_a_worker_made_again_keeps_a_second_daemon_out() {
    let mut daemon = Daemon::start();
    daemon.await_worker(WorkerState::Spare);
    let boot = places::boot_folder(&daemon.socket());
    fs::remove_dir_all(&boot).expect("it is there");
    daemon.ok(&["run", "exec", "--", "true"]);
    for path in [daemon.socket(), places::lock_file(&daemon.socket())] {
        fs::remove_file(path).expect("it is there");
    }
    let text = refused(&daemon.socket());
    assert!(text.contains("uses the boot folder"), "{text}");
    assert!(daemon.end("INT").success());
    assert_eq!(daemon.leftovers(), NOTHING);
}

/// The cleaner comes while a worker starts, before it opens its task channel.
#[test]
fn a_worker_comes_up_whose_folder_was_removed_before_it_looked() {
    for cleaner in ["rm -rf \"$BULKHEAD_BOOT_FOLDER\"", "rm -rf \"${BULKHEAD_BOOT_FOLDER%/*}\""] {
        let folder = new_folder();
        let program = folder.path().join("worker");
        let worker = binary("bulkhead-worker");
        write_program(&program, &format!("#!/bin/sh\n{cleaner}\nexec {}\n", worker.display()), 0o755);
        let config = format!("worker_program = {program:?}\n");
        let mut daemon = Daemon::start_in(folder, &Setup { config, ..Setup::default() });
        daemon.await_worker(WorkerState::Spare);
        assert_eq!(daemon.ok(&["run", "exec", "--", "sh", "-c", "touch here; ls"]), "here\n", "{cleaner}");
        assert!(is_locked(&places::boot_folder(&daemon.socket())), "{cleaner}");
        assert!(daemon.end("INT").success());
        assert_eq!(daemon.leftovers(), NOTHING, "{cleaner}");
    }
}

/// What a worker leaves in its folder, closed to its own user: it is removed with the worker, also without privileges.
#[test]
fn a_folder_that_its_worker_closed_goes_with_it() {
    or_skip!(possible(&[&BECOME_USER[..], &["true"]].concat()));
    const CLOSE: &str = "W=${HOME%/*}; mkdir -p $W/locked/inner; touch $W/locked/inner/f; ln -s / $W/locked/link; \
                         chmod 000 $W/locked/inner $W/locked $W; kill -KILL $PPID";
    for is_user in [false, true] {
        let mut daemon = daemon_of(is_user);
        let output = daemon.cli(&["run", "exec", "--", "sh", "-c", CLOSE]);
        assert!(!output.status.success());
        let boot = places::boot_folder(&daemon.socket());
        daemon.await_worker(WorkerState::Spare);
        eventually("only the living have folders", || {
            (fs::read_dir(&boot).expect("it is there").count() == daemon.workers().len()).then_some(())
        });
        assert!(!daemon.log().contains("cannot remove"), "{}", daemon.log());
        assert!(daemon.end("INT").success());
        assert_eq!(daemon.leftovers(), NOTHING);
    }
}

/// connect(2) fails, but not as at a path where nobody listens: a process may listen there.
#[test]
fn a_daemon_does_not_take_a_socket_of_another_type() {
    let folder = new_folder();
    let path = folder.path().join("s");
    let _other = UnixDatagram::bind(&path).expect("a socket");
    let text = refused(&path);
    assert!(text.contains("cannot find out whether a process listens on"), "{text}");
    assert!(path.exists());
}

/// A private daemon's folder was moved away, and another took its place: that one stays, whether the command or the daemon
/// cleans up.
#[test]
fn what_took_the_place_of_a_private_daemons_folder_stays() {
    if Path::new(places::SYSTEM_SOCKET).exists() {
        skip!("this machine has a system daemon, so no private one would be started");
    }
    const MOVE: &str =
        "F=${HOME%/*/*/*}; cd /; mv $F $F.moved; mkdir -m 700 $F; touch $F/precious; echo $F; ";
    for then in ["exit 0", "kill -KILL $RUN; sleep 600"] {
        let runtime = tempfile::tempdir_in("/tmp").expect("a folder");
        let script =
            format!("echo $$ > {}/pid; exec \"$0\" run exec -- sh -c \"$1\"", runtime.path().display());
        let program = format!("RUN=$(cat {}/pid); {MOVE}{then}", runtime.path().display());
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).arg(binary("bulkhead")).arg(program);
        command.env_remove("BULKHEAD_SOCKET").env("XDG_RUNTIME_DIR", runtime.path()).stdin(Stdio::null());
        let output = command.output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.success(), then == "exit 0", "{text}");
        eventually("all its processes are gone", || processes_under(runtime.path()).is_empty().then_some(()));
        let kept = fs::read_dir(runtime.path()).expect("a folder").flatten();
        let kept = kept.filter(|entry| entry.path().join("precious").exists()).count();
        assert_eq!(kept, 1, "{then}: {text}");
    }
}

/// Socket, lock file and boot folder were removed under a daemon, and a successor has taken the place: the end of the
/// older one takes nothing of the successor's away.
#[test]
fn the_end_of_a_daemon_takes_nothing_of_its_successors_away() {
    let mut old = Daemon::start();
    let boot = places::boot_folder(&old.socket());
    let mut wire = Wire::connect(&old.socket());
    for path in [old.socket(), places::lock_file(&old.socket())] {
        std::fs::remove_file(path).expect("it is there");
    }
    // While the boot folder is there, its lock tells of the older daemon.
    let text = refused(&old.socket());
    assert!(text.contains("s.boot") && text.contains(&format!("(pid {})", old.pid())), "{text}");
    std::fs::remove_dir_all(&boot).expect("it is there");
    let mut next = supervisor(&old.socket()).stderr(Stdio::null()).spawn().expect("it starts");
    let ask = |words: &[&str]| {
        let mut command = Command::new(binary("bulkhead"));
        command.arg("--socket").arg(old.socket()).args(words).output().expect("it runs")
    };
    eventually("the successor serves", || ask(&["ping"]).status.success().then_some(()));
    // A worker of the older daemon dies, so that it needs a folder where the successor's are.
    wire.run("chaos", &["abort"]);
    assert_eq!(wire.run("noop", &["on"])[0].outcome, Outcome::Done);
    drop(wire);
    assert_eq!(ask(&["run", "exec", "--", "pwd"]).status.code(), Some(0));
    send_signal(old.pid(), "INT");
    let folders = || std::fs::read_dir(&boot).expect("the successor's").count();
    let socket = old.socket();
    assert!(old.await_end().success());
    assert!(socket.exists() && boot.exists() && folders() > 0, "the successor's");
    let ran = Command::new(binary("bulkhead"))
        .arg("--socket")
        .arg(&socket)
        .args(["run", "exec", "--", "pwd"])
        .output();
    assert_eq!(ran.expect("it runs").status.code(), Some(0));
    drop(next.stdin.take());
    assert!(next.wait().expect("it ends").success());
    assert_eq!(old.leftovers(), NOTHING);
}
