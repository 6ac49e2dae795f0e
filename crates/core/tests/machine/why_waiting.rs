//! What `why` answers for a job that waits: the jobs before it, the state of the workers, what is short.
//!
//! `proto` has the words and tests them; these tests compare the values.

use bulkhead_core::config::Config;
use bulkhead_core::event::{Event, TaskResult};
use bulkhead_proto::client::view::PoolHealth;
use bulkhead_proto::client::why::{DrainLeft, Longest, QueuedBefore, WhyNow, WhyPool};
use bulkhead_proto::death::Violation;
use bulkhead_proto::ids::{ClientId, JobId};
use bulkhead_proto::job::{OutputMode, Payload, Policy};

use crate::rig::{ADMIN, ALICE, BOB, Rig, config};
use crate::why::{before, busy, running};

fn with_priority(rig: &mut Rig, priority: u8) -> JobId {
    rig.submit_as(ALICE, "quick", 1, Policy { priority, ..Policy::default() }, false)
}

fn pool(rig: &mut Rig, job: JobId) -> WhyPool {
    match rig.why(ADMIN, job).now {
        WhyNow::Queued { pool, .. } | WhyNow::Alone { pool, .. } => pool,
        other => panic!("not waiting: {other:?}"),
    }
}

#[test]
fn who_goes_before_a_queued_job_is_counted_as_the_queue_will_take_them() {
    let (mut rig, _) = busy();
    let low = with_priority(&mut rig, 0);
    let middle = with_priority(&mut rig, 5);
    let later = with_priority(&mut rig, 5);
    rig.submit_as(BOB, "quick", 3, Policy::default(), false);
    let second = ClientId(9);
    rig.connect(second, 1, false);
    rig.submit_as(second, "quick", 2, Policy { priority: 5, ..Policy::default() }, false);
    // Alice holds the only worker, so Bob goes first.
    let rest = QueuedBefore { others: 3, users: 1, users_first: 1, ..QueuedBefore::default() };
    let told = before(&mut rig, low);
    assert_eq!(told, QueuedBefore { same_client: 2, same_user: 2, ..rest.clone() }, "all of hers go first");
    let told = before(&mut rig, middle);
    assert_eq!(told, QueuedBefore { clients: 1, ..rest.clone() }, "her connections take turns");
    assert_eq!(before(&mut rig, later), QueuedBefore { same_client: 1, clients: 1, ..rest });
    // Waiting outweighs priority in the end: a younger urgent job no longer goes first.
    rig.sleep(100_000);
    let urgent = with_priority(&mut rig, 9);
    let told = before(&mut rig, urgent);
    assert_eq!((told.same_client, told.same_user, told.clients), (3, 2, 0));
    let WhyNow::Queued { waited_ms, raised, priority, .. } = rig.why(ALICE, low).now else {
        panic!("queued")
    };
    assert_eq!((waited_ms, raised, priority), (100_000, 10, 0));
}

