//! Start, stop, and what is left: second daemons, stale sockets, permissions, drain, sudden death.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bulkhead_proto::client::exit;
use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::places;
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::client::view::WorkerState;
use bulkhead_proto::ids::JobId;
use bulkhead_proto::job::OutputMode;
use bulkhead_sys::lock::InstanceLock;
use bulkhead_tests::daemon::{Daemon, Setup, binary, eventually, processes_under, send_signal};
use bulkhead_tests::program_file::copy_program;
use bulkhead_tests::skip;
use bulkhead_tests::wire::{Wire, submit};

const NOTHING: Vec<String> = Vec::new();

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

/// Starts a supervisor where a dead one left its socket, sees it serve, and ends it.
fn take_over(socket: &Path) {
    let mut next: Child = supervisor(socket).stderr(Stdio::null()).spawn().expect("it starts");
    let ping = || {
        Command::new(binary("bulkhead")).arg("--socket").arg(socket).arg("ping").output().expect("it runs")
    };
    eventually("the next daemon serves", || ping().status.success().then_some(()));
    assert_eq!(Wire::connect(socket).run("noop", &["again"]).len(), 1);
    drop(next.stdin.take());
    assert!(next.wait().expect("it ends").success());
}

#[test]
fn a_second_daemon_on_the_same_socket_is_refused_by_name() {
    let daemon = Daemon::start();
    let text = refused(&daemon.socket());
    assert!(text.contains("another daemon") && text.contains(&daemon.pid().to_string()), "{text}");
    assert_eq!(Wire::connect(&daemon.socket()).run("noop", &["on"]).len(), 1);
}

#[test]
fn a_path_that_is_no_socket_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("precious");
    std::fs::write(&path, "data").expect("a file");
    let text = refused(&path);
    assert!(text.contains("precious"), "{text}");
    assert_eq!(std::fs::read_to_string(&path).expect("still there"), "data");
    // Nor is a folder that happens to have the name of a boot folder.
    let (socket, other) = (folder.path().join("s"), folder.path().join("s.boot"));
    std::fs::create_dir(&other).expect("a folder");
    std::fs::set_permissions(&other, PermissionsExt::from_mode(0o755)).expect("permissions");
    std::fs::write(other.join("precious"), "data").expect("a file");
    let text = refused(&socket);
    assert!(text.contains("s.boot"), "{text}");
    assert!(other.join("precious").exists());
}

/// `kill -9` of the supervisor: its workers die with it, and the next one starts over the stale socket.
#[test]
fn a_killed_daemon_leaves_no_worker_and_its_place_can_be_taken() {
    let mut daemon = Daemon::start();
    let mut wire = Wire::connect(&daemon.socket());
    wire.submit("chaos", &["loop"]);
    daemon.await_worker(WorkerState::Busy);
    assert!(processes_under(daemon.folder()).len() >= 3, "supervisor and workers are there");
    daemon.end("KILL");
    eventually("all its processes are gone", || processes_under(daemon.folder()).is_empty().then_some(()));
    assert!(daemon.socket().exists(), "the socket is stale");
    assert_eq!(daemon.cli(&["ping"]).status.code(), Some(i32::from(exit::NO_DAEMON)));
    take_over(&daemon.socket());
    assert_eq!(daemon.leftovers(), NOTHING);
}

/// `run` with a daemon of its own that is killed in the middle: neither daemon nor worker nor folder is left.
#[test]
fn a_killed_run_takes_its_private_daemon_and_its_folder_along() {
    if Path::new(bulkhead_proto::client::places::SYSTEM_SOCKET).exists() {
        skip!("this machine has a system daemon, so no private one would be started");
    }
    let runtime = tempfile::tempdir_in("/tmp").expect("a folder");
    let mut command = Command::new(binary("bulkhead"));
    command
        .args(["run", "sleep", "600000"])
        .env_remove("BULKHEAD_SOCKET")
        .env("XDG_RUNTIME_DIR", runtime.path());
    let mut run = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("it starts");
    let entries =
        || std::fs::read_dir(runtime.path()).expect("it is there").flatten().map(|entry| entry.path());
    let folder = eventually("the private daemon serves", || entries().find(|path| path.join("s").exists()));
    send_signal(run.id(), "KILL");
    run.wait().expect("it ends");
    eventually("the daemon and its workers are gone", || processes_under(&folder).is_empty().then_some(()));
    eventually("its folder is gone", || (!folder.exists()).then_some(()));
    assert_eq!(entries().count(), 0);
}

/// A private daemon needs a pipe that ends with its parent; with anything else it says so, and ends.
#[test]
fn a_private_daemon_without_a_pipe_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("s");
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("a file");
    for stdin in [Stdio::null(), std::fs::File::open(&file).expect("it is there").into()] {
        let output = supervisor(&socket).stdin(stdin).output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains("--private needs a pipe"), "{text}");
        assert!(!socket.exists());
    }
}

