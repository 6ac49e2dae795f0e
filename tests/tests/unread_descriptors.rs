//! A client that reads nothing of what it is sent in descriptors: the kernel counts these for the daemon's user, and at
//! the limit nobody would get one any more, workers neither.
//!
//! Root has no such limit, so the daemon is an ordinary user's, with few descriptors. What lies unread is counted at the
//! client's end, by the kernel. Each connection, each user and all users have a bound, and beside them outputs, files and
//! restarts of workers go on; what ended unread is counted still.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use std::fs::File;
use std::io::Read;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};
use std::process::Stdio;

use bulkhead_proto::client::frame::Hello;
use bulkhead_proto::client::message::{Reply, Request, Submit};
use bulkhead_proto::client::outcome::{JobOutput, Outcome};
use bulkhead_proto::client::view::WorkerState;
use bulkhead_proto::file::{FileUse, Way};
use bulkhead_proto::job::{OutputMode, Policy};
use bulkhead_sys::hostile_peer::{self, SendMode};
use bulkhead_tests::daemon::{Daemon, eventually, send_signal};
use bulkhead_tests::or_skip;
use bulkhead_tests::ordinary_user::OrdinaryUser;
use bulkhead_tests::other_users::{ALICE, BOB, GROUP, connect_as, system_config};
use bulkhead_tests::raid::frame;
use bulkhead_tests::wire::{Wire, submit};

/// The daemon's limit of open files, and the connections that it has.
const LIMIT: usize = 1024;
const CLIENTS: usize = 64;
/// Most that may lie unread on one connection, at one user, and at all but those who have little.
const EACH_MAX: usize = 16;
const USER_MAX: usize = 336;
const ALL_MAX: usize = 448;
/// How many connections ask for how many results each: more than that, and not more than the daemon can have open.
const CONNECTIONS: usize = 30;
const JOBS: usize = 18;

fn daemon_of(user: &OrdinaryUser) -> Daemon {
    let config = system_config(&format!("clients_max = {CLIENTS}\n"));
    user.daemon(&config, &[&format!("--nofile={LIMIT}:{LIMIT}")])
}

/// So many attached jobs whose results come in descriptors.
fn large(count: usize) -> Submit {
    let policy = Policy { output: OutputMode::Descriptor, ..Policy::default() };
    Submit { policy, ..submit("factorial", &vec!["3000"; count], true) }
}

/// How many descriptors lie in the queue of this end.
fn unread(wire: &Wire) -> usize {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", wire.socket.as_raw_fd())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("scm_fds:")).unwrap_or("0");
    line.trim().parse().unwrap()
}

/// Whether the kernel tells how many descriptors lie in a queue.
fn can_be_counted() -> Result<(), &'static str> {
    let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", ours.as_raw_fd())).unwrap();
    if text.contains("scm_fds:") {
        Ok(())
    } else {
        Err("this kernel does not count the descriptors of a queue")
    }
}

fn sum(wires: &[Wire]) -> usize {
    wires.iter().map(unread).sum()
}

/// Waits until all jobs have ended and so many descriptors at least have come.
fn settle(daemon: &Daemon, wires: &[Wire], least: usize) {
    let mut root = Wire::connect(&daemon.socket());
    eventually("all jobs have ended", || {
        let status = root.status();
        (status.running + status.queued == 0).then_some(())
    });
    eventually("as many descriptors come as may", || (sum(wires) >= least).then_some(()));
    assert!(matches!(root.call(Request::Ping), Reply::Pong { .. }));
}

/// A neighbour's outputs and files go on, several times, and workers come up again.
fn assert_goes_on(daemon: &Daemon) {
    assert_tasks_go_on(daemon);
    assert_workers_come_back(daemon);
}

fn assert_tasks_go_on(daemon: &Daemon) {
    let mut bob = connect_as(daemon, BOB).welcome();
    for _ in 0..10 {
        let ended = bob.run_submit(large(1));
        assert!(matches!(ended[0].output, JobOutput::Descriptor { .. }), "{ended:?}");
        let one = Submit {
            files: vec![FileUse { name: "f".into(), way: Way::In }],
            ..submit("noop", &["x"], true)
        };
        let null = File::open("/dev/null").unwrap();
        let bytes = frame(77, Request::Submit(one));
        hostile_peer::send(bob.socket.as_fd(), &bytes, &[null.as_fd()], SendMode::Plain).unwrap();
        assert!(matches!(bob.next_reply().unwrap().reply, Reply::Accepted { refused: None, .. }));
        let Reply::Ended(ended) = bob.next_reply().unwrap().reply else { panic!("no end") };
        assert_eq!(ended[0].outcome, Outcome::Done);
    }
}

