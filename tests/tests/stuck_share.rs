//! Two users of one service of two workers: one whose tasks hang in the kernel, so that their workers cannot be ended, and one
//! who works.
//!
//! Hers are frozen by the freezer of cgroup v1, where SIGKILL waits for the thaw. Without one the test says so and is skipped.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::view::{PoolHealth, WorkerState};
use bulkhead_proto::ids::JobId;
use bulkhead_proto::job::JobState;
use bulkhead_tests::daemon::eventually;
use bulkhead_tests::freezer::Freezer;
use bulkhead_tests::or_skip;
use bulkhead_tests::other_users::{ALICE, BOB, connect_as, system_daemon};
use bulkhead_tests::raid::may_become_others;
use bulkhead_tests::wire::Wire;

/// A day, in milliseconds.
const A_DAY: &str = "86400000";

fn cancel(wire: &mut Wire, job: JobId) {
    assert!(matches!(wire.call(Request::Cancel { jobs: vec![job] }), Reply::Changed { count: 1, .. }));
}

fn why(wire: &mut Wire, job: JobId) -> String {
    match wire.call(Request::Why { job }) {
        Reply::Why(why) => why.to_string(),
        other => panic!("no reason: {other:?}"),
    }
}

/// Freezes the worker that runs this job, and cancels the job: the worker is stuck.
fn jam(freezer: &Freezer, (owner, root): (&mut Wire, &mut Wire), job: JobId) {
    eventually("the job runs", || (owner.job(job).row.state == JobState::Running).then_some(()));
    let row = root.workers().into_iter().find(|row| row.job == Some(job)).unwrap();
    freezer.freeze(&[row.pid.unwrap()]);
    cancel(owner, job);
    eventually("the worker is stuck", || {
        let rows = root.workers();
        rows.into_iter().find(|other| other.worker == row.worker && other.state == WorkerState::Stuck)
    });
}

#[test]
fn a_user_whose_tasks_cannot_be_ended_takes_no_pool_from_others() {
    or_skip!(may_become_others());
    let freezer = or_skip!(Freezer::new());
    let daemon = system_daemon("workers = 2\nstuck_after_seconds = 1\nlend_after_seconds = 1\n");
    let (mut alice, mut bob) = (connect_as(&daemon, ALICE).welcome(), connect_as(&daemon, BOB).welcome());
    let mut root = Wire::connect(&daemon.socket());
    let days = [(); 8].map(|()| alice.submit("sleep", &[A_DAY]));
    jam(&freezer, (&mut alice, &mut root), days[0]);
    // The second one was running already; those behind them wait.
    jam(&freezer, (&mut alice, &mut root), days[1]);
    assert_eq!(bob.run("noop", &["x"; 20]).len(), 20);
    let said = why(&mut alice, days[2]);
    assert!(said.contains("2 workers are stuck with tasks of its user"), "{said}");
    for job in &days[2..] {
        assert_ne!(alice.job(*job).row.state, JobState::Running, "one stuck worker is half of the pool");
    }
    assert_eq!(root.status().health, PoolHealth::Healthy);
    freezer.thaw();
    eventually("hers run again", || (alice.job(days[2]).row.state == JobState::Running).then_some(()));
    assert_eq!(bob.run("noop", &["x"])[0].outcome, Outcome::Done);
    days[2..].iter().for_each(|job| cancel(&mut alice, *job));
}