/// With few descriptors, outputs and clients share what the workers leave: more outputs than there are descriptors
/// are all made, and nobody is shut out.
#[test]
fn many_outputs_leave_descriptors_for_everybody() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("s");
    let plain = supervisor(&socket);
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 600; exec \"$0\" \"$@\""]).arg(plain.get_program()).args(plain.get_args());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut daemon = command.spawn().expect("it starts");
    let mut ready = [0; 6];
    std::io::Read::read_exact(&mut daemon.stdout.take().expect("a pipe"), &mut ready).expect("it is ready");
    let mut wire = Wire::connect(&socket);
    let mut many = submit("factorial", &["2000"; 400], false);
    many.policy.output = OutputMode::Descriptor;
    let Reply::Accepted { first, count: 400, refused: None } = wire.call(Request::Submit(many)) else {
        panic!("not accepted");
    };
    let last = JobId(first.0 + 399);
    let Reply::Ended(ended) = wire.call(Request::Wait { jobs: vec![last] }) else { panic!("no end") };
    assert_eq!(ended[0].outcome, Outcome::Done);
    assert_eq!(wire.run("noop", &["still here"]).len(), 1);
    assert_eq!(Wire::connect(&socket).run("noop", &["me too"]).len(), 1);
    drop(daemon.stdin.take());
    assert!(daemon.wait().expect("it ends").success());
}

/// Somebody put another socket at the path meanwhile: it is not the daemon's to remove.
#[test]
fn a_socket_that_took_its_place_is_left_alone() {
    let mut daemon = Daemon::start();
    std::fs::remove_file(daemon.socket()).expect("the socket is there");
    let _other = UnixListener::bind(daemon.socket()).expect("a socket");
    assert!(daemon.end("INT").success());
    assert!(daemon.socket().exists(), "it was somebody else's");
}

#[test]
fn a_stale_socket_file_is_taken_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("s");
    drop(UnixListener::bind(&path).expect("a socket"));
    assert!(path.exists());
    take_over(&path);
    assert!(!path.exists());
}

#[test]
fn no_permission_is_said_as_such() {
    let daemon = Daemon::start();
    // The folder lets others in, so that it is the socket itself that refuses; the binary may lie where others
    // cannot look, so they get a copy.
    std::fs::set_permissions(daemon.folder(), PermissionsExt::from_mode(0o755)).expect("permissions");
    let copy = daemon.folder().join("bulkhead");
    copy_program(&binary("bulkhead"), &copy);
    let mut command = Command::new(&copy);
    command.arg("--socket").arg(daemon.socket()).arg("ping").uid(65534).gid(65534);
    let output = match command.output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            skip!("only root can become another user");
        }
        Err(error) => panic!("{error}"),
    };
    let text = String::from_utf8_lossy(&output.stderr).to_lowercase();
    assert_eq!(output.status.code(), Some(i32::from(exit::NO_DAEMON)), "{text}");
    assert!(text.contains("permission"), "{text}");
}

/// TERM: what runs is finished within the grace, new work is refused, then it leaves and leaves nothing.
#[test]
fn term_drains_and_leaves_nothing_behind() {
    let mut daemon = Daemon::start();
    let mut late = Wire::connect(&daemon.socket());
    let mut wire = Wire::connect(&daemon.socket());
    let tag = wire.ask(Request::Submit(submit("sleep", &["1500"], true)));
    daemon.await_worker(WorkerState::Busy);
    send_signal(daemon.pid(), "TERM");
    eventually("it drains", || daemon.log().contains("draining").then_some(()));
    let reply = late.call(Request::Submit(submit("noop", &["late"], false)));
    assert!(matches!(reply, Reply::Refused(Refusal::Draining)), "{reply:?}");
    let mut outcome = None;
    while let Some(frame) = wire.next_reply() {
        if let (true, Reply::Ended(some)) = (frame.tag == tag, frame.reply) {
            outcome = some.into_iter().next().map(|end| end.outcome);
        }
    }
    assert_eq!(outcome, Some(Outcome::Done));
    assert!(daemon.await_end().success());
    assert_eq!(daemon.leftovers(), NOTHING);
}

/// HUP is a terminal that was closed: it drains, unless the daemon was started so that it outlives that.
#[test]
fn hup_drains_unless_it_is_ignored() {
    let through = |words: &[&str]| Setup {
        through: words.iter().map(|word| (*word).to_owned()).collect(),
        ..Setup::default()
    };
    // The tests may run under nohup themselves.
    let mut daemon = Daemon::start_with(&through(&["env", "--default-signal=HUP"]));
    let mut wire = Wire::connect(&daemon.socket());
    let tag = wire.ask(Request::Submit(submit("sleep", &["1000"], true)));
    daemon.await_worker(WorkerState::Busy);
    send_signal(daemon.pid(), "HUP");
    let mut outcome = None;
    while let Some(frame) = wire.next_reply() {
        if let (true, Reply::Ended(some)) = (frame.tag == tag, frame.reply) {
            outcome = some.into_iter().next().map(|end| end.outcome);
        }
    }
    assert_eq!(outcome, Some(Outcome::Done));
    assert!(daemon.await_end().success());
    let mut daemon = Daemon::start_with(&through(&["nohup"]));
    send_signal(daemon.pid(), "HUP");
    assert_eq!(daemon.ok(&["run", "noop", "on"]), "on\n");
    assert!(!daemon.log().contains("draining"), "{}", daemon.log());
    assert!(daemon.end("TERM").success());
}

