//! Files of clients whose close never returns: a FUSE server lets one be opened, and never answers a flush. It may
//! keep its own job's worker and its user's close; workers come up and jobs run as if there were none of it. A worker behind
//! whose hanging close too many files wait is replaced, as long as the workers that cannot end are fewer than the slots.
//!
//! Each descriptor of the file that is closed anywhere is seen as a flush that waits. Where a machine has no FUSE, the
//! tests say so and are skipped.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bulkhead_proto::client::message::{Register, RegisteredUse, Reply, Request, Submit};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::view::WorkerState;
use bulkhead_proto::client::why::WhyNow;
use bulkhead_proto::file::{FileUse, IN, Way};
use bulkhead_proto::ids::JobId;
use bulkhead_proto::job::Payload;
use bulkhead_proto::limits::{FILES_MAX, UNCLOSED_MAX};
use bulkhead_proto::registration::RegistrationKind;
use bulkhead_sys::hostile_peer::{self, SendMode};
use bulkhead_sys::pidfd::Process;
use bulkhead_sys::poll::wait_readable;
use bulkhead_tests::daemon::{DEADLINE, Daemon, Setup, eventually};
use bulkhead_tests::dead_disk::DeadDisk;
use bulkhead_tests::or_skip;
use bulkhead_tests::payload;
use bulkhead_tests::raid::frame;
use bulkhead_tests::wire::{Wire, submit};

/// Workers that are killed for each new one to come up.
const RECYCLED: usize = 6;

/// One test at a time: a process that another one starts while this has the file open would wait in its exec.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn daemon() -> Daemon {
    let config = "restart_intensity = 1000\nstuck_after_seconds = 1\n".to_owned();
    Daemon::start_with(&Setup { config, ..Setup::default() })
}

/// Submits a job with a file of this disk, which from then on only the daemon and whom it gave it to have open.
fn attach(wire: &mut Wire, kind: &str, input: &str, disk: &DeadDisk) -> JobId {
    let file = File::open(disk.file()).unwrap();
    let job = payload::submit_as(wire, kind, input, &[(FileUse::new(IN, Way::In), file.as_fd())]);
    // It waits, but the descriptor is gone at once.
    std::thread::spawn(move || drop(file));
    disk.await_flush();
    job
}

/// Submits jobs that take all workers until they are cancelled.
fn occupy(wire: &mut Wire) -> Vec<JobId> {
    let first = wire.submit("sleep", &["600000"; 2]);
    eventually("both are taken", || {
        (wire.workers().iter().filter(|row| row.job.is_some()).count() == 2).then_some(())
    });
    vec![first, JobId(first.0 + 1)]
}

fn cancel(wire: &mut Wire, jobs: Vec<JobId>) {
    let reply = wire.call(Request::Cancel { jobs });
    assert!(matches!(reply, Reply::Changed { .. }), "{reply:?}");
}

/// Kills spare after spare: for each, another one comes up. Then a job runs.
fn recycle(wire: &mut Wire) {
    let mut killed = BTreeSet::new();
    let mut next_spare = |wire: &mut Wire| {
        let spare = eventually("a spare is ready", || {
            let rows = wire.workers();
            rows.iter()
                .filter(|row| row.state == WorkerState::Spare)
                .find_map(|row| row.pid.filter(|pid| !killed.contains(pid)))
        });
        killed.insert(spare);
        spare
    };
    for _ in 0..RECYCLED {
        let spare = next_spare(wire);
        Process::open(spare).unwrap().kill(9).unwrap();
    }
    next_spare(wire);
}

fn run_one(wire: &mut Wire) {
    assert_eq!(wire.run("noop", &["on"])[0].outcome, Outcome::Done);
}

