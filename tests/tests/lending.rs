//! Two users of one service of two workers: a user whose jobs hold both for a day stops nobody.
//!
//! Alice sleeps twice, for a day each. Bob's job runs all the same, in a slot that the pool lends to him; he and administrators
//! see that, Alice sees a worker. Where a pool lends nothing, `why` says what would help; where users have hard shares, Alice
//! gets one worker. Counted, never timed.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::view::{WorkerRow, WorkerState};
use bulkhead_proto::client::why::{Why, WhyNow};
use bulkhead_proto::ids::JobId;
use bulkhead_proto::job::JobState;
use bulkhead_tests::daemon::{Daemon, eventually};
use bulkhead_tests::or_skip;
use bulkhead_tests::other_users::{ALICE, BOB, connect_as, system_daemon};
use bulkhead_tests::raid::may_become_others;
use bulkhead_tests::wire::Wire;

/// A day, in milliseconds.
const A_DAY: &str = "86400000";

fn service(keys: &str) -> Daemon {
    system_daemon(&format!("lend_after_seconds = 1\n{keys}"))
}

/// Two jobs that sleep for a day.
fn two_days(wire: &mut Wire) -> [JobId; 2] {
    [(); 2].map(|()| wire.submit("sleep", &[A_DAY]))
}

fn await_running(wire: &mut Wire, job: JobId) {
    eventually("the job runs", || (wire.job(job).row.state == JobState::Running).then_some(()));
}

fn why(wire: &mut Wire, job: JobId) -> Why {
    match wire.call(Request::Why { job }) {
        Reply::Why(why) => *why,
        other => panic!("no reason: {other:?}"),
    }
}

fn cancel(wire: &mut Wire, job: JobId) {
    assert!(matches!(wire.call(Request::Cancel { jobs: vec![job] }), Reply::Changed { count: 1, .. }));
}

fn lent(wire: &mut Wire) -> Vec<WorkerRow> {
    wire.workers().into_iter().filter(|row| row.lent).collect()
}

#[test]
fn two_days_of_sleep_of_one_user_do_not_stop_another() {
    or_skip!(may_become_others());
    let daemon = service("");
    let (mut alice, mut bob) = (connect_as(&daemon, ALICE).welcome(), connect_as(&daemon, BOB).welcome());
    let mut root = Wire::connect(&daemon.socket());
    let days = two_days(&mut alice);
    days.into_iter().for_each(|job| await_running(&mut alice, job));
    let ended = bob.run("noop", &["x"]);
    assert_eq!(ended[0].outcome, Outcome::Done);

    // A long one keeps the slot: he is told that it is lent to him, and Alice is not.
    let long = bob.submit("sleep", &[A_DAY]);
    await_running(&mut bob, long);
    let row = lent(&mut bob).pop().unwrap();
    assert_eq!((row.lent_to, row.job), (Some(BOB), Some(long)));
    let hers = lent(&mut alice).pop().unwrap();
    assert_eq!((hers.worker, hers.lent_to, hers.job), (row.worker, None, None));
    assert_eq!(lent(&mut root).pop().unwrap().lent_to, Some(BOB));
    let status = root.status();
    assert_eq!((status.slots, status.pools[0].lent, status.pools[0].lend_max), (2, 1, 2));
    assert_eq!((status.lent.len(), status.lent[0].lent_to), (1, Some(BOB)));
    let WhyNow::Running(running) = why(&mut bob, long).now else { panic!("it runs") };
    assert_eq!(running.lent, row.slot);

    // The first own slot that comes free takes the lent worker in, and its task goes on.
    cancel(&mut alice, days[0]);
    eventually("the lent worker is taken in", || lent(&mut root).is_empty().then_some(()));
    let taken = |what: &What| matches!(what, What::TakenIn { worker, .. } if *worker == row.worker);
    assert!(root.records().iter().any(|record| taken(&record.what)));
    assert_eq!(bob.job(long).worker, Some(row.worker), "its task goes on");
    eventually("the pool has its number again", || {
        let live = root.workers().into_iter().filter(|row| row.state != WorkerState::Retiring);
        (live.count() == 3).then_some(())
    });
    for (wire, job) in [(&mut alice, days[1]), (&mut bob, long)] {
        cancel(wire, job);
    }
}

#[test]
fn a_pool_that_lends_nothing_says_what_would_help() {
    or_skip!(may_become_others());
    let daemon = service("lend_max = 0\n");
    let (mut alice, mut bob) = (connect_as(&daemon, ALICE).welcome(), connect_as(&daemon, BOB).welcome());
    let days = two_days(&mut alice);
    days.into_iter().for_each(|job| await_running(&mut alice, job));
    let job = bob.submit("noop", &["x"]);
    let said = why(&mut bob, job).to_string();
    for part in ["All 2 workers are busy", "`lend_max` is 0", "`timeout_max_seconds`", "`running_max`"] {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
    cancel(&mut alice, days[1]);
    eventually("it runs once a worker is free", || (bob.job(job).row.state == JobState::Ended).then_some(()));
    cancel(&mut alice, days[0]);
}

#[test]
fn a_hard_share_leaves_a_worker_to_others() {
    or_skip!(may_become_others());
    let daemon = service("lend_max = 0\nrunning_max = 1\n");
    let (mut alice, mut bob) = (connect_as(&daemon, ALICE).welcome(), connect_as(&daemon, BOB).welcome());
    let days = two_days(&mut alice);
    await_running(&mut alice, days[0]);
    assert_eq!(bob.run("noop", &["x"])[0].outcome, Outcome::Done);
    let said = why(&mut alice, days[1]).to_string();
    assert!(said.contains("`running_max` is 1"), "{said}");
    days.into_iter().for_each(|job| cancel(&mut alice, job));
}
