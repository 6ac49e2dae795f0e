//! Pools that are to have no spare: a crash costs a cold start, and what needs a worker that has run nothing waits for one.
//!
//! Workers of these tests come up when the test says so. `recycle` and `lend` are the same with spares.

use bulkhead_core::config::Config;
use bulkhead_core::event::Event;
use bulkhead_proto::client::message::Request;
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::view::PoolHealth;
use bulkhead_proto::death::Death;
use bulkhead_proto::ids::{JobId, WorkerId};
use bulkhead_proto::job::Policy;

use crate::lend::{lending, long};
use crate::rig::{ADMIN, ALICE, BOB, Rig, config};

fn spareless(slots: u16) -> Config {
    Config { spares: 0, ..config(slots) }
}

/// A pool without spares that is up; further workers come up when the test says so.
fn cold(config: Config) -> Rig {
    let mut rig = Rig::with(config);
    rig.come_up = false;
    rig
}

/// The worker that was asked for last comes up.
fn comes_up(rig: &mut Rig) -> WorkerId {
    let worker = rig.spawned.pop().expect("a worker was asked for");
    rig.come_up_now(worker);
    rig.turn();
    worker
}

fn runs_in(rig: &Rig, job: JobId) -> Option<WorkerId> {
    rig.holder(job).map(|(worker, _)| worker)
}

/// A job that has killed a worker, ran alone in another one and failed there: its next attempt has to be alone, in a worker
/// that has run nothing, and every slot has one that has run something. Gives the job and the worker.
fn waits_alone(rig: &mut Rig) -> (JobId, WorkerId) {
    let policy = Policy { retries_max: Some(3), ..Policy::default() };
    let job = rig.submit_as(ALICE, "quick", 1, policy, false);
    rig.crash(job);
    rig.sleep(10);
    let used = comes_up(rig);
    assert_eq!(runs_in(rig, job), Some(used));
    rig.claim(job);
    rig.fail(job);
    rig.sleep(1000);
    (job, used)
}

#[test]
fn a_crash_costs_a_cold_start_and_no_worker_stands_by() {
    let mut rig = Rig::cold(spareless(2));
    rig.turn();
    assert_eq!(rig.spawned.len(), 2, "its workers, and no spare");
    let mut rig = cold(spareless(1));
    let job = rig.submit(1);
    rig.crash(job);
    assert_eq!((rig.spawned.len(), runs_in(&rig, job)), (0, None), "answers go first");
    rig.sleep(10);
    assert_eq!(rig.spawned.len(), 1, "one for the slot, and none beside it");
    let fresh = comes_up(&mut rig);
    assert_eq!(runs_in(&rig, job), Some(fresh), "the slot's new worker has run nothing");
    rig.claim(job);
    rig.finish(job);
    rig.sleep(1000);
    assert_eq!((rig.spawned.len(), rig.status().spares), (0, 0));
    assert_eq!(rig.status().health, PoolHealth::Healthy);
}

#[test]
fn a_job_that_runs_alone_waits_for_a_fresh_worker_while_the_used_one_goes_on() {
    let mut rig = cold(spareless(1));
    let (job, used) = waits_alone(&mut rig);
    assert_eq!((rig.spawned.len(), rig.retired.len(), runs_in(&rig, job)), (1, 0, None));
    let why = rig.why(ALICE, job).to_string();
    assert!(why.contains("No spare is ready") && why.contains("1 worker is starting"), "{why}");
    // Others do not wait for it.
    let other = rig.submit(1);
    assert_eq!(rig.claim(other), used);
    let fresh = comes_up(&mut rig);
    assert_eq!((runs_in(&rig, job), rig.status().spares), (None, 1), "the only slot is busy");
    rig.finish(other);
    assert_eq!((runs_in(&rig, job), rig.retired.as_slice()), (Some(fresh), &[used][..]));
    rig.claim(job);
    rig.finish(job);
    rig.die(used, Death::Retired);
    rig.sleep(1000);
    assert_eq!((rig.spawned.len(), rig.status().spares), (0, 0), "nothing needs another one");
}

#[test]
fn a_worker_that_comes_up_in_vain_leaves_again() {
    let mut rig = cold(spareless(1));
    let (job, used) = waits_alone(&mut rig);
    rig.change(ALICE, Request::Cancel { jobs: vec![job] });
    let vain = comes_up(&mut rig);
    assert_eq!(rig.retired, [vain]);
    rig.die(vain, Death::Retired);
    rig.sleep(1000);
    assert_eq!((rig.spawned.len(), rig.status().totals.deaths), (0, 1), "the crash alone is a death");
    let next = rig.submit(1);
    assert_eq!(runs_in(&rig, next), Some(used));
}

#[test]
fn a_worker_that_is_due_goes_on_until_the_one_that_replaces_it_is_up() {
    let mut rig = cold(Config { recycle_tasks: Some(2), ..spareless(1) });
    let one = |rig: &mut Rig| {
        let job = rig.submit(1);
        let worker = rig.claim(job);
        rig.finish(job);
        worker
    };
    let old = one(&mut rig);
    assert_eq!(rig.spawned.len(), 0, "it has one left");
    for _ in 0..5 {
        assert_eq!(one(&mut rig), old);
        rig.sleep(10);
        assert_eq!((rig.spawned.len(), rig.retired.len()), (1, 0));
    }
    let fresh = comes_up(&mut rig);
    assert_eq!(rig.retired, [old]);
    assert_eq!(one(&mut rig), fresh);
    assert_eq!(rig.spawned.len(), 0);
}

#[test]
fn a_slot_is_lent_when_a_worker_for_it_is_up() {
    let mut rig = cold(Config { spares: 0, ..lending(1, 1) });
    let alice = long(&mut rig, ALICE, 2);
    rig.claim(alice);
    let bob = long(&mut rig, BOB, 1);
    rig.sleep(4999);
    assert_eq!(rig.spawned.len(), 0);
    rig.sleep(1);
    assert_eq!((rig.spawned.len(), runs_in(&rig, bob)), (1, None));
    let lent = comes_up(&mut rig);
    assert_eq!(runs_in(&rig, bob), Some(lent));
    assert_eq!(rig.recorded(|what| matches!(what, What::Lent { uid: 2, .. })), 1);
}

#[test]
fn a_drain_waits_for_a_job_that_waits_for_a_fresh_worker() {
    let mut rig = cold(spareless(1));
    let (job, used) = waits_alone(&mut rig);
    rig.ask(ADMIN, Request::Drain { grace_ms: None });
    let fresh = comes_up(&mut rig);
    assert_eq!((runs_in(&rig, job), rig.retired.as_slice()), (Some(fresh), &[used][..]));
    rig.claim(job);
    rig.finish(job);
    for worker in std::mem::take(&mut rig.retired) {
        rig.die(worker, Death::Retired);
    }
    assert!(rig.exited);
}

/// One failed start is not yet a pool that does not come up.
#[test]
fn a_pool_of_one_worker_is_not_degraded_by_its_first_failed_start() {
    let mut rig = cold(spareless(1));
    let job = rig.submit(1);
    rig.crash(job);
    rig.sleep(10);
    for health in [PoolHealth::Healthy, PoolHealth::Degraded] {
        let worker = rig.spawned.pop().expect("one was asked for");
        rig.tell(Event::SpawnFailed { worker, error: "none today".to_owned() });
        assert_eq!(rig.status().health, health);
        rig.sleep(1000);
    }
}