#[test]
fn the_order_that_is_told_is_the_order_of_starts() {
    let (mut rig, long) = busy();
    for priority in [3, 9, 0, 3, 7] {
        with_priority(&mut rig, priority);
        rig.pass(3000);
    }
    let mut told: Vec<(u64, JobId)> = (long.0 + 1..=long.0 + 5)
        .map(|number| (before(&mut rig, JobId(number)).same_client, JobId(number)))
        .collect();
    told.sort_unstable();
    assert_eq!(told.iter().map(|(count, _)| *count).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    rig.finish(long);
    for (_, job) in told {
        assert!(rig.holder(job).is_some(), "job {job} is the next one");
        rig.finish(job);
    }
}

#[test]
fn a_waiting_job_is_told_of_the_workers_and_not_of_whose_jobs_they_run() {
    let (mut rig, long) = busy();
    let job = rig.submit_as(BOB, "quick", 1, Policy { expires_ms: Some(5000), ..Policy::default() }, false);
    rig.pass(1);
    let worker = rig.holder(long).unwrap().0;
    let WhyNow::Queued { pool, expires_in_ms, unread, shortage_ms, .. } = rig.why(BOB, job).now else {
        panic!("queued")
    };
    assert_eq!((pool.slots, pool.busy, pool.idle, pool.spares), (1, 1, 0, 1));
    assert_eq!(pool.longest, Some(Longest { job: None, worker, for_ms: 2001 }), "not his job");
    assert_eq!((expires_in_ms, unread, shortage_ms), (Some(4999), None, None));
    let WhyNow::Queued { pool, .. } = rig.why(ADMIN, job).now else { panic!("queued") };
    assert_eq!(pool.longest.unwrap().job, Some(long));
    assert_eq!(pool.drain, None);
    rig.tell(Event::Drain { grace_ms: Some(700) });
    assert_eq!(self::pool(&mut rig, job).drain, Some(DrainLeft { left_ms: Some(700) }));
}

#[test]
fn without_a_worker_it_says_what_keeps_them() {
    let mut rig = Rig::cold(Config { restart_intensity: 0, ..config(1) });
    rig.come_up = false;
    rig.turn();
    rig.connect(ALICE, 1, false);
    rig.connect(ADMIN, 0, true);
    let job = rig.submit(1);
    let cold = pool(&mut rig, job);
    assert_eq!((cold.busy + cold.idle, cold.starting, cold.health), (0, 2, PoolHealth::Starting));
    assert_eq!(cold.next_spawn_ms, None, "all are on their way");
    for worker in rig.spawned.clone() {
        rig.tell(Event::SpawnFailed { worker, error: "no more processes".to_owned() });
    }
    let ill = pool(&mut rig, job);
    assert_eq!((ill.starting, ill.health), (0, PoolHealth::Degraded));
    assert!(ill.health_reason.contains("no more processes"), "{}", ill.health_reason);
    assert_eq!(ill.next_spawn_ms.map(|ms| ms > 0), Some(true));
}

#[test]
fn a_killed_worker_keeps_its_slot_until_the_proof() {
    let (mut rig, long) = busy();
    let worker = rig.holder(long).unwrap().0;
    let job = rig.submit(1);
    rig.come_up = false;
    rig.tell(Event::Violated { worker, violation: Violation::Lane });
    assert_eq!(pool(&mut rig, job).dying, 1);
    let holder = running(&mut rig, long).holder;
    assert_eq!(holder.killed.as_deref(), Some("protocol violation (malformed lane frame)"));
    assert!(!holder.stuck);
    rig.sleep(20_000);
    assert!(running(&mut rig, long).holder.stuck);
}

#[test]
fn a_client_that_does_not_read_holds_its_own_jobs_back() {
    let mut rig = Rig::with(Config { client_credit_bytes: 1000, ..config(1) });
    let first = rig.submit_as(ALICE, "quick", 20, Policy::default(), true);
    let mut next = first;
    while rig.holder(next).is_some() {
        rig.finish_with(next, TaskResult::Inline(Payload::from(vec![1; 2048])), 2_000_000);
        next.0 += 1;
    }
    let WhyNow::Queued { unread, .. } = rig.why(ADMIN, next).now else { panic!("queued") };
    let unread = unread.expect("she has read nothing");
    assert!(unread.bytes > unread.bytes_max && unread.of_user.is_none(), "{unread:?}");
    rig.tell(Event::ClientFlushed { client: ALICE });
    rig.tell(Event::ClientFlushed { client: ALICE });
    rig.tell(Event::ClientFlushed { client: ALICE });
    assert!(rig.holder(next).is_some(), "she reads: it goes on");
}

/// A user's unread results hold back the jobs of that user alone, and `why` names the share that is used up.
#[test]
fn a_user_that_does_not_read_holds_back_nobody_else() {
    let mut rig = Rig::with(Config { client_credit_bytes: 16_000, keep_bytes_max: 20_000, ..config(1) });
    let mut next = rig.submit_as(ALICE, "quick", 40, Policy::default(), true);
    while rig.holder(next).is_some() {
        rig.finish_with(next, TaskResult::Inline(Payload::from(vec![1; 2048])), 2_000_000);
        next.0 += 1;
    }
    let WhyNow::Queued { unread, .. } = rig.why(ADMIN, next).now else { panic!("queued") };
    let met = unread.and_then(|unread| unread.of_user).expect("her user has a share");
    assert_eq!(
        met.to_string(),
        "your share of the bytes of unread results is used up (limit 15000 of 20000, set by keep_bytes_max)"
    );
    let bobs = rig.submit_as(BOB, "quick", 2, Policy::default(), true);
    rig.finish(bobs);
    assert!(rig.holder(JobId(bobs.0 + 1)).is_some(), "he goes on");
    rig.tell(Event::ClientFlushed { client: ALICE });
    rig.tell(Event::ClientFlushed { client: ALICE });
    rig.finish(JobId(bobs.0 + 1));
    assert!(rig.holder(next).is_some(), "she reads: hers go on");
}

#[test]
fn a_shortage_of_descriptors_is_said_to_those_who_need_one() {
    let mut rig = Rig::new(1);
    let policy = Policy { output: OutputMode::Descriptor, ..Policy::default() };
    let job = rig.submit_as(ALICE, "quick", 1, policy, false);
    let (worker, seq) = rig.holder(job).unwrap();
    rig.workers.get_mut(&worker).unwrap().clear();
    rig.tell(Event::OfferFailed { worker, seq, taken: true, shortage: Some("no descriptors".into()) });
    let WhyNow::Queued { shortage_ms, .. } = rig.why(ALICE, job).now else { panic!("queued") };
    assert_eq!(shortage_ms, Some(100));
}
