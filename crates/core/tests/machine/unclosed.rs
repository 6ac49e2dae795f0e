//! Workers with too many files of clients whose close hangs: offered nothing, replaced as one that has grown, stuck for whom they served.

use bulkhead_core::config::{Config, Users};
use bulkhead_core::event::Event;
use bulkhead_proto::client::record::{Enough, What};
use bulkhead_proto::client::view::PoolHealth;
use bulkhead_proto::client::why::WhyNow;
use bulkhead_proto::ids::WorkerId;
use bulkhead_proto::limits::UNCLOSED_MAX;

use crate::rig::{ALICE, Rig, config};

const MANY: u64 = UNCLOSED_MAX + 1;

/// Runs one job to its end and says in which worker.
fn run_one(rig: &mut Rig) -> WorkerId {
    let job = rig.submit(1);
    let worker = rig.claim(job);
    rig.finish(job);
    worker
}

#[test]
fn it_gives_its_slot_to_a_spare_and_nobody_is_blamed() {
    let mut rig = Rig::with(config(1));
    let old = run_one(&mut rig);
    rig.tell(Event::Unclosed { worker: old, files: UNCLOSED_MAX });
    assert_eq!((run_one(&mut rig), rig.retired.len()), (old, 0), "so many may be");
    rig.tell(Event::Unclosed { worker: old, files: MANY });
    rig.turn();
    assert_eq!(rig.retired, [old]);
    let why = Enough::Unclosed { files: MANY };
    assert_eq!(rig.recorded(|what| *what == What::Recycled { worker: old, why }), 1);
    assert_ne!(run_one(&mut rig), old);
    assert_eq!((rig.status().health, rig.status().totals.deaths), (PoolHealth::Healthy, 0));
}

#[test]
fn without_a_spare_it_is_offered_nothing_until_its_closes_go_on() {
    let mut rig = Rig::with(config(1));
    rig.come_up = false;
    let first = run_one(&mut rig);
    rig.tell(Event::Unclosed { worker: first, files: MANY });
    rig.turn();
    let second = run_one(&mut rig);
    assert_ne!(first, second, "one spare was ready");
    rig.tell(Event::Unclosed { worker: second, files: MANY });
    let job = rig.submit(1);
    rig.sleep(50);
    assert_eq!((rig.holder(job), rig.killed.len()), (None, 0));
    let why = rig.why(ALICE, job);
    let WhyNow::Queued { pool, .. } = &why.now else { panic!("{why:?}") };
    assert_eq!((pool.unclosed, pool.spent, pool.idle, pool.closed), (1, 0, 0, 0));
    rig.tell(Event::Unclosed { worker: second, files: 0 });
    rig.turn();
    assert_eq!(rig.holder(job).map(|(worker, _)| worker), Some(second));
}

/// Four slots; the files keep the processes.
#[test]
fn workers_that_cannot_end_count_as_stuck_for_the_user_whom_they_served() {
    const STUCK_AFTER_MS: u64 = 1000;
    let mut rig = Rig::with(Config { users: Users::Several, stuck_after_ms: STUCK_AFTER_MS, ..config(4) });
    let kept = run_one(&mut rig);
    rig.tell(Event::Unclosed { worker: kept, files: MANY });
    rig.turn();
    assert_eq!(rig.retired, [kept]);
    // It is to leave, is killed because it does not, and is not gone.
    rig.sleep(60_000);
    assert!(rig.killed.contains_key(&kept));
    rig.sleep(2 * STUCK_AFTER_MS);
    let jobs = rig.submit(4);
    let running = (jobs.0..jobs.0 + 4).map(bulkhead_proto::ids::JobId);
    let running = running.filter(|job| rig.holder(*job).is_some()).count();
    assert_eq!(running, 1, "half of the slots, less one");
}

/// One slot: a second one that is stuck because of such files would be one more for ever.
#[test]
fn it_keeps_its_slot_while_as_many_are_leaving_as_there_are_slots() {
    let mut rig = Rig::with(config(1));
    let first = run_one(&mut rig);
    rig.tell(Event::Unclosed { worker: first, files: MANY });
    rig.turn();
    assert_eq!(rig.retired, [first]);
    let second = run_one(&mut rig);
    rig.tell(Event::Unclosed { worker: second, files: MANY });
    rig.turn();
    let job = rig.submit(1);
    rig.sleep(50);
    assert_eq!((rig.retired.as_slice(), rig.holder(job)), (&[first][..], None));
    rig.tell(Event::Unclosed { worker: second, files: 1 });
    rig.turn();
    assert_eq!(rig.holder(job).map(|(worker, _)| worker), Some(second));
}
