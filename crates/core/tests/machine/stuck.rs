//! Stuck workers: what one user's, and those of several, leave to others, and when a pool in which nothing works says so.
//!
//! Pools have four slots. A worker gets stuck here because the core kills it and nobody tells of its death.

use bulkhead_core::config::{Config, Users};
use bulkhead_core::event::{Event, TaskResult};
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::view::{PoolHealth, WorkerState};
use bulkhead_proto::client::why::{WhyNow, WhyShare};
use bulkhead_proto::death::{Death, KillReason, Violation};
use bulkhead_proto::ids::{ClientId, JobId, WorkerId};
use bulkhead_proto::job::{Payload, Policy};

use crate::lend::{lending, long};
use crate::rig::{ADMIN, ALICE, BOB, Rig, config};
use crate::shortage::notices;

const CAROL: ClientId = ClientId(9);
/// After this a killed worker is stuck, in milliseconds.
const STUCK_AFTER_MS: u64 = 1000;

fn rig(users: Users) -> Rig {
    with(Config { users, ..config(4) })
}

fn with(config: Config) -> Rig {
    let mut rig = Rig::with(Config { stuck_after_ms: STUCK_AFTER_MS, ..config });
    rig.connect(CAROL, 3, false);
    rig
}

/// Long enough for a pool to lend a slot.
const WAITED_MS: u64 = 6000;

/// The workers that run these jobs are killed and do not go.
fn jam(rig: &mut Rig, jobs: &[JobId]) -> Vec<WorkerId> {
    let workers: Vec<WorkerId> = jobs.iter().map(|job| rig.claim(*job)).collect();
    for worker in &workers {
        rig.tell(Event::Violated { worker: *worker, violation: Violation::Lane });
    }
    rig.sleep(2 * STUCK_AFTER_MS);
    for worker in &workers {
        let row = rig.rows().into_iter().find(|row| row.worker == *worker);
        assert_eq!(row.map(|row| row.state), Some(WorkerState::Stuck));
    }
    workers
}

fn gone(rig: &mut Rig, worker: WorkerId) {
    rig.die(worker, Death::Killed { why: KillReason::Violation { violation: Violation::Lane } });
    rig.sleep(100);
}

/// Those of so many jobs, from the first on, that a worker has.
fn held(rig: &Rig, first: JobId, count: u64) -> Vec<JobId> {
    (first.0..first.0 + count).map(JobId).filter(|job| rig.holder(*job).is_some()).collect()
}

/// The same, without stuck workers.
fn working(rig: &mut Rig, first: JobId, count: u64) -> Vec<JobId> {
    let rows = rig.rows();
    let is_stuck = |worker| rows.iter().any(|row| row.worker == worker && row.state == WorkerState::Stuck);
    let mut all = held(rig, first, count);
    all.retain(|job| rig.holder(*job).is_some_and(|(worker, _)| !is_stuck(worker)));
    all
}

/// Lets the workers of those that work claim them, and counts them.
fn claimed(rig: &mut Rig, first: JobId, count: u64) -> usize {
    let all = working(rig, first, count);
    for job in &all {
        rig.claim(*job);
    }
    all.len()
}

fn share(rig: &mut Rig, job: JobId) -> WhyShare {
    match rig.why(ADMIN, job).now {
        WhyNow::Queued { pool, .. } | WhyNow::Alone { pool, .. } => pool.share,
        other => panic!("not waiting: {other:?}"),
    }
}

#[test]
fn one_users_stuck_workers_leave_the_pool_to_the_others() {
    let mut rig = rig(Users::Several);
    let hers = long(&mut rig, ALICE, 12);
    let first: Vec<JobId> = (hers.0..hers.0 + 3).map(JobId).collect();
    let stuck = jam(&mut rig, &first);
    rig.finish(JobId(hers.0 + 3));
    assert_eq!(working(&mut rig, hers, 12), [], "she gets no further worker, though all slots are free");
    let told = share(&mut rig, JobId(hers.0 + 4));
    assert_eq!((told.held, told.stuck, told.stuck_max), (0, 3, Some(0)));
    let his = long(&mut rig, BOB, 4);
    assert_eq!(working(&mut rig, his, 4).len(), 4, "others have all four slots");
    assert_eq!(rig.status().health, PoolHealth::Healthy);
    // Half of the slots less one, once two of hers are gone; a charged job goes first.
    for at in 0..4 {
        rig.finish(JobId(his.0 + at));
    }
    for worker in &stuck[..2] {
        gone(&mut rig, *worker);
    }
    assert_eq!(working(&mut rig, hers, 12).len(), 1);
    assert_eq!(share(&mut rig, JobId(hers.0 + 11)).stuck_max, Some(1));
    gone(&mut rig, stuck[2]);
    assert_eq!(working(&mut rig, hers, 12).len(), 4, "all of hers are gone");
    assert_eq!(share(&mut rig, JobId(hers.0 + 11)).stuck_max, None);
}

#[test]
fn a_daemon_of_one_user_bounds_nothing() {
    let mut rig = rig(Users::One);
    let first = long(&mut rig, ALICE, 12);
    jam(&mut rig, &[first, JobId(first.0 + 1)]);
    assert_eq!(working(&mut rig, first, 12).len(), 4);
    assert_eq!(share(&mut rig, JobId(first.0 + 11)).stuck_max, None);
}