#[test]
fn workers_come_up_while_a_running_job_has_the_file() {
    let _alone = alone();
    let daemon = daemon();
    let disk = or_skip!(DeadDisk::mount_silent());
    let mut wire = Wire::connect(&daemon.socket());
    let mut owner = Wire::connect(&daemon.socket());
    let job = attach(&mut owner, "sleep", "600000", &disk);
    eventually("it runs", || wire.workers().iter().any(|row| row.job == Some(job)).then_some(()));
    recycle(&mut wire);
    run_one(&mut wire);
    assert_eq!(disk.flushes(), 0, "somebody has closed a copy of the file");
    // The worker of the job is killed, and waits in its exit; another takes its slot.
    cancel(&mut wire, vec![job]);
    disk.await_flush();
    eventually("it is stuck, alone", || {
        let rows = wire.workers();
        let of = |state| rows.iter().filter(|row| row.state == state).count();
        (of(WorkerState::Stuck) == 1 && of(WorkerState::Idle) == 2).then_some(())
    });
    recycle(&mut wire);
    run_one(&mut wire);
    assert_eq!(disk.flushes(), 0, "somebody else waits");
    disk.leave();
    eventually("it is dead", || {
        wire.workers().iter().all(|row| row.state != WorkerState::Stuck).then_some(())
    });
}

#[test]
fn a_close_that_never_returns_is_waited_for_alone() {
    let _alone = alone();
    let daemon = daemon();
    let disk = or_skip!(DeadDisk::mount_silent());
    let mut wire = Wire::connect(&daemon.socket());
    let mut owner = Wire::connect(&daemon.socket());
    let others = occupy(&mut wire);
    let job = attach(&mut owner, "noop", "", &disk);
    recycle(&mut wire);
    assert_eq!(disk.flushes(), 0, "somebody has closed a copy of the file");
    cancel(&mut wire, vec![job]);
    disk.await_flush();
    cancel(&mut wire, others);
    recycle(&mut wire);
    run_one(&mut wire);
    assert_eq!(disk.flushes(), 0, "somebody else waits");
}

/// A connection that registers files, each for one job.
struct Registrar {
    wire: Wire,
    last: u32,
}

