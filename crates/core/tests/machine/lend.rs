//! Lent slots: who gets one and when, what runs in it, and how the loan ends.
//!
//! Most pools here have two slots and may lend two; Alice (uid 1) and Bob (uid 2) have long jobs of the kind `foreign`.

use bulkhead_core::config::{Config, PoolSize};
use bulkhead_core::event::{Event, TaskResult};
use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::view::{PoolHealth, WorkerRow, WorkerState};
use bulkhead_proto::client::why::{WhyNow, WhyShare};
use bulkhead_proto::death::{Death, KillReason};
use bulkhead_proto::ids::{ClientId, JobId, WorkerId};
use bulkhead_proto::job::{Payload, Policy};

use crate::rig::{ADMIN, ALICE, BOB, Rig, SEGV, config};

const CAROL: ClientId = ClientId(9);
/// What is waited before a slot is lent, in milliseconds.
const AFTER_MS: u64 = 5000;

/// A pool of so many slots that lends up to `lend_max`.
pub(crate) fn lending(slots: u16, lend_max: u16) -> Config {
    Config { lend_max, lend_after_ms: Some(AFTER_MS), ..config(slots) }
}

pub(crate) fn long(rig: &mut Rig, client: ClientId, count: usize) -> JobId {
    rig.submit_as(client, "foreign", count, Policy::default(), false)
}

/// The result of a short task.
fn short() -> TaskResult {
    TaskResult::Inline(Payload::from(vec![1]))
}

fn lent(rig: &Rig) -> usize {
    rig.recorded(|what| matches!(what, What::Lent { .. }))
}

/// Alice runs a long job in each of two slots, and Bob's job waits behind them.
fn held(lend_max: u16) -> (Rig, JobId, JobId) {
    let mut rig = Rig::with(lending(2, lend_max));
    let alice = long(&mut rig, ALICE, 3);
    rig.claim(alice);
    rig.claim(JobId(alice.0 + 1));
    let bob = long(&mut rig, BOB, 1);
    assert!(rig.holder(bob).is_none());
    (rig, alice, bob)
}

/// The same, and Bob's job runs in a lent slot: gives its worker.
fn borrowed(lend_max: u16) -> (Rig, JobId, JobId, WorkerId) {
    let (mut rig, alice, bob) = held(lend_max);
    rig.sleep(AFTER_MS);
    let worker = rig.claim(bob);
    (rig, alice, bob, worker)
}

fn state(rig: &mut Rig, worker: WorkerId) -> Option<WorkerState> {
    rig.rows().into_iter().find(|row| row.worker == worker).map(|row| row.state)
}

/// A lent worker left, or another one made room: the proof of its end.
fn leaves(rig: &mut Rig, worker: WorkerId) {
    assert_eq!(state(rig, worker), Some(WorkerState::Retiring), "worker {worker} was asked to leave");
    rig.die(worker, Death::Retired);
}

#[test]
fn who_waits_while_another_user_holds_all_is_lent_a_slot_after_the_time_and_not_before() {
    let (mut rig, alice, bob) = held(2);
    rig.sleep(AFTER_MS - 1);
    assert_eq!((rig.holder(bob), lent(&rig)), (None, 0));
    rig.sleep(1);
    let (worker, _) = rig.holder(bob).expect("a slot is lent");
    assert_eq!(
        rig.recorded(|what| matches!(what, What::Lent { worker: lent, uid: 2, .. } if *lent == worker)),
        1
    );
    rig.claim(bob);
    assert!(rig.holder(JobId(alice.0 + 2)).is_none(), "a slot is lent to Bob alone");
    rig.sleep(10 * AFTER_MS);
    assert_eq!(lent(&rig), 1, "who holds workers is lent none");
    assert_eq!(rig.workers.len(), 4, "two, the lent one and the next spare");
}

#[test]
fn a_pool_that_may_lend_nothing_lends_nothing_and_nobody_wakes_it() {
    let (mut rig, _, bob) = held(0);
    let (mut never, _, of_never) = {
        let mut rig = Rig::with(Config { lend_after_ms: None, ..lending(2, 2) });
        let alice = long(&mut rig, ALICE, 2);
        let bob = long(&mut rig, BOB, 1);
        (rig, alice, bob)
    };
    for (rig, job) in [(&mut rig, bob), (&mut never, of_never)] {
        rig.sleep(10 * AFTER_MS);
        assert_eq!((rig.holder(job), lent(rig)), (None, 0));
    }
}