#[test]
fn a_task_that_runs_alone_a_lent_slot_and_a_task_ahead_are_bounded_too() {
    let mut rig = with(Config { stuck_after_ms: STUCK_AFTER_MS, ..lending(4, 2) });
    let hers = long(&mut rig, ALICE, 2);
    let stuck = jam(&mut rig, &[hers, JobId(hers.0 + 1)]);
    let his = long(&mut rig, BOB, 4);
    assert_eq!(claimed(&mut rig, his, 4), 4);
    let next = long(&mut rig, ALICE, 1);
    rig.sleep(WAITED_MS);
    assert_eq!(rig.recorded(|what| matches!(what, What::Lent { .. })), 0, "her wait is not for others");
    // One of hers is gone: she may hold one worker and waits for it, and the pool lends her a slot.
    gone(&mut rig, stuck[0]);
    rig.sleep(WAITED_MS);
    assert_eq!(claimed(&mut rig, hers, 2) + claimed(&mut rig, next, 1), 1);
    for at in 0..4 {
        rig.finish(JobId(his.0 + at));
    }
    rig.sleep(WAITED_MS);
    assert_eq!(working(&mut rig, hers, 2).len() + working(&mut rig, next, 1).len(), 1, "and no second one");
}

#[test]
fn no_task_of_such_a_user_stands_behind_those_of_others() {
    let mut rig = rig(Users::Several);
    // Jobs of this kind have been short so far.
    for _ in 0..60 {
        let job = rig.submit(1);
        rig.finish_with(job, TaskResult::Inline(Payload::default()), 1000);
    }
    let jammed = long(&mut rig, ALICE, 1);
    let worker = rig.claim(jammed);
    rig.tell(Event::Violated { worker, violation: Violation::Lane });
    rig.sleep(STUCK_AFTER_MS - 1);
    // His tasks are short, and hers stand behind them, when hers that was killed turns out to be stuck.
    let his = rig.submit_as(BOB, "quick", 3, Policy::default(), false);
    let hers = rig.submit_as(ALICE, "quick", 8, Policy::default(), false);
    assert_eq!(held(&rig, hers, 8).len(), 8, "all of hers stand behind his");
    rig.sleep(1);
    assert_eq!(rig.rows().iter().filter(|row| row.state == WorkerState::Stuck).count(), 1);
    assert_eq!(working(&mut rig, hers, 8).len(), 1, "one has the slot of the stuck one");
    // His end, and she still has one worker.
    for at in 0..3 {
        rig.finish_with(JobId(his.0 + at), TaskResult::Inline(Payload::default()), 1000);
    }
    assert_eq!(working(&mut rig, hers, 8).len(), 1);
}

#[test]
fn no_task_of_such_a_user_comes_behind_those_of_others() {
    let mut rig = rig(Users::Several);
    for _ in 0..60 {
        let job = rig.submit(1);
        rig.finish_with(job, TaskResult::Inline(Payload::default()), 1000);
    }
    let jammed = long(&mut rig, ALICE, 1);
    jam(&mut rig, &[jammed]);
    let his = rig.submit_as(BOB, "quick", 4, Policy::default(), false);
    assert_eq!(working(&mut rig, his, 4).len(), 4, "he holds all workers");
    let hers = rig.submit_as(ALICE, "quick", 8, Policy::default(), false);
    assert_eq!(held(&rig, hers, 8), [], "each would be one worker more, and she may hold one");
    rig.finish_with(his, TaskResult::Inline(Payload::default()), 1000);
    assert_eq!(working(&mut rig, hers, 8).len(), 1);
}

#[test]
fn once_all_replacements_are_used_no_user_holds_more_than_half() {
    let mut rig = rig(Users::Several);
    let hers = long(&mut rig, ALICE, 4);
    let first: Vec<JobId> = (hers.0..hers.0 + 4).map(JobId).collect();
    let stuck = jam(&mut rig, &first);
    let his = long(&mut rig, BOB, 4);
    assert_eq!(working(&mut rig, his, 4).len(), 2, "he may be the next");
    let told = share(&mut rig, JobId(his.0 + 3));
    assert_eq!((told.held, told.stuck, told.stuck_max), (2, 0, Some(2)));
    let two = working(&mut rig, his, 4);
    jam(&mut rig, &two);
    let theirs = long(&mut rig, CAROL, 3);
    assert_eq!(working(&mut rig, theirs, 3).len(), 2, "a third user has the rest");
    assert_eq!(rig.status().health, PoolHealth::Healthy);
    gone(&mut rig, stuck[0]);
    assert_eq!(working(&mut rig, theirs, 3).len(), 2, "another stuck worker was replaced instead");
}

#[test]
fn a_pool_in_which_every_slot_has_a_stuck_worker_is_degraded_until_one_works_again() {
    let mut rig = Rig::with(Config { stuck_after_ms: STUCK_AFTER_MS, users: Users::One, ..config(1) });
    let first = rig.submit_as(ALICE, "quick", 2, Policy::default(), true);
    let before = jam(&mut rig, &[first]);
    assert_eq!(rig.status().health, PoolHealth::Healthy, "it was replaced");
    let second = jam(&mut rig, &[JobId(first.0 + 1)]);
    let status = rig.status();
    assert_eq!(status.health, PoolHealth::Degraded);
    assert!(status.health_reason.contains("the worker of every slot is stuck"), "{}", status.health_reason);
    assert_eq!(rig.recorded(|what| matches!(what, What::Degraded { .. })), 1);
    assert!(
        notices(&rig, ALICE).iter().any(|text| text.starts_with("nothing runs: the worker of every slot"))
    );
    gone(&mut rig, before[0]);
    gone(&mut rig, second[0]);
    for _ in 0..2 {
        assert_eq!(claimed(&mut rig, first, 2), 1);
        let runs = held(&rig, first, 2)[0];
        rig.finish(runs);
        rig.sleep(100);
    }
    rig.sleep(600_000);
    assert_eq!(rig.status().health, PoolHealth::Healthy);
}
