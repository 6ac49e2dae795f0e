//! Recycling of workers by number of tasks, age and size: never without a ready spare, never at a job's cost.

use bulkhead_core::config::Config;
use bulkhead_core::event::TaskResult;
use bulkhead_proto::client::evidence::ProcessSeen;
use bulkhead_proto::client::record::{Enough, What};
use bulkhead_proto::client::view::PoolHealth;
use bulkhead_proto::death::Death;
use bulkhead_proto::ids::WorkerId;
use bulkhead_proto::job::Payload;

use crate::rig::{Rig, config};

fn after_tasks(slots: u16, tasks: u64) -> Rig {
    Rig::with(Config { recycle_tasks: Some(tasks), ..config(slots) })
}

/// Runs one job to its end and says in which worker.
fn run_one(rig: &mut Rig) -> WorkerId {
    let job = rig.submit(1);
    let worker = rig.claim(job);
    rig.finish_with(job, TaskResult::Inline(Payload::default()), 1000);
    worker
}

/// Lets those leave that were asked to.
fn let_leave(rig: &mut Rig) {
    for worker in std::mem::take(&mut rig.retired) {
        rig.die(worker, Death::Retired);
    }
    rig.sleep(10);
}

#[test]
fn a_worker_leaves_after_its_tasks_and_a_spare_takes_its_slot() {
    let mut rig = after_tasks(1, 3);
    let mut runs = Vec::new();
    for _ in 0..9 {
        runs.push(run_one(&mut rig));
        let_leave(&mut rig);
    }
    assert!(runs.chunks(3).all(|three| three.iter().all(|worker| *worker == three[0])), "{runs:?}");
    assert!(runs[0] != runs[3] && runs[3] != runs[6], "{runs:?}");
    let three = |what: &What| matches!(what, What::Recycled { why: Enough::Tasks { ended: 3 }, .. });
    assert_eq!(rig.recorded(three), 3);
    assert_eq!(rig.status().totals.deaths, 0, "leaving when asked to is no death");
    assert_eq!(rig.status().health, PoolHealth::Healthy);
    assert_eq!(rig.recorded(|what| matches!(what, What::NobodyBlamed { .. } | What::Requeued { .. })), 0);
}

#[test]
fn without_a_spare_the_old_worker_goes_on() {
    let mut rig = after_tasks(2, 1);
    rig.come_up = false;
    let mut runs = vec![run_one(&mut rig)];
    assert_eq!(rig.retired.len(), 1, "one spare was ready");
    rig.sleep(50);
    for _ in 0..10 {
        runs.push(run_one(&mut rig));
    }
    assert_eq!(rig.retired.len(), 1, "and no other came up");
    let fresh = *rig.spawned.last().expect("one is on its way");
    rig.come_up_now(fresh);
    rig.turn();
    assert_eq!(rig.retired.len(), 2, "the next one makes room when there is one");
}

#[test]
fn under_full_load_with_work_ahead_it_still_comes_to_it() {
    let mut rig = after_tasks(1, 500);
    for _ in 0..100 {
        run_one(&mut rig);
    }
    let first = rig.submit(2000);
    let (mut ended, mut most) = (100, 0);
    for number in 0..2000 {
        let job = bulkhead_proto::ids::JobId(first.0 + number);
        let worker = rig.claim(job);
        rig.finish_with(job, TaskResult::Inline(Payload::default()), 1000);
        ended += 1;
        most = most.max(ended);
        if rig.retired.contains(&worker) {
            ended = 0;
            let_leave(&mut rig);
        }
    }
    assert_eq!(most, 500, "exactly its share while a spare is ready");
    assert!(rig.killed.is_empty());
}

#[test]
fn age_counts_after_a_task_and_wakes_nobody() {
    let mut rig = Rig::with(Config { recycle_age_ms: Some(1000), ..config(1) });
    rig.sleep(5000);
    assert!(rig.retired.is_empty(), "who has run nothing is not due");
    assert_eq!(rig.core.deadline(), None, "an idle daemon sleeps");
    let old = run_one(&mut rig);
    assert_eq!(rig.retired, [old]);
    let says = |what: &What| matches!(what, What::Recycled { worker, why: Enough::Age { ms: 5000.. } } if *worker == old);
    assert_eq!(rig.recorded(says), 1);
}

#[test]
fn a_worker_that_has_grown_leaves_after_its_task() {
    let mut rig = Rig::with(Config { recycle_resident_bytes: Some(1 << 20), ..config(1) });
    for _ in 0..50 {
        run_one(&mut rig);
    }
    assert_eq!(rig.examined, 1, "once a second at most");
    assert!(rig.retired.is_empty());
    rig.seen = Some(ProcessSeen { resident_bytes: 2 << 20, ..ProcessSeen::default() });
    rig.pass(1001);
    let grown = run_one(&mut rig);
    assert_eq!(rig.retired, [grown]);
    let why = Enough::Resident { bytes: 2 << 20 };
    assert_eq!(rig.recorded(|what| *what == What::Recycled { worker: grown, why }), 1);
}