#[test]
fn several_users_together_hold_all_and_each_who_waits_has_an_alarm_of_its_own() {
    let mut rig = Rig::with(lending(2, 2));
    for (client, uid) in [(CAROL, 3), (ClientId(10), 4)] {
        rig.connect(client, uid, false);
    }
    let held = [long(&mut rig, ALICE, 1), long(&mut rig, BOB, 1)];
    for job in held {
        rig.claim(job);
    }
    let carol = long(&mut rig, CAROL, 1);
    rig.sleep(1000);
    let dave = long(&mut rig, ClientId(10), 1);
    rig.sleep(AFTER_MS - 1000);
    assert!(rig.holder(carol).is_some() && rig.holder(dave).is_none());
    rig.sleep(1000);
    assert!(rig.holder(dave).is_some(), "the second slot is lent a second later");
}

#[test]
fn at_lend_max_no_further_slot_is_lent_and_who_has_waited_longest_is_next() {
    let (mut rig, _, bob, worker) = borrowed(1);
    rig.connect(CAROL, 3, false);
    let carol = long(&mut rig, CAROL, 1);
    rig.sleep(10 * AFTER_MS);
    assert!(rig.holder(carol).is_none() && lent(&rig) == 1);
    rig.finish(bob);
    assert_eq!(state(&mut rig, worker), Some(WorkerState::Retiring), "Bob has nothing more to run");
    assert!(rig.holder(carol).is_some(), "the slot is lent again at once");
    leaves(&mut rig, worker);
}

#[test]
fn a_lent_worker_runs_its_users_jobs_one_at_a_time_and_then_leaves() {
    let (mut rig, _, bob, worker) = borrowed(2);
    // Short ones, which would be offered ahead elsewhere.
    let more = rig.submit_as(BOB, "quick", 40, Policy::default(), false);
    rig.finish(bob);
    for at in 0..40 {
        let job = JobId(more.0 + at);
        assert_eq!(rig.workers[&worker].len(), 1, "one at a time");
        assert_eq!(rig.holder(job).map(|(holder, _)| holder), Some(worker));
        rig.finish_with(job, short(), 800);
    }
    leaves(&mut rig, worker);
    assert_eq!(rig.status().health, PoolHealth::Healthy);
}

#[test]
fn the_first_own_slot_that_comes_free_takes_the_lent_worker_in() {
    let (mut rig, alice, bob, worker) = borrowed(2);
    let (own, _) = rig.holder(alice).expect("it runs");
    rig.finish(alice);
    assert!(
        rig.recorded(|what| matches!(what, What::TakenIn { worker: taken, .. } if *taken == worker)) == 1
    );
    assert!(rig.holder(JobId(alice.0 + 2)).is_none(), "the pool has its number of workers again");
    assert_eq!(rig.holder(bob).map(|(holder, _)| holder), Some(worker), "its task goes on");
    leaves(&mut rig, own);
    rig.finish(bob);
    assert_eq!(rig.holder(JobId(alice.0 + 2)).map(|(holder, _)| holder), Some(worker), "it is as any other");
}

#[test]
fn a_slot_whose_worker_died_takes_the_lent_worker_in_before_a_spare() {
    let (mut rig, alice, bob, worker) = borrowed(2);
    rig.records.clear();
    rig.crash(alice);
    assert_eq!(
        rig.recorded(
            |what| matches!(what, What::TakenIn { worker: taken, replaces: Some(_), .. } if *taken == worker)
        ),
        1
    );
    assert_eq!(rig.recorded(|what| matches!(what, What::Placed { .. })), 0);
    rig.sleep(100);
    assert!(rig.holder(alice).is_none(), "its retry waits: two workers, and both are held");
    assert!(rig.holder(bob).is_some());
}

#[test]
fn a_retry_that_runs_alone_gets_the_next_spare_in_the_lent_slot() {
    let (mut rig, _, bob, worker) = borrowed(2);
    rig.die(worker, SEGV);
    rig.sleep(10);
    let (next, _) = rig.holder(bob).expect("its retry has a fresh worker, and waits no second time");
    assert_ne!(next, worker);
    // A lent worker that has run something makes room for a fresh one.
    let second = long(&mut rig, BOB, 1);
    rig.claim(bob);
    rig.die(next, SEGV);
    rig.sleep(10);
    let (third, _) = rig.holder(bob).expect("the second retry");
    rig.finish(bob);
    assert_eq!(rig.holder(second).map(|(holder, _)| holder), Some(third));
    rig.crash(second);
    rig.sleep(10);
    assert!(rig.holder(second).is_some());
}

#[test]
fn a_death_in_a_lent_slot_that_no_job_is_charged_with_counts_against_the_pool() {
    let mut rig = Rig::with(Config { restart_intensity: 1, ..lending(1, 1) });
    let alice = long(&mut rig, ALICE, 1);
    rig.claim(alice);
    let bob = long(&mut rig, BOB, 1);
    rig.sleep(AFTER_MS);
    for _ in 0..2 {
        // It dies before it has claimed the task.
        let (worker, _) = rig.holder(bob).expect("a slot is lent");
        rig.die(worker, SEGV);
        rig.sleep(10);
    }
    assert_eq!(rig.status().health, PoolHealth::Degraded);
    rig.sleep(60);
    assert!(rig.holder(bob).is_none(), "a degraded pool lends nothing");
}

