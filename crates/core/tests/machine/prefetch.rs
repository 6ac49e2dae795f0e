//! Prefetch: only short tasks are offered ahead, evenly over the workers, and they are taken back for an idle worker.
//!
//! The core learns how long tasks take from reports alone, so each test first ends some tasks quickly. While a client
//! with a single job shares the pool, less is offered ahead.

use bulkhead_core::event::TaskResult;
use bulkhead_proto::client::message::{Reply, Request, Submit};
use bulkhead_proto::ids::{ClientId, JobId};
use bulkhead_proto::job::{Payload, Policy};

use crate::rig::{ALICE, BOB, Rig};

fn done() -> TaskResult {
    TaskResult::Inline(Payload::default())
}

/// Has the kind `quick` known as one of short tasks.
fn teach(rig: &mut Rig, count: usize) {
    for _ in 0..count {
        let job = rig.submit(1);
        rig.finish_with(job, done(), 1000);
    }
}

/// Quick jobs of one flavour.
fn flavoured(rig: &mut Rig, client: ClientId, flavour: u32, count: usize) -> JobId {
    let inputs = vec![Payload::default(); count];
    let submit = Submit { kind: "quick".to_owned(), flavour, inputs, ..Submit::default() };
    match rig.answer(client, Request::Submit(submit)) {
        Reply::Accepted { first, .. } => first,
        other => panic!("not accepted: {other:?}"),
    }
}

/// Has tasks of this flavour known as ones that take so long.
fn teach_flavour(rig: &mut Rig, (client, flavour): (ClientId, u32), elapsed_ns: u64, count: usize) {
    for _ in 0..count {
        let job = flavoured(rig, client, flavour, 1);
        rig.finish_with(job, done(), elapsed_ns);
    }
}

fn depths(rig: &Rig) -> Vec<usize> {
    let mut depths: Vec<usize> = rig.workers.values().map(Vec::len).filter(|held| *held > 0).collect();
    depths.sort_unstable();
    depths
}

#[test]
fn nothing_is_known_so_nothing_is_ahead() {
    let mut rig = Rig::new(2);
    rig.submit(10);
    assert_eq!(depths(&rig), [1, 1]);
}

#[test]
fn short_tasks_fill_all_slots_before_they_queue_up() {
    let mut rig = Rig::new(2);
    teach(&mut rig, 60);
    rig.submit(8);
    assert_eq!(depths(&rig), [4, 4]);
}

#[test]
fn one_long_task_ends_work_ahead_at_once() {
    let mut rig = Rig::new(1);
    teach(&mut rig, 60);
    let first = rig.submit(400);
    let ahead = depths(&rig)[0];
    assert!(ahead > 4, "{ahead}");
    rig.finish_with(first, done(), 8_000_000);
    for number in 1..ahead as u64 {
        rig.finish_with(JobId(first.0 + number), done(), 8_000_000);
    }
    assert_eq!(depths(&rig), [1]);
}

#[test]
fn one_task_of_a_few_milliseconds_waits_behind_another() {
    let mut rig = Rig::new(1);
    let first = rig.submit(10);
    assert_eq!(depths(&rig), [1], "nothing is known of it yet");
    rig.finish_with(first, done(), 2_000_000);
    assert_eq!(depths(&rig), [2]);
    rig.finish_with(JobId(first.0 + 1), done(), 2_000_000);
    assert_eq!(depths(&rig), [2]);
    // Too long for that: what waits is run, and nothing comes behind it.
    rig.finish_with(JobId(first.0 + 2), done(), 9_000_000);
    assert_eq!(depths(&rig), [1]);
}

#[test]
fn foreign_code_is_never_ahead() {
    let mut rig = Rig::new(1);
    for _ in 0..60 {
        let job = rig.submit_as(ALICE, "foreign", 1, Policy::default(), false);
        rig.finish_with(job, done(), 1000);
    }
    rig.submit_as(ALICE, "foreign", 10, Policy::default(), false);
    assert_eq!(depths(&rig), [1]);
}

#[test]
fn an_idle_worker_gets_half_of_what_another_holds() {
    let mut rig = Rig::new(2);
    teach(&mut rig, 60);
    let first = rig.submit(8);
    // One of the two ends all it has; the other one has not begun.
    let (worker, _) = rig.holder(first).unwrap();
    let mine: Vec<JobId> = rig.workers[&worker].iter().map(|held| held.task.job).collect();
    for job in mine {
        rig.finish_with(job, done(), 1000);
    }
    assert!(depths(&rig).len() == 2, "{:?}", depths(&rig));
    assert!(rig.status().totals.taken_back >= 2);
    let left: Vec<JobId> = rig.workers.values().flatten().map(|held| held.task.job).collect();
    for job in left {
        if rig.holder(job).is_some() {
            rig.finish_with(job, done(), 1000);
        }
    }
    assert_eq!(rig.status().totals.stale, 0);
}

#[test]
fn offers_behind_a_long_head_go_to_others() {
    let mut rig = Rig::new(2);
    teach(&mut rig, 60);
    let first = rig.submit(8);
    rig.claim(first);
    let (stuck, _) = rig.holder(first).unwrap();
    rig.pass(5);
    let other = rig.workers.iter().find(|(id, held)| **id != stuck && !held.is_empty()).unwrap();
    let job = other.1[0].task.job;
    rig.finish_with(job, done(), 1000);
    assert_eq!(rig.workers[&stuck].len(), 1, "only its head stays with it");
}

