//! Two users of one service whose workers serve one user each: whatever a task leaves in its worker, no task of another user finds it.
//!
//! The daemon is asked which worker ran what.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use std::collections::BTreeSet;

use bulkhead_proto::client::record::What;
use bulkhead_proto::client::view::PoolHealth;
use bulkhead_proto::death::Death;
use bulkhead_proto::ids::WorkerId;
use bulkhead_proto::job::JobState;
use bulkhead_tests::daemon::{binary, eventually};
use bulkhead_tests::or_skip;
use bulkhead_tests::other_users::{ALICE, BOB, CAROL, command_for_all, connect_as, run_as, system_daemon};
use bulkhead_tests::raid::may_become_others;
use bulkhead_tests::wire::Wire;

fn count(root: &mut Wire, of: impl Fn(&What) -> bool) -> usize {
    root.records().iter().filter(|record| of(&record.what)).count()
}

/// Runs a task of this user, and gives the worker that ran it.
fn worker_of(wire: &mut Wire) -> WorkerId {
    let job = wire.submit("sleep", &["100"]);
    let worker = eventually("the task runs", || wire.job(job).worker);
    eventually("the task ends", || (wire.job(job).row.state == JobState::Ended).then_some(()));
    worker
}

#[test]
fn two_users_never_have_a_worker_in_common() {
    or_skip!(may_become_others());
    let daemon = system_daemon("one_user = true\n");
    let mut root = Wire::connect(&daemon.socket());
    let (mut alice, mut bob) = (connect_as(&daemon, ALICE).welcome(), connect_as(&daemon, BOB).welcome());
    let (mut hers, mut his) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..6 {
        hers.insert(worker_of(&mut alice));
        his.insert(worker_of(&mut bob));
    }
    assert!(hers.is_disjoint(&his), "{hers:?} and {his:?}");
    assert_eq!((hers.len(), his.len()), (1, 1), "each had one of the two: no worker left for nothing");
    let third = worker_of(&mut root);
    assert!(
        !hers.contains(&third) && !his.contains(&third),
        "a third user has a spare, and one of the others left"
    );
    assert_eq!(count(&mut root, |what| matches!(what, What::NobodyBlamed { .. } | What::Blamed { .. })), 0);
    assert_eq!(root.status().health, PoolHealth::Healthy);
}

#[test]
fn a_service_with_a_worker_program_of_others_does_so_by_itself() {
    or_skip!(may_become_others());
    let square = binary("examples/square");
    let daemon =
        system_daemon(&format!("builtin_kinds = false\nworker_program = {square:?}\n[kinds.square]\n"));
    let command = command_for_all(&daemon);
    let mut root = Wire::connect(&daemon.socket());
    for uid in [ALICE, BOB, CAROL, ALICE, BOB, CAROL] {
        let output = run_as(uid, (&command, &daemon), &["run", "square", "12"]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "144\n");
    }
    // Two workers for three users: she takes the place of one of the others, who takes it back.
    eventually("a change of users takes another worker, and the old one leaves", || {
        let left = |what: &What| matches!(what, What::Died { death: Death::Retired, .. });
        (count(&mut root, left) == 3).then_some(())
    });
}