#[test]
fn stopped_and_dying_workers_are_no_reason_to_lend() {
    let mut rig = Rig::with(Config { stopped_ms: 60_000, stuck_after_ms: 60_000, ..lending(1, 1) });
    let alice = long(&mut rig, ALICE, 1);
    let worker = rig.claim(alice);
    let bob = long(&mut rig, BOB, 1);
    rig.tell(Event::Suspended { worker, signal: 19 });
    rig.sleep(2 * AFTER_MS);
    assert_eq!(lent(&rig), 0, "a signal stopped the worker: it runs on, or is killed, soon");
    rig.tell(Event::Resumed { worker });
    assert_eq!(lent(&rig), 1, "now Alice holds it, and Bob has waited");
    rig.finish(bob);
    rig.sleep(10);
    let bob = long(&mut rig, BOB, 1);
    rig.change(ALICE, Request::Cancel { jobs: vec![alice] });
    assert_eq!(rig.killed.get(&worker), Some(&KillReason::Cancel));
    rig.sleep(2 * AFTER_MS);
    assert_eq!((lent(&rig), rig.holder(bob)), (1, None), "its slot comes free by itself");
}

#[test]
fn a_stuck_worker_keeps_its_lent_slot_and_its_user_is_lent_no_other() {
    let (mut rig, _, bob, worker) = borrowed(2);
    rig.change(BOB, Request::Cancel { jobs: vec![bob] });
    rig.sleep(10_000);
    assert_eq!(state(&mut rig, worker), Some(WorkerState::Stuck));
    let next = long(&mut rig, BOB, 2);
    rig.connect(CAROL, 3, false);
    let carol = long(&mut rig, CAROL, 1);
    rig.sleep(AFTER_MS);
    assert!(rig.holder(carol).is_some(), "the second slot");
    assert!(rig.holder(next).is_none(), "one stuck worker is half of the pool");
    rig.claim(carol);
    rig.die(worker, Death::Killed { why: KillReason::Cancel });
    rig.sleep(AFTER_MS);
    assert!(rig.holder(next).is_some(), "its death is proven");
}

#[test]
fn tasks_offered_ahead_of_others_count_for_nothing_and_are_taken_back() {
    let mut rig = Rig::with(lending(1, 1));
    // Alice's jobs have been short so far.
    for _ in 0..40 {
        let job = rig.submit(1);
        rig.finish_with(job, short(), 800);
    }
    let alice = rig.submit(1);
    let bob = rig.submit_as(BOB, "quick", 1, Policy::default(), false);
    let own = rig.claim(alice);
    assert_eq!(
        rig.holder(bob).map(|(holder, _)| holder),
        Some(own),
        "behind Alice's, which takes for ever this time"
    );
    rig.sleep(AFTER_MS);
    assert_ne!(rig.holder(bob).map(|(holder, _)| holder), Some(own));
    assert_eq!(lent(&rig), 1);
}

#[test]
fn a_drain_lends_until_it_leaves() {
    let (mut rig, alice, bob) = held(2);
    rig.tell(Event::Drain { grace_ms: Some(60_000) });
    rig.sleep(AFTER_MS);
    let worker = rig.claim(bob);
    rig.finish(bob);
    leaves(&mut rig, worker);
    let refused = rig.core.deadline();
    assert!(refused.is_some(), "the grace of the drain");
    for at in 0..3 {
        rig.finish(JobId(alice.0 + at));
    }
    for worker in rig.retired.clone() {
        if rig.workers.contains_key(&worker) {
            rig.die(worker, Death::Retired);
        }
    }
    assert!(rig.exited);
}

#[test]
fn what_may_not_run_is_no_reason_to_lend() {
    let (mut rig, _, bob) = held(2);
    // Its client reads nothing: the job rests.
    rig.change(BOB, Request::Cancel { jobs: vec![bob] });
    let failing =
        rig.submit_as(BOB, "foreign", 1, Policy { retries_max: Some(3), ..Policy::default() }, false);
    rig.sleep(AFTER_MS);
    rig.fail(failing);
    let spares = rig.workers.len();
    assert!(rig.holder(failing).is_none(), "it waits for its backoff");
    assert!(rig.retired.len() == 1 && spares >= 3, "the lent worker leaves meanwhile");
}

