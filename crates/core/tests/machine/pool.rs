//! Two pools side by side: which pool runs a job, and that a degraded pool leaves the other alone.
//!
//! The kinds `quick` and `fan` belong to the default pool, `foreign` to a pool of its own.

use bulkhead_core::config::{Config, PoolSize};
use bulkhead_core::event::Event;
use bulkhead_proto::client::message::Reply;
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::view::{PoolHealth, PoolRow};
use bulkhead_proto::client::why::WhyNow;
use bulkhead_proto::ids::{ClientId, JobId, WorkerId};
use bulkhead_proto::job::Policy;

use crate::rig::{ADMIN, ALICE, BOB, Rig, SEGV, config, kinds};

/// A default pool of so many slots, and one of one slot that runs `foreign`.
fn two(slots: u16) -> Config {
    let mut kinds = kinds();
    "heavy".clone_into(&mut kinds[1].pool);
    let pools = vec![PoolSize { name: "heavy".to_owned(), ..PoolSize::default() }];
    Config { kinds, pools, ..config(slots) }
}

fn row(rig: &mut Rig, name: &str) -> PoolRow {
    rig.status().pools.into_iter().find(|pool| pool.name == name).expect("the pool is listed")
}

/// A detached job.
fn run(rig: &mut Rig, client: ClientId, kind: &str) -> JobId {
    rig.submit_as(client, kind, 1, Policy::default(), false)
}

/// The pool that a worker is listed with.
fn pool_of(rig: &mut Rig, worker: WorkerId) -> String {
    rig.rows().into_iter().find(|row| row.worker == worker).expect("the worker is listed").pool
}

#[test]
fn each_pool_has_its_slots_and_spares_and_slots_have_numbers_of_their_own() {
    let mut rig = Rig::cold(two(2));
    rig.turn();
    assert_eq!(rig.spawned.len(), 5, "two and a spare, one and a spare");
    assert!(matches!(rig.records[0], What::Started { slots: 3, .. }));
    let slots: Vec<u16> = (rig.records.iter())
        .filter_map(|what| if let What::Placed { slot, .. } = what { Some(slot.0) } else { None })
        .collect();
    assert_eq!(slots, [0, 1, 2]);
}

#[test]
fn a_kind_runs_in_its_pool_alone_and_a_busy_pool_holds_nobody_up() {
    let mut rig = Rig::with(two(1));
    let heavy: Vec<JobId> = (0..3).map(|_| run(&mut rig, ALICE, "foreign")).collect();
    let quick = run(&mut rig, BOB, "quick");
    let (heavy_worker, _) = rig.holder(heavy[0]).expect("its pool is idle");
    let (quick_worker, _) = rig.holder(quick).expect("the other pool is full, and that is its own affair");
    assert_eq!(pool_of(&mut rig, heavy_worker), "heavy");
    assert_eq!(pool_of(&mut rig, quick_worker), "default");
    assert!(rig.holder(heavy[1]).is_none(), "one worker, one job");
    rig.finish(quick);
    assert!(rig.holder(heavy[1]).is_none(), "an idle worker of another pool is none of its own");
    assert_eq!(row(&mut rig, "heavy").waiting, 2);
    rig.finish(heavy[0]);
    assert_eq!(rig.holder(heavy[1]).map(|(worker, _)| worker), Some(heavy_worker));
}

#[test]
fn a_charged_job_waits_for_a_fresh_worker_of_its_own_pool() {
    let mut rig = Rig::with(two(1));
    let job = run(&mut rig, ALICE, "foreign");
    rig.crash(job);
    let (worker, _) = rig.holder(job).expect("the spare of its pool took the slot");
    assert_eq!(pool_of(&mut rig, worker), "heavy");
    rig.crash(job);
    assert!(rig.holder(job).is_none(), "the spare of the default pool stays where it is");
    rig.sleep(2);
    let (worker, _) = rig.holder(job).expect("the next worker of its pool is up");
    assert_eq!(pool_of(&mut rig, worker), "heavy");
}

