//! Files of clients whose close never returns: a FUSE server lets one be opened, and never answers a flush. It may
//! keep its own job's worker and its user's close; workers come up and jobs run as if there were none of it.
//!
//! Each descriptor of the file that is closed anywhere is seen as a flush that waits. Where a machine has no FUSE, the
//! tests say so and are skipped.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::view::WorkerState;
use bulkhead_proto::file::{FileUse, IN, Way};
use bulkhead_proto::ids::JobId;
use bulkhead_sys::pidfd::Process;
use bulkhead_sys::poll::wait_readable;
use bulkhead_tests::daemon::{DEADLINE, Daemon, Setup, eventually};
use bulkhead_tests::dead_disk::DeadDisk;
use bulkhead_tests::or_skip;
use bulkhead_tests::payload;
use bulkhead_tests::wire::Wire;

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
