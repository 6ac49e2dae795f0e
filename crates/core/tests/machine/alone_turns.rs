//! Jobs that run alone after a crash, of several users: who gets the next worker that has run nothing.

use bulkhead_proto::ids::JobId;
use bulkhead_proto::job::Policy;

use crate::rig::{ALICE, BOB, Rig};

#[test]
fn a_user_whose_jobs_crash_does_not_hold_up_the_retry_of_another() {
    let mut rig = Rig::new(4);
    let policy = || Policy { crashes_max: Some(9), ..Policy::default() };
    let alice = rig.submit_as(ALICE, "foreign", 3, policy(), false);
    let bob = rig.submit_as(BOB, "foreign", 1, policy(), false);
    rig.come_up = false;
    rig.spawned.clear();
    // The spare takes the first retry, and the other three crash while no worker comes up.
    for job in [alice, JobId(alice.0 + 1), JobId(alice.0 + 2), bob] {
        rig.crash(job);
    }
    rig.crash(alice);
    rig.sleep(20);
    let first = rig.spawned.remove(0);
    rig.come_up_now(first);
    rig.turn();
    assert_eq!(
        rig.holder(JobId(alice.0 + 1)).map(|(worker, _)| worker),
        Some(first),
        "Alice's crashed first"
    );
    let why = rig.why(BOB, bob).to_string();
    assert!(!why.contains("one before it"), "{why}");
    let behind = rig.why(ALICE, alice).to_string();
    assert!(behind.contains("2 jobs wait for one before it"), "one of Alice's, one of Bob's: {behind}");
    rig.sleep(20);
    let second = rig.spawned.remove(0);
    rig.come_up_now(second);
    rig.turn();
    assert_eq!(
        rig.holder(bob).map(|(worker, _)| worker),
        Some(second),
        "two more of Alice's were there before"
    );
}