#[test]
fn a_pool_that_never_comes_up_is_degraded_by_itself_and_told_to_its_own_clients() {
    let mut rig = Rig::cold(two(1));
    rig.come_up = false;
    rig.turn();
    for worker in rig.spawned.clone() {
        if worker.0 <= 2 {
            rig.come_up_now(worker);
        } else {
            rig.batch.push(Event::SpawnFailed { worker, error: "no such program".to_owned() });
        }
    }
    rig.turn();
    assert_eq!(rig.ready, ["taking jobs, 1 of 2 workers up so far"]);
    for (client, uid, admin) in [(ALICE, 1, false), (BOB, 2, false), (ADMIN, 0, true)] {
        rig.connect(client, uid, admin);
    }
    let heavy = rig.submit_as(ALICE, "foreign", 1, Policy::default(), true);
    let quick = rig.submit_as(BOB, "quick", 1, Policy::default(), true);
    assert!(rig.holder(quick).is_some() && rig.holder(heavy).is_none());
    let notices = |rig: &Rig, client| -> Vec<String> {
        let of_client = rig.replies.iter().filter(|(to, ..)| *to == client);
        of_client
            .filter_map(
                |(_, _, reply, _)| if let Reply::Notice(text) = reply { Some(text.clone()) } else { None },
            )
            .collect()
    };
    let told = notices(&rig, ALICE);
    assert!(
        told.len() == 1 && told[0].starts_with("nothing runs in pool heavy, no worker comes up"),
        "{told:?}"
    );
    assert!(notices(&rig, BOB).is_empty(), "its job runs elsewhere");
    let status = rig.status();
    assert_eq!(status.health, PoolHealth::Degraded);
    assert!(status.health_reason.starts_with("pool heavy: 2 workers in a row"), "{}", status.health_reason);
    assert_eq!(row(&mut rig, "default").health, PoolHealth::Healthy);
    let degraded = |what: &What| matches!(what, What::Degraded { pool, .. } if pool == "heavy");
    assert_eq!((rig.recorded(degraded), rig.recorded(|what| matches!(what, What::Degraded { .. }))), (1, 1));
    // Once its program is there, it is healthy again, and its jobs go on.
    rig.come_up = true;
    rig.sleep(1000);
    assert!(rig.holder(heavy).is_some());
    rig.finish(heavy);
    assert_eq!(rig.status().health, PoolHealth::Healthy);
    assert!(notices(&rig, ALICE)[1].starts_with("workers come up again in pool heavy"));
}

#[test]
fn a_crash_loop_in_one_pool_does_not_slow_the_other() {
    let mut rig = Rig::with(Config { restart_intensity: 1, ..two(1) });
    for _ in 0..4 {
        let Some(dead) = rig.workers.keys().copied().find(|worker| worker.0 > 2) else { break };
        rig.die(dead, SEGV);
    }
    assert_eq!(row(&mut rig, "heavy").health, PoolHealth::Degraded);
    rig.spawned.clear();
    rig.die(WorkerId(1), SEGV);
    rig.sleep(2);
    assert_eq!(rig.spawned.len(), 1, "the other pool spawns as if nothing were");
    assert_eq!(row(&mut rig, "default").health, PoolHealth::Healthy);
}

#[test]
fn why_tells_of_the_pool_of_the_kind() {
    let mut rig = Rig::with(two(3));
    let jobs: Vec<JobId> = (0..2).map(|_| run(&mut rig, ALICE, "foreign")).collect();
    let why = rig.why(ALICE, jobs[1]);
    let WhyNow::Queued { pool, .. } = &why.now else { panic!("{:?}", why.now) };
    assert_eq!((pool.name.as_str(), pool.slots, pool.busy, pool.spares), ("heavy", 1, 1, 1));
    let said = why.to_string();
    assert!(said.contains("Its kind has workers of its own, pool heavy."), "{said}");
    assert!(said.contains("The only worker is busy"), "{said}");
}

#[test]
fn parts_fit_the_slots_of_their_own_pool() {
    let mut config = two(4);
    "heavy".clone_into(&mut config.kinds[2].pool);
    let mut rig = Rig::with(config);
    let job = run(&mut rig, ALICE, "fan");
    rig.plan(job, 50);
    assert_eq!(row(&mut rig, "heavy").waiting, 3, "two for each slot and two more, and one of them runs");
    assert_eq!(row(&mut rig, "default").busy, 0);
}

#[test]
fn a_pool_whose_last_worker_has_gone_and_none_comes_up_is_told_once_more() {
    let mut rig = Rig::with(two(1));
    let job = rig.submit_as(ALICE, "foreign", 1, Policy::default(), true);
    let (worker, _) = rig.holder(job).expect("its pool is idle");
    rig.come_up = false;
    for other in rig.workers.keys().copied().collect::<Vec<_>>() {
        if other != worker && pool_of(&mut rig, other) == "heavy" {
            rig.die(other, SEGV);
        }
    }
    let notices = |rig: &Rig| -> Vec<String> {
        let of_alice = rig.replies.iter().filter(|(to, ..)| *to == ALICE);
        of_alice
            .filter_map(
                |(_, _, reply, _)| if let Reply::Notice(text) = reply { Some(text.clone()) } else { None },
            )
            .collect()
    };
    let fail_spawns = |rig: &mut Rig| {
        rig.sleep(2000);
        for worker in std::mem::take(&mut rig.spawned) {
            rig.batch.push(Event::SpawnFailed { worker, error: "no room".to_owned() });
        }
        rig.turn();
    };
    for _ in 0..3 {
        fail_spawns(&mut rig);
    }
    let told = notices(&rig);
    assert!(
        told.len() == 1 && told[0].starts_with("jobs may wait in pool heavy, 1 of 1 workers are up"),
        "{told:?}"
    );
    let next = rig.submit_as(ALICE, "foreign", 1, Policy::default(), true);
    rig.die(worker, SEGV);
    for _ in 0..3 {
        fail_spawns(&mut rig);
    }
    assert!(rig.holder(next).is_none());
    let told = notices(&rig);
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[1].starts_with("nothing runs in pool heavy, no worker comes up"), "{told:?}");
    assert!(told[1].ends_with("workers in a row did not come up; the last one: no room"), "{told:?}");
}