#[test]
fn each_pool_lends_by_its_own_number() {
    let mut config = lending(1, 0);
    "gpu".clone_into(&mut config.kinds[0].pool);
    config.pools = vec![PoolSize { name: "gpu".to_owned(), lend_max: 1, ..PoolSize::default() }];
    let mut rig = Rig::with(config);
    let alice = [long(&mut rig, ALICE, 1), rig.submit(1)];
    for job in alice {
        rig.claim(job);
    }
    let bob = [long(&mut rig, BOB, 1), rig.submit_as(BOB, "quick", 1, Policy::default(), false)];
    rig.sleep(AFTER_MS);
    assert_eq!(bob.map(|job| rig.holder(job).is_some()), [false, true]);
}

#[test]
fn a_user_holds_no_more_workers_than_running_max() {
    let mut rig = Rig::with(Config { running_max: Some(2), ..config(4) });
    let alice = long(&mut rig, ALICE, 4);
    let running = |rig: &Rig| (0..4).filter(|at| rig.holder(JobId(alice.0 + at)).is_some()).count();
    assert_eq!(running(&rig), 2);
    let bob = long(&mut rig, BOB, 1);
    assert!(rig.holder(bob).is_some());
    // A retry that runs alone counts as well.
    rig.crash(alice);
    rig.sleep(10);
    assert_eq!(running(&rig), 2);
    rig.finish(alice);
    assert_eq!(running(&rig), 2);
}

#[test]
fn tasks_offered_ahead_never_bring_a_user_over_running_max() {
    let mut rig = Rig::with(Config { running_max: Some(1), ..config(2) });
    for _ in 0..40 {
        let job = rig.submit(1);
        rig.finish_with(job, short(), 800);
    }
    let alice = rig.submit(6);
    rig.submit_as(BOB, "quick", 6, Policy::default(), false);
    let users = |rig: &Rig, worker: WorkerId| {
        let of = |job: JobId| u32::from(job.0 >= alice.0 + 6);
        let mut users: Vec<u32> = rig.workers[&worker].iter().map(|held| of(held.task.job)).collect();
        users.dedup();
        users
    };
    let busy: Vec<WorkerId> = rig.workers.keys().copied().filter(|id| !rig.workers[id].is_empty()).collect();
    let all: Vec<Vec<u32>> = busy.iter().map(|id| users(&rig, *id)).collect();
    assert!(all.len() == 2 && all.iter().all(|users| users.len() == 1), "{all:?}");
}

fn share(rig: &mut Rig, client: ClientId, job: JobId) -> WhyShare {
    match rig.why(client, job).now {
        WhyNow::Queued { pool, .. } => pool.share,
        other => panic!("not queued: {other:?}"),
    }
}

#[test]
fn why_says_when_a_slot_is_lent_and_at_lend_max_what_would_help() {
    let (mut rig, _, bob) = held(1);
    rig.sleep(2000);
    let waits = WhyShare {
        others_hold_all: true,
        lend_after_ms: Some(AFTER_MS),
        lends_in_ms: Some(3000),
        lend_max: 1,
        ..WhyShare::default()
    };
    assert_eq!(share(&mut rig, BOB, bob), waits);
    rig.sleep(3000);
    rig.claim(bob);
    let WhyNow::Running(running) = rig.why(BOB, bob).now else { panic!("it runs") };
    assert!(running.lent.is_some());
    rig.connect(CAROL, 3, false);
    let carol = long(&mut rig, CAROL, 1);
    rig.sleep(AFTER_MS);
    assert_eq!(share(&mut rig, CAROL, carol), WhyShare { lends_in_ms: Some(0), lent: 1, ..waits });
    assert!(rig.why(CAROL, carol).to_string().contains("(`lend_max` is 1)"));
    let (mut none, _, bob) = held(0);
    assert!(none.why(BOB, bob).to_string().contains("the pool lends no slot (`lend_max` is 0)"));
}

#[test]
fn to_whom_a_slot_is_lent_is_told_to_that_user_and_to_administrators() {
    let (mut rig, _, _, worker) = borrowed(2);
    for (client, whom) in [(BOB, Some(2)), (ADMIN, Some(2)), (ALICE, None)] {
        let Reply::Workers(rows) = rig.answer(client, Request::Workers) else { panic!("workers") };
        let Reply::Status(status) = rig.answer(client, Request::Status) else { panic!("a status") };
        let is_lent = |row: &&WorkerRow| row.lent;
        let told: Vec<_> =
            rows.iter().chain(&status.lent).filter(is_lent).map(|row| (row.worker, row.lent_to)).collect();
        assert_eq!(told, [(worker, whom); 2]);
        assert_eq!((status.slots, status.pools[0].lent, status.pools[0].lend_max), (2, 1, 2));
        let Reply::Events { records, .. } = rig.answer(client, Request::Events { after: 0, follow: false })
        else {
            panic!("events")
        };
        let is_told = records.iter().any(|record| matches!(record.what, What::Lent { .. }));
        assert_eq!(is_told, whom.is_some());
    }
}