/// Fewer than make the pool count as degraded, however often it is called.
fn assert_workers_come_back(daemon: &Daemon) {
    let mut root = Wire::connect(&daemon.socket());
    for _ in 0..2 {
        let victim = eventually("a worker is idle", || {
            root.workers().into_iter().find(|row| row.state == WorkerState::Idle)
        });
        send_signal(victim.pid.unwrap(), "KILL");
        eventually("another worker has come in its place", || {
            let rows = root.workers();
            let is_gone = rows.iter().all(|row| row.worker != victim.worker);
            let up = rows.iter().filter(|row| row.state == WorkerState::Idle).count();
            (is_gone && up == 2).then_some(())
        });
        assert_eq!(root.run("noop", &["x"])[0].outcome, Outcome::Done);
    }
}

/// Sockets that the daemon has open: those of clients, and those of its workers, of which there are always as many.
fn sockets(daemon: &Daemon) -> usize {
    let open = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().flatten();
    let target = |entry: std::fs::DirEntry| std::fs::read_link(entry.path()).unwrap_or_default();
    open.map(target).filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

/// The same once this client is the only one, and all workers are up.
fn sockets_beside(root: &mut Wire, daemon: &Daemon) -> usize {
    daemon.await_worker(WorkerState::Spare);
    eventually("the others have left", || (root.status().clients == 1).then_some(()));
    sockets(daemon)
}

fn verdict(daemon: &Daemon, uid: u32) -> u32 {
    let mut wire = connect_as(daemon, uid);
    drop(std::io::Write::write_all(&mut wire.socket, &Hello::new(0).to_bytes()));
    wire.hello().verdict
}

/// One user asks for more results on more connections than may lie unread, and reads nothing.
fn flood(daemon: &Daemon) -> Vec<Wire> {
    let mut wires: Vec<_> = (0..CONNECTIONS).map(|_| connect_as(daemon, ALICE).welcome()).collect();
    for wire in &mut wires {
        wire.ask(Request::Submit(large(JOBS)));
    }
    settle(daemon, &wires, USER_MAX);
    wires
}

#[test]
fn what_lies_unread_is_bounded_and_neighbours_go_on() {
    or_skip!(can_be_counted());
    let user = or_skip!(OrdinaryUser::in_group(60_161, GROUP));
    let daemon = daemon_of(&user);
    assert_tasks_go_on(&daemon);
    let mut root = Wire::connect(&daemon.socket());
    let before = sockets_beside(&mut root, &daemon);
    for _ in 0..3 {
        let wires = flood(&daemon);
        assert!(wires.iter().all(|wire| unread(wire) <= EACH_MAX));
        assert_eq!(sum(&wires), USER_MAX, "her share is used, and no more");
        assert_goes_on(&daemon);
        drop(wires);
        assert_tasks_go_on(&daemon);
        eventually("all of her is closed", || (sockets_beside(&mut root, &daemon) == before).then_some(()));
    }
    assert!(!daemon.log().contains("did not start"), "no worker lacked a descriptor");
}

/// All users together have a bound as well, and a newcomer has something on top of it.
#[test]
fn several_users_who_read_nothing_leave_room_for_others() {
    or_skip!(can_be_counted());
    let user = or_skip!(OrdinaryUser::in_group(60_162, GROUP));
    let daemon = daemon_of(&user);
    let mut wires = flood(&daemon);
    for uid in [60_003, 60_004] {
        let more = (0..6).map(|_| connect_as(&daemon, uid).welcome());
        wires.extend(more);
    }
    for wire in wires.iter_mut().rev().take(12) {
        wire.ask(Request::Submit(large(JOBS)));
    }
    settle(&daemon, &wires, ALL_MAX);
    let together = sum(&wires);
    assert!((ALL_MAX..=LIMIT / 2).contains(&together), "{together} lie unread");
    assert_goes_on(&daemon);
}

/// More outputs than the daemon may have open: what lies unread in sockets, and what waits to be sent.
#[test]
fn outputs_that_one_user_does_not_read_leave_some_for_others() {
    const ROUNDS: usize = 45;
    let user = or_skip!(OrdinaryUser::in_group(60_167, GROUP));
    let daemon = daemon_of(&user);
    let mut wires: Vec<_> = (0..ROUNDS).map(|_| connect_as(&daemon, ALICE).welcome()).collect();
    for wire in &mut wires {
        wire.ask(Request::Submit(large(JOBS)));
    }
    let mut root = Wire::connect(&daemon.socket());
    let held = eventually("her share of open outputs is used", || {
        let accounts = root.status().accounts;
        let alice = accounts.iter().filter(|account| account.uid == Some(ALICE));
        let mut holds = alice.flat_map(|account| account.holds.clone());
        holds.find(|row| row.resource == "open outputs and logs" && Some(row.held) == row.share)
    });
    assert!(held.bound > held.share, "{held:?}");
    assert_eq!(held.key.as_deref(), Some("RLIMIT_NOFILE"));
    assert_goes_on(&daemon);
    assert!(root.status().queued > 0, "her jobs wait");
    assert_eq!(root.status().shortage, "", "no output could not be made");
    std::thread::scope(|scope| {
        for mut wire in wires {
            scope.spawn(move || take_results(&mut wire, JOBS));
        }
    });
}

/// Takes so many results, and what comes before them.
fn take_results(wire: &mut Wire, count: usize) {
    let mut ended = Vec::new();
    while ended.len() < count {
        match wire.next_reply().expect("the daemon goes on").reply {
            Reply::Ended(some) => ended.extend(some),
            Reply::Accepted { refused: None, .. } => {}
            other => panic!("unexpected reply: {other:?}"),
        }
    }
    assert!(ended.iter().all(|end| end.outcome == Outcome::Done));
}

/// The results come all, and in order, as soon as they are read.
#[test]
fn who_reads_again_gets_everything() {
    let user = or_skip!(OrdinaryUser::in_group(60_163, GROUP));
    let daemon = daemon_of(&user);
    let wires = flood(&daemon);
    std::thread::scope(|scope| {
        for mut wire in wires {
            scope.spawn(move || {
                take_results(&mut wire, JOBS);
                assert!(matches!(wire.call(Request::Ping), Reply::Pong { .. }), "and what is behind it");
            });
        }
    });
    assert_goes_on(&daemon);
}

/// Nothing else is asked of the connection that reads, so the kernel alone says that it has read.
#[test]
fn what_one_connection_reads_makes_room_for_another() {
    or_skip!(can_be_counted());
    let user = or_skip!(OrdinaryUser::in_group(60_166, GROUP));
    let daemon = daemon_of(&user);
    let mut wires: Vec<_> = (0..USER_MAX / EACH_MAX).map(|_| connect_as(&daemon, ALICE).welcome()).collect();
    for wire in &mut wires {
        wire.ask(Request::Submit(large(EACH_MAX)));
    }
    settle(&daemon, &wires, USER_MAX);
    let mut waits = [connect_as(&daemon, ALICE).welcome()];
    waits[0].ask(Request::Submit(large(1)));
    settle(&daemon, &waits, 0);
    assert_eq!(sum(&waits), 0, "her share is used");
    take_results(&mut wires[0], EACH_MAX);
    take_results(&mut waits[0], 1);
}

#[test]
fn a_connection_that_ended_unread_is_one_still() {
    or_skip!(can_be_counted());
    let user = or_skip!(OrdinaryUser::in_group(60_164, GROUP));
    let daemon = daemon_of(&user);
    let mut root = Wire::connect(&daemon.socket());
    let before = sockets_beside(&mut root, &daemon);
    let mut wires = flood(&daemon);
    let mut ended = wires.split_off(CONNECTIONS / 2);
    assert!(ended.iter().all(|wire| unread(wire) > 0), "each was sent something");
    let together = sum(&wires) + sum(&ended);
    let seats = CLIENTS - CLIENTS / 4;
    let idle: Vec<_> = (CONNECTIONS..seats).map(|_| connect_as(&daemon, ALICE).welcome()).collect();
    let clients = root.status().clients as usize;
    for wire in &ended {
        wire.socket.shutdown(Shutdown::Write).unwrap();
    }
    eventually("the daemon has heard their end", || {
        (root.status().clients as usize == clients - ended.len()).then_some(())
    });
    assert_eq!(verdict(&daemon, ALICE), Hello::BUSY, "they are hers still");
    assert_eq!(sum(&wires) + sum(&ended), together, "and what they were sent counts as hers");
    assert_goes_on(&daemon);
    // What was sent is there to be read, and then the end.
    let mut read = ended.pop().unwrap();
    read.socket.read_to_end(&mut Vec::new()).unwrap();
    eventually("her seat is free again", || (verdict(&daemon, ALICE) == Hello::WELCOME).then_some(()));
    drop((wires, ended, idle, read));
    eventually("all of her is closed", || (sockets_beside(&mut root, &daemon) == before).then_some(()));
    assert_goes_on(&daemon);
}

/// What jobs have in flight counts for the same user, and the daemon cannot forbid it: it says so, and recovers.
#[test]
fn a_worker_that_cannot_start_for_descriptors_in_flight_is_told_as_that() {
    let user = or_skip!(OrdinaryUser::in_group(60_165, GROUP));
    let daemon = daemon_of(&user);
    let mut root = Wire::connect(&daemon.socket());
    assert_eq!(root.run("noop", &["x"])[0].outcome, Outcome::Done);
    let mut filler = user.command("fill-queues", daemon.folder(), &[&(LIMIT + 64).to_string()]);
    let mut filler = filler.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = [0; 5];
    filler.stdout.take().unwrap().read_exact(&mut line).unwrap();
    assert_eq!(&line, b"full\n");
    let victim = daemon.await_worker(WorkerState::Idle);
    send_signal(victim.pid.unwrap(), "KILL");
    let told = eventually("a worker does not start", || {
        daemon.events_named("spawn-failed").first().map(ToString::to_string)
    });
    for part in ["user 60165 has sent", &format!("open files, {LIMIT}"), "LimitNOFILE"] {
        assert!(told.contains(part), "{part:?} is missing: {told}");
    }
    drop(filler.stdin.take());
    assert!(filler.wait().unwrap().success());
    eventually("all workers are there again", || {
        let rows = root.workers();
        (rows.iter().filter(|row| row.state == WorkerState::Idle).count() == 2).then_some(())
    });
    assert_eq!(root.run("noop", &["x"])[0].outcome, Outcome::Done);
}

/// An output for which a task asks travels to its worker: without room for it the task fails and says why, and its worker goes on.
#[test]
fn a_task_that_asks_for_an_output_is_told_of_descriptors_in_flight() {
    let user = or_skip!(OrdinaryUser::in_group(60_169, GROUP));
    let daemon = daemon_of(&user);
    let mut root = Wire::connect(&daemon.socket());
    let pids = || daemon.workers().iter().map(|row| row.pid).collect::<Vec<_>>();
    let mut run = || {
        let policy = Policy { output: OutputMode::Auto, ..Policy::default() };
        root.run_submit(Submit { policy, ..submit("factorial", &["20000"], true) }).remove(0)
    };
    assert!(matches!(run().output, JobOutput::Descriptor { .. }));
    let before = pids();
    let mut filler = user.command("fill-queues", daemon.folder(), &[&(LIMIT + 64).to_string()]);
    let mut filler = filler.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = [0; 5];
    filler.stdout.take().unwrap().read_exact(&mut line).unwrap();
    assert_eq!(&line, b"full\n");
    let refused = run();
    let Outcome::Failed { message, .. } = &refused.outcome else { panic!("{refused:?}") };
    for part in ["user 60169 has sent", &format!("open files, {LIMIT}")] {
        assert!(message.contains(part), "{part:?} is missing: {message}");
    }
    drop(filler.stdin.take());
    assert!(filler.wait().unwrap().success());
    eventually("the next one gets its output", || {
        matches!(run().output, JobOutput::Descriptor { .. }).then_some(())
    });
    assert_eq!(pids(), before, "no worker had to go");
}