impl Registrar {
    /// Registers these files, runs a job that names them, and drops them: its worker has to close them then.
    fn pass_through(&mut self, files: &[BorrowedFd<'_>]) {
        self.last += 1;
        let (number, kind) = (self.last, RegistrationKind::Files);
        let names = (0..files.len()).map(|at| FileUse::new(&format!("f{at}"), Way::In)).collect();
        let register = Register { number, kind, bytes: Payload::default(), files: names };
        let bytes = frame(u32::MAX - number, Request::Register(register));
        let sent = hostile_peer::send(self.wire.socket.as_fd(), &bytes, files, SendMode::Plain).unwrap();
        assert_eq!(sent, bytes.len(), "a short frame goes at once");
        let reply = self.wire.next_reply().unwrap().reply;
        assert_eq!(reply, Reply::Registered { number });
        let registered = Some(Box::new(RegisteredUse { arena: None, contexts: vec![number] }));
        let ended = self.wire.run_submit(Submit { registered, ..submit("noop", &["x"], true) });
        assert_eq!(ended[0].outcome, Outcome::Done);
        self.wire.ask(Request::DropRegistration { number });
    }

    /// A worker has a file of this disk to close, whose close hangs, and more files behind it than it may have.
    fn jam(&mut self, disk: &DeadDisk) {
        let file = File::open(disk.file()).unwrap();
        self.pass_through(&[file.as_fd()]);
        // It waits, but the descriptor is gone at once.
        std::thread::spawn(move || drop(file));
        // That one, and the worker's. The daemon's waits too, or behind one that does.
        disk.await_flush();
        disk.await_flush();
        let null = File::open("/dev/null").unwrap();
        for _ in 0..UNCLOSED_MAX / FILES_MAX as u64 {
            self.pass_through(&[null.as_fd(); FILES_MAX]);
        }
    }
}

/// The only slot: the first worker cannot end, so the second one keeps its place, and works again when its closes return.
#[test]
fn a_worker_whose_closes_hang_gives_its_slot_away_and_the_next_one_waits_for_its_own() {
    let _alone = alone();
    let config = "restart_intensity = 1000\nstuck_after_seconds = 1\n".to_owned();
    let daemon = Daemon::start_with(&Setup { workers: 1, config, ..Setup::default() });
    let disk = or_skip!(DeadDisk::mount_silent());
    let mut wire = Wire::connect(&daemon.socket());
    let mut registrar = Registrar { wire: Wire::connect(&daemon.socket()), last: 0 };
    let placed = |wire: &mut Wire| {
        let rows = wire.workers();
        rows.iter().find(|row| row.state == WorkerState::Idle).map(|row| row.worker)
    };
    let first = eventually("a worker is up", || placed(&mut wire));
    registrar.jam(&disk);
    eventually("it cannot end", || {
        let rows = wire.workers();
        rows.iter().find(|row| row.worker == first && row.state == WorkerState::Stuck).map(|_| ())
    });
    run_one(&mut wire);
    let second = placed(&mut wire).unwrap();
    assert_ne!(second, first);
    registrar.jam(&disk);
    let unclosed = |wire: &mut Wire, job| match wire.call(Request::Why { job }) {
        Reply::Why(why) => match why.now {
            WhyNow::Queued { pool, .. } => pool.unclosed,
            _ => 0,
        },
        other => panic!("{other:?}"),
    };
    let job = eventually("the second one is offered nothing", || {
        let job = wire.submit("noop", &["x"]);
        (unclosed(&mut wire, job) == 1).then_some(job)
    });
    // A spare is there, and does not take its place: there would be one more that cannot end, and so on.
    eventually("a spare is up", || {
        let rows = wire.workers();
        rows.iter().any(|row| row.state == WorkerState::Spare).then_some(())
    });
    assert_eq!((unclosed(&mut wire, job), placed(&mut wire)), (1, Some(second)));
    disk.leave();
    let reply = wire.call(Request::Wait { jobs: vec![job] });
    assert!(matches!(&reply, Reply::Ended(ended) if ended[0].outcome == Outcome::Done), "{reply:?}");
    eventually("the first one is dead", || {
        wire.workers().iter().all(|row| row.state != WorkerState::Stuck).then_some(())
    });
    run_one(&mut wire);
    let is_blame = |what: &What| matches!(what, What::Blamed { .. } | What::NobodyBlamed { .. });
    let records = wire.records();
    assert!(!records.iter().any(|record| is_blame(&record.what)), "{records:?}");
}

/// Its exit waits for the flush, with all of its descriptors that come after the file still open.
#[test]
fn workers_die_with_a_killed_daemon_whose_exit_waits() {
    let _alone = alone();
    for is_closing in [false, true] {
        let mut daemon = daemon();
        let disk = or_skip!(DeadDisk::mount_silent());
        let mut wire = Wire::connect(&daemon.socket());
        let mut owner = Wire::connect(&daemon.socket());
        occupy(&mut wire);
        let job = attach(&mut owner, "noop", "", &disk);
        if is_closing {
            cancel(&mut wire, vec![job]);
            disk.await_flush();
        }
        let workers = wire.workers();
        let workers: Vec<_> = workers.iter().map(|row| Process::open(row.pid.unwrap()).unwrap()).collect();
        assert_eq!(workers.len(), 3);
        let supervisor = Process::open(daemon.pid()).unwrap();
        supervisor.kill(9).unwrap();
        if !is_closing {
            disk.await_flush();
        }
        for worker in &workers {
            assert!(wait_readable(worker.as_fd(), DEADLINE).unwrap(), "{} lives on", worker.pid());
        }
        assert!(
            !wait_readable(supervisor.as_fd(), std::time::Duration::ZERO).unwrap(),
            "the daemon was to wait in its exit"
        );
        disk.leave();
        daemon.await_end();
    }
}
