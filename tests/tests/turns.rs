//! Whose job a real daemon runs next: two commands of one user, and two users who want the same workers.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use bulkhead_proto::client::message::{Reply, Request, Submit};
use bulkhead_proto::ids::JobId;
use bulkhead_proto::job::{JobState, Policy};
use bulkhead_tests::daemon::{Daemon, Setup, eventually};
use bulkhead_tests::or_skip;
use bulkhead_tests::other_users::{ALICE, BOB, connect_as, system_daemon};
use bulkhead_tests::raid::may_become_others;
use bulkhead_tests::wire::{Wire, submit};

/// How long a task sleeps that a test ends itself, in milliseconds.
const LONG: &str = "600000";

fn await_queued(wire: &mut Wire, count: u64) {
    eventually("all jobs are queued", || (wire.status().queued == count).then_some(()));
}

fn await_running(wire: &mut Wire, job: JobId) {
    eventually("a worker runs the job", || (wire.job(job).row.state == JobState::Running).then_some(()));
}

fn cancel(wire: &mut Wire, job: JobId) {
    let reply = wire.call(Request::Cancel { jobs: vec![job] });
    assert!(matches!(reply, Reply::Changed { count: 1, .. }), "{reply:?}");
}

/// Jobs of one user run in the order of their priorities, whichever command brought them.
#[test]
fn priorities_count_among_all_commands_of_a_user() {
    let daemon = Daemon::start_with(&Setup { workers: 1, ..Setup::default() });
    let mut wire = Wire::connect(&daemon.socket());
    let holder = wire.submit("sleep", &[LONG]);
    await_running(&mut wire, holder);
    for (priority, inputs) in [("0", "1..6"), ("9", "1..30")] {
        daemon.ok(&["submit", "--priority", priority, "factorial", inputs]);
    }
    await_queued(&mut wire, 36);
    cancel(&mut wire, holder);
    let mut ended = |jobs: std::ops::Range<u64>| -> Vec<u64> {
        let jobs = jobs.map(|job| JobId(holder.0 + job));
        jobs.map(|job| eventually("the job ends", || wire.job(job).ended_us)).collect()
    };
    let (low, high) = (ended(1..7), ended(7..37));
    assert!(high.iter().max() <= low.iter().min(), "all of priority 9 end first: {high:?} {low:?}");
}

/// A user who sleeps in both workers, and one who wants to work.
#[test]
fn a_worker_that_is_free_goes_to_who_holds_the_fewest() {
    or_skip!(may_become_others());
    let daemon = system_daemon("");
    let connect = |uid| connect_as(&daemon, uid).welcome();
    let (mut alice, mut bob) = (connect(ALICE), connect(BOB));
    let sleep = |wire: &mut Wire, priority| -> JobId {
        let policy = Policy { priority, ..Policy::default() };
        let asked = Request::Submit(Submit { policy, ..submit("sleep", &[LONG], false) });
        match wire.call(asked) {
            Reply::Accepted { first, .. } => first,
            other => panic!("not accepted: {other:?}"),
        }
    };
    let [first, second] = [(); 2].map(|()| sleep(&mut alice, 9));
    await_running(&mut alice, first);
    await_running(&mut alice, second);
    let third = sleep(&mut alice, 9);
    let bobs = [(); 2].map(|()| sleep(&mut bob, 0));
    let Reply::Why(why) = alice.call(Request::Why { job: third }) else { panic!("no answer to why") };
    let said = "1 of these users holds fewer workers of the pool than the user of this job, and goes first.";
    assert!(why.to_string().contains(said), "{why}");
    cancel(&mut alice, first);
    await_running(&mut bob, bobs[0]);
    assert_eq!(alice.job(third).row.state, JobState::Queued, "she holds a worker, and he held none");
    // He holds none again, and she holds one.
    cancel(&mut bob, bobs[0]);
    await_running(&mut bob, bobs[1]);
    assert_eq!(alice.job(third).row.state, JobState::Queued);
    // Nobody else waits.
    cancel(&mut bob, bobs[1]);
    await_running(&mut alice, third);
}