#[test]
fn a_flood_of_short_jobs_does_not_keep_long_ones_from_a_worker() {
    let mut rig = Rig::new(1);
    teach(&mut rig, 60);
    rig.submit(500);
    let long = rig.submit_as(BOB, "foreign", 1, Policy::default(), false);
    let mut ended = 0;
    while rig.holder(long).is_none() {
        let job = rig.workers.values().flatten().next().unwrap().task.job;
        rig.finish_with(job, done(), 1000);
        ended += 1;
        assert!(ended <= 256, "its turn comes when the ring has run empty");
    }
}

/// The job that a worker runs ends.
fn end_one(rig: &mut Rig) -> JobId {
    let job = rig.workers.values().flatten().next().expect("a worker holds some").task.job;
    rig.finish_with(job, done(), 1000);
    job
}

/// Bob submits one job; how many others end before it does.
fn ends_before_one(rig: &mut Rig) -> usize {
    let job = rig.submit_as(BOB, "quick", 1, Policy::default(), false);
    (0..).find(|_| end_one(rig) == job).expect("it ends")
}

#[test]
fn who_has_one_job_at_a_time_does_not_wait_behind_a_whole_ring() {
    let mut rig = Rig::new(1);
    teach(&mut rig, 1000);
    rig.submit(2000);
    let alone = depths(&rig)[0];
    assert!(alone > 200, "{alone}");
    assert!(ends_before_one(&mut rig) >= alone);
    let beside = depths(&rig)[0];
    assert!((16..=64).contains(&beside), "{beside}");
    // Perhaps it was Alice's turn.
    assert!(ends_before_one(&mut rig) <= beside + 1);
    // Nobody comes any more.
    rig.pass(1000);
    end_one(&mut rig);
    assert_eq!(depths(&rig)[0], alone);
}

#[test]
fn two_floods_do_not_make_each_other_shallow() {
    let mut rig = Rig::new(1);
    teach(&mut rig, 1000);
    rig.submit(1000);
    let alone = depths(&rig)[0];
    rig.submit_as(BOB, "quick", 1000, Policy::default(), false);
    for _ in 0..1000 {
        end_one(&mut rig);
        assert_eq!(depths(&rig)[0], alone);
    }
}

#[test]
fn a_slow_flavour_leaves_the_depth_of_others_alone() {
    let mut rig = Rig::new(1);
    teach(&mut rig, 1000);
    teach_flavour(&mut rig, (ALICE, 7), 1000, 1000);
    teach_flavour(&mut rig, (ALICE, 8), 50_000_000, 3);
    let quick = flavoured(&mut rig, ALICE, 7, 400);
    assert_eq!(depths(&rig), [256], "a whole ring of the quick flavour");
    (0..400).for_each(|number| rig.finish_with(JobId(quick.0 + number), done(), 1000));
    let plain = rig.submit(400);
    assert_eq!(depths(&rig), [256], "and of tasks without one");
    (0..400).for_each(|number| rig.finish_with(JobId(plain.0 + number), done(), 1000));
    flavoured(&mut rig, ALICE, 8, 10);
    assert_eq!(depths(&rig), [1], "slow ones wait in the queue");
}

#[test]
fn a_flavour_is_known_by_its_own_tasks_alone() {
    let mut rig = Rig::new(1);
    teach(&mut rig, 1000);
    teach_flavour(&mut rig, (ALICE, 7), 1000, 1000);
    flavoured(&mut rig, ALICE, 9, 10);
    assert_eq!(depths(&rig), [1], "nothing is known of a new flavour, though the kind is quick");
    let mut rig = Rig::new(1);
    teach_flavour(&mut rig, (ALICE, 7), 1000, 1000);
    flavoured(&mut rig, BOB, 7, 10);
    assert_eq!(depths(&rig), [1], "nor of the same number of another user");
}

#[test]
fn flavours_share_the_millisecond_of_work_ahead() {
    let mut rig = Rig::new(1);
    for (client, flavour, elapsed_ns) in [(ALICE, 2, 200_000), (ALICE, 3, 300_000), (BOB, 1, 1000)] {
        teach_flavour(&mut rig, (client, flavour), elapsed_ns, 1000);
    }
    flavoured(&mut rig, ALICE, 3, 3);
    assert_eq!(depths(&rig), [3], "0.9 ms of work");
    flavoured(&mut rig, ALICE, 2, 10);
    assert_eq!(depths(&rig), [3], "0.2 ms is too much beside it, though five of its flavour may wait");
    flavoured(&mut rig, BOB, 1, 20);
    assert_eq!(depths(&rig), [23], "a microsecond is not");
}

#[test]
fn a_client_with_a_flavour_for_each_task_costs_nobody_else_a_depth() {
    let mut rig = Rig::new(1);
    teach_flavour(&mut rig, (BOB, 7), 1000, 1000);
    for flavour in 1..500 {
        teach_flavour(&mut rig, (ALICE, flavour), 1000, 1);
    }
    flavoured(&mut rig, BOB, 7, 400);
    assert_eq!(depths(&rig), [256]);
}