/// A second TERM ends it at once, and what had not ended is lost: said, not silent.
#[test]
fn a_second_term_stops_at_once_and_says_lost() {
    let mut daemon = Daemon::start();
    let mut wire = Wire::connect(&daemon.socket());
    wire.ask(Request::Submit(submit("sleep", &["600000", "600000", "600000"], true)));
    daemon.await_worker(WorkerState::Busy);
    send_signal(daemon.pid(), "TERM");
    eventually("it drains", || daemon.log().contains("draining").then_some(()));
    send_signal(daemon.pid(), "TERM");
    let mut lost = 0;
    while let Some(frame) = wire.next_reply() {
        if let Reply::Ended(some) = frame.reply {
            assert!(some.iter().all(|end| matches!(end.outcome, Outcome::Lost { .. })), "{some:?}");
            lost += some.len();
        }
    }
    assert_eq!(lost, 3);
    assert!(daemon.await_end().success());
    assert_eq!(daemon.leftovers(), NOTHING);
}

#[test]
fn drain_ends_all_that_was_accepted_then_the_daemon() {
    let mut daemon = Daemon::start();
    let mut wire = Wire::connect(&daemon.socket());
    let tag = wire.ask(Request::Submit(submit("sleep", &["20"; 50], true)));
    assert_eq!(wire.next_reply().expect("accepted").tag, tag);
    let drained = daemon.cli(&["drain"]);
    assert!(drained.status.success(), "{}", String::from_utf8_lossy(&drained.stderr));
    assert!(drained.stdout.ends_with(b"stopped\n"));
    assert!(daemon.await_end().success());
    let mut done = 0;
    while let Some(frame) = wire.next_reply() {
        if let Reply::Ended(some) = frame.reply {
            done += some.iter().filter(|end| end.outcome == Outcome::Done).count();
        }
    }
    assert_eq!(done, 50);
    assert_eq!(daemon.leftovers(), NOTHING);
}

/// A script goes on with the next daemon, or removes the folder: nothing of this one may be in its way. Ten daemons,
/// because the command and the end of the daemon race.
#[test]
fn when_drain_returns_the_next_daemon_can_start() {
    for _ in 0..10 {
        let mut daemon = Daemon::start();
        assert!(daemon.cli(&["drain"]).status.success());
        let lock = InstanceLock::take(&places::lock_file(&daemon.socket()));
        let left = daemon.leftovers();
        assert!(lock.is_ok(), "its lock is held");
        // The process itself may be about to exit.
        let own = format!("{} ", daemon.pid());
        let others: Vec<_> = left.into_iter().filter(|left| !left.starts_with(&own)).collect();
        assert_eq!(others, NOTHING);
        assert!(daemon.await_end().success());
    }
}

#[test]
fn a_drain_that_lost_jobs_says_how_many_and_has_their_code() {
    let mut daemon = Daemon::start();
    daemon.ok(&["submit", "sleep", "--each", "600000", "600000", "600000"]);
    let drained = daemon.cli(&["drain", "--grace", "10ms"]);
    let said = String::from_utf8_lossy(&drained.stdout).into_owned();
    assert_eq!(said, "draining, 3 jobs left\nstopped, 3 jobs lost\n");
    assert_eq!(drained.status.code(), Some(i32::from(exit::LOST)));
    assert!(daemon.await_end().success());
    assert_eq!(daemon.leftovers(), NOTHING);
}

/// The kernel takes connections for a daemon that is stopped: only its silence tells.
#[test]
fn a_ping_waits_no_longer_than_it_is_told() {
    let daemon = Daemon::start();
    let mut held = Wire::connect(&daemon.socket());
    send_signal(daemon.pid(), "STOP");
    let ping = daemon.cli(&["ping", "--timeout", "50ms"]);
    send_signal(daemon.pid(), "CONT");
    let said = String::from_utf8_lossy(&ping.stderr).into_owned();
    assert_eq!(ping.status.code(), Some(i32::from(exit::NO_DAEMON)), "{said}");
    assert!(said.contains("0.05 s"), "{said}");
    assert_eq!(held.run("noop", &["on"]).len(), 1);
    daemon.ok(&["ping"]);
}

#[test]
fn a_config_that_is_wrong_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("bulkhead.toml");
    for (text, named) in [
        ("worker = 3", "worker"),
        ("workers = \"two\"", "workers"),
        ("workers = 0", "workers = 0"),
        ("= 3", "bulkhead.toml"),
        ("backoff_min_ms = 0", "backoff_min_ms = 0"),
        ("backoff_min_ms = 500\nbackoff_max_ms = 400", "backoff_max_ms = 400"),
    ] {
        std::fs::write(&config, text).expect("a file");
        let output =
            supervisor(&folder.path().join("s")).arg("--config").arg(&config).output().expect("it runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        let overridden = text == "workers = 0";
        assert!(overridden || !output.status.success(), "{text}");
        assert!(overridden || stderr.contains(named), "{text}: {stderr}");
    }
}
