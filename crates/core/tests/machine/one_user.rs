//! Pools whose workers serve one user each: no task of one user runs in a worker that was offered one of another, a change of users
//! is no crash, and users take turns, counted.

use std::collections::BTreeMap;

use bulkhead_core::config::Config;
use bulkhead_core::event::TaskResult;
use bulkhead_proto::client::message::Request;
use bulkhead_proto::client::view::PoolHealth;
use bulkhead_proto::death::Death;
use bulkhead_proto::ids::{JobId, WorkerId};
use bulkhead_proto::job::{Payload, Policy};

use crate::lend::long;
use crate::rig::{ALICE, BOB, Rig, config};

fn one_user(slots: u16) -> Config {
    Config { one_user: true, ..config(slots) }
}

fn done() -> TaskResult {
    TaskResult::Inline(Payload::default())
}

/// The users whose tasks each worker has had so far.
#[derive(Default)]
struct Served(BTreeMap<WorkerId, Vec<bool>>);

impl Served {
    /// Notes who has what. `first`: the number of Alice's first job and of Bob's first one.
    ///
    /// # Panics
    /// If a worker has had tasks of both.
    fn look(&mut self, rig: &Rig, bobs: JobId) {
        for (worker, held) in &rig.workers {
            let had = self.0.entry(*worker).or_default();
            had.extend(held.iter().map(|held| held.task.job >= bobs));
            assert!(had.iter().all(|is_bobs| *is_bobs == had[0]), "worker {worker} serves two users");
        }
    }
}

/// Ends the first job that runs, and lets workers that were asked to leave do so. Gives the job.
fn end_one(rig: &mut Rig) -> JobId {
    let job = rig.workers.values().flatten().next().expect("something runs").task.job;
    rig.finish_with(job, done(), 1000);
    for worker in std::mem::take(&mut rig.retired) {
        rig.die(worker, Death::Retired);
    }
    rig.sleep(20);
    job
}

#[test]
fn two_users_take_turns_in_one_worker_and_never_share_a_process() {
    let mut rig = Rig::with(one_user(1));
    let hers = long(&mut rig, ALICE, 20);
    let his = long(&mut rig, BOB, 20);
    let (mut served, mut ended) = (Served::default(), Vec::new());
    while ended.len() < 40 {
        served.look(&rig, his);
        ended.push(end_one(&mut rig) >= his);
    }
    let of_bob = |part: &[bool]| part.iter().filter(|is_his| **is_his).count();
    assert_eq!((of_bob(&ended[2..12]), of_bob(&ended[12..22])), (5, 5), "by turns: {ended:?}");
    assert!(hers < his && served.0.len() >= 39, "each turn had a worker of its own");
    assert_eq!(rig.status().health, PoolHealth::Healthy, "a change of users is no crash");
    assert_eq!(rig.status().totals.deaths, 0);
}

#[test]
fn a_worker_goes_on_for_its_own_user_while_no_spare_is_ready() {
    let mut rig = Rig::with(one_user(1));
    long(&mut rig, ALICE, 6);
    rig.come_up = false;
    let his = long(&mut rig, BOB, 6);
    let mut served = Served::default();
    // The spare that was up takes the first turn; the next one comes late.
    let mut ended = Vec::new();
    for _ in 0..5 {
        served.look(&rig, his);
        ended.push(end_one(&mut rig) >= his);
    }
    assert_eq!(ended, [false, false, true, true, true], "his worker has no successor, and nothing is idle");
    for worker in std::mem::take(&mut rig.spawned) {
        rig.come_up_now(worker);
    }
    rig.turn();
    for _ in 0..2 {
        served.look(&rig, his);
        ended.push(end_one(&mut rig) >= his);
    }
    assert_eq!(ended[5..], [true, false], "then it is her turn");
}

#[test]
fn a_pool_without_spares_starts_one_for_a_user_whom_no_worker_may_serve() {
    let mut rig = Rig::with(Config { spares: 0, ..one_user(2) });
    long(&mut rig, ALICE, 40);
    let his = long(&mut rig, BOB, 4);
    let mut served = Served::default();
    for _ in 0..44 {
        served.look(&rig, his);
        end_one(&mut rig);
    }
    assert_eq!((rig.status().queued, rig.status().spares), (0, 0));
}

#[test]
fn an_idle_worker_of_the_same_user_is_chosen_before_one_of_nobody() {
    let mut rig = Rig::with(one_user(3));
    let first = long(&mut rig, ALICE, 1);
    let hers = rig.claim(first);
    rig.finish(first);
    for _ in 0..3 {
        let next = long(&mut rig, ALICE, 1);
        assert_eq!(rig.claim(next), hers);
        rig.finish(next);
    }
    let his = long(&mut rig, BOB, 1);
    assert_ne!(rig.claim(his), hers);
    assert_eq!(rig.retired, [], "there was one that nobody had used");
}

#[test]
fn a_task_that_runs_alone_has_a_worker_that_was_offered_nothing_of_others() {
    let mut rig = Rig::with(one_user(2));
    let hers = long(&mut rig, ALICE, 1);
    let (offered, _) = rig.holder(hers).expect("all workers are idle");
    // It has not claimed her task, which is taken back: it has run nothing, and may have read her input.
    rig.change(ALICE, Request::Cancel { jobs: vec![hers] });
    rig.turn();
    assert!(rig.holder(hers).is_none());
    let his = long(&mut rig, BOB, 1);
    rig.crash(his);
    rig.sleep(100);
    assert!(
        rig.holder(his).is_some_and(|(worker, _)| worker != offered),
        "his retry runs alone, in another one"
    );
}

#[test]
fn short_tasks_go_ahead_for_the_workers_own_user_alone_and_do_not_keep_another_out() {
    let mut rig = Rig::with(one_user(1));
    for _ in 0..60 {
        let job = rig.submit(1);
        rig.finish_with(job, done(), 1000);
    }
    let hers = rig.submit_as(ALICE, "quick", 200, Policy::default(), false);
    assert!(rig.workers.values().any(|held| held.len() > 1), "hers stand ahead");
    let his = rig.submit_as(BOB, "quick", 2, Policy::default(), false);
    let (mut served, mut ended) = (Served::default(), 0);
    while rig.holder(his).is_none() {
        served.look(&rig, his);
        end_one(&mut rig);
        ended += 1;
        assert!(ended < 150, "her worker is refilled for ever, from {hers} on");
    }
    served.look(&rig, his);
}
