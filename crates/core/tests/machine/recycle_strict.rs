//! Strict recycling: no worker begins more tasks than its share, however late the spare is, and nothing is stuck because of it.
//!
//! Workers of most tests come up when the test says so. Each task that ends is counted for its worker.

use std::collections::BTreeMap;

use bulkhead_core::config::Config;
use bulkhead_core::event::TaskResult;
use bulkhead_proto::client::evidence::ProcessSeen;
use bulkhead_proto::client::record::{Enough, What};
use bulkhead_proto::client::why::WhyNow;
use bulkhead_proto::death::Death;
use bulkhead_proto::ids::{JobId, WorkerId};
use bulkhead_proto::job::{Payload, Policy};

use crate::lend::{lending, long};
use crate::rig::{ALICE, BOB, Rig, config};

fn strict(slots: u16, spares: u16, tasks: u64) -> Config {
    Config { spares, recycle_tasks: Some(tasks), recycle_strict: true, ..config(slots) }
}

/// Tasks that each worker has begun.
#[derive(Default)]
struct Begun(BTreeMap<WorkerId, u64>);

impl Begun {
    /// The worker that has the first job begins and ends it. Workers that were asked to leave do so.
    fn run(&mut self, rig: &mut Rig, job: JobId) -> WorkerId {
        let worker = rig.claim(job);
        *self.0.entry(worker).or_default() += 1;
        rig.finish_with(job, TaskResult::Inline(Payload::default()), 1000);
        let_leave(rig);
        worker
    }

    /// Runs whatever is offered, the first task of a worker first, until nothing is. Gives how many.
    fn run_all(&mut self, rig: &mut Rig) -> u64 {
        let mut count = 0;
        while let Some(job) = rig.workers.values().find_map(|held| held.first()).map(|held| held.task.job) {
            self.run(rig, job);
            count += 1;
        }
        count
    }

    fn most(&self) -> u64 {
        self.0.values().copied().max().unwrap_or(0)
    }
}

fn let_leave(rig: &mut Rig) {
    for worker in std::mem::take(&mut rig.retired) {
        rig.die(worker, Death::Retired);
    }
    rig.sleep(10);
}

/// The worker that was asked for last comes up.
fn comes_up(rig: &mut Rig) -> WorkerId {
    let worker = rig.spawned.pop().expect("a worker was asked for");
    rig.come_up_now(worker);
    rig.turn();
    let_leave(rig);
    worker
}

#[test]
fn a_late_spare_is_waited_for() {
    for spares in [0, 1] {
        let mut rig = Rig::with(strict(1, spares, 3));
        let mut begun = Begun::default();
        rig.submit(3);
        begun.run_all(&mut rig);
        // With a spare the next one has the slot already.
        rig.come_up = false;
        let first = rig.submit(40);
        let mut ran = 0;
        while ran < 40 {
            ran += begun.run_all(&mut rig);
            assert!(begun.most() <= 3, "{:?}", begun.0);
            if ran < 40 {
                assert!(rig.workers.values().all(Vec::is_empty), "nothing is offered");
                rig.sleep(60_000);
                assert!(rig.workers.values().all(Vec::is_empty), "however late the spare is");
                comes_up(&mut rig);
            }
        }
        let counts: Vec<u64> = begun.0.into_values().collect();
        assert!(counts.iter().rev().skip(1).all(|count| *count == 3), "exactly its share each: {counts:?}");
        assert!(rig.outcome(JobId(first.0 + 39)).is_some());
        assert_eq!(rig.status().totals.deaths, 0);
    }
}

#[test]
fn work_ahead_counts() {
    for spares in [0, 1] {
        let mut rig = Rig::with(strict(2, spares, 100));
        let mut begun = Begun::default();
        for _ in 0..30 {
            rig.submit(1);
            begun.run_all(&mut rig);
        }
        rig.submit(3000);
        let deepest = rig.workers.values().map(Vec::len).max();
        assert!(deepest > Some(4), "{deepest:?}");
        assert_eq!(begun.run_all(&mut rig), 3000);
        assert_eq!(begun.most(), 100);
        let full = begun.0.values().filter(|count| **count == 100).count();
        assert!(full >= 28, "{:?}", begun.0);
    }
}

#[test]
fn one_task_a_worker() {
    let mut rig = Rig::with(strict(2, 1, 1));
    let mut begun = Begun::default();
    rig.submit(50);
    assert_eq!(begun.run_all(&mut rig), 50);
    assert_eq!((begun.most(), begun.0.len()), (1, 50));
}

#[test]
fn an_offer_that_was_taken_back_does_not_count() {
    let mut rig = Rig::with(strict(2, 0, 200));
    let mut begun = Begun::default();
    for _ in 0..60 {
        rig.submit(1);
        begun.run_all(&mut rig);
    }
    let before = rig.status().totals.taken_back;
    // One worker ends what it has at once, again and again; the other one is relieved of what it has not begun.
    for _ in 0..20 {
        let first = rig.submit(8);
        let (worker, _) = rig.holder(first).expect("it is offered");
        let mine: Vec<JobId> = rig.workers[&worker].iter().map(|held| held.task.job).collect();
        for job in mine {
            if rig.holder(job).is_some_and(|(holder, _)| holder == worker) {
                begun.run(&mut rig, job);
            }
        }
        begun.run_all(&mut rig);
    }
    assert!(rig.status().totals.taken_back > before, "some were taken back");
    rig.submit(600);
    assert!(begun.run_all(&mut rig) > 0);
    let full = begun.0.values().filter(|count| **count == 200).count();
    assert!(begun.most() == 200 && full >= 2, "each still begins its whole share: {:?}", begun.0);
}

#[test]
fn a_retry_that_runs_alone_counts() {
    let mut rig = Rig::with(strict(1, 1, 2));
    let mut begun = Begun::default();
    let policy = Policy { retries_max: Some(3), ..Policy::default() };
    let job = rig.submit_as(ALICE, "quick", 1, policy, false);
    rig.crash(job);
    rig.sleep(10);
    let fresh = begun.run(&mut rig, job);
    rig.come_up = false;
    rig.submit(5);
    begun.run_all(&mut rig);
    assert_eq!(begun.0[&fresh], 2, "the retry and one more");
}

#[test]
fn a_lent_worker_leaves_after_its_share() {
    let config = Config { recycle_tasks: Some(3), recycle_strict: true, ..lending(1, 1) };
    let mut rig = Rig::with(config);
    let alice = long(&mut rig, ALICE, 1);
    rig.claim(alice);
    let bob = long(&mut rig, BOB, 10);
    rig.sleep(5000);
    // No further worker comes up: nothing replaces the lent one.
    rig.come_up = false;
    let mut begun = Begun::default();
    let (lent, _) = rig.holder(bob).expect("a slot is lent");
    for number in 0..3 {
        assert_eq!(begun.run(&mut rig, JobId(bob.0 + number)), lent);
        rig.come_up = false;
    }
    let fourth = JobId(bob.0 + 3);
    let is_another = |rig: &Rig| rig.holder(fourth).is_none_or(|(worker, _)| worker != lent);
    assert!(is_another(&rig) && !rig.workers.contains_key(&lent), "it has left");
    while rig.holder(fourth).is_none() {
        comes_up(&mut rig);
        rig.sleep(5000);
    }
    assert!(is_another(&rig));
}

#[test]
fn workers_of_one_user_each_keep_to_their_shares() {
    let mut rig = Rig::with(Config { one_user: true, ..strict(2, 1, 3) });
    let mut begun = Begun::default();
    long(&mut rig, ALICE, 20);
    long(&mut rig, BOB, 20);
    assert_eq!(begun.run_all(&mut rig), 40);
    assert_eq!(begun.most(), 3);
}

#[test]
fn a_worker_that_has_grown_or_is_old_is_offered_nothing() {
    for (bytes, age_ms) in [(Some(1 << 20), None), (None, Some(1000))] {
        let config = Config {
            recycle_resident_bytes: bytes,
            recycle_age_ms: age_ms,
            recycle_strict: true,
            spares: 0,
            ..config(1)
        };
        let mut rig = Rig::with(config);
        rig.come_up = false;
        rig.seen = Some(ProcessSeen { resident_bytes: 2 << 20, ..ProcessSeen::default() });
        rig.sleep(5000);
        let mut begun = Begun::default();
        let first = rig.submit(1);
        let old = begun.run(&mut rig, first);
        let next = rig.submit(1);
        rig.sleep(60_000);
        assert!(rig.holder(next).is_none(), "it waits for a spare");
        let fresh = comes_up(&mut rig);
        assert_eq!(begun.run(&mut rig, next), fresh);
        let of_old = |what: &What| match what {
            What::Recycled { worker, why } => {
                *worker == old && matches!(why, Enough::Age { .. } | Enough::Resident { .. })
            }
            _ => false,
        };
        assert_eq!(rig.recorded(of_old), 1);
    }
}

#[test]
fn why_says_that_a_spare_is_waited_for() {
    let mut rig = Rig::with(strict(1, 0, 1));
    rig.come_up = false;
    let first = rig.submit(1);
    Begun::default().run(&mut rig, first);
    let job = rig.submit(1);
    let why = rig.why(ALICE, job);
    let WhyNow::Queued { pool, .. } = &why.now else { panic!("{why:?}") };
    assert_eq!((pool.spent, pool.idle, pool.closed), (1, 0, 0));
    let text = why.to_string();
    assert!(text.contains("1 worker gets no further task (recycle_strict) until a spare is up"), "{text}");
}

#[test]
fn a_pool_that_is_not_strict_goes_on() {
    let pool = |strict| Config { recycle_strict: strict, ..strict_off(1) };
    for (is_strict, begins) in [(false, 5), (true, 2)] {
        let mut rig = Rig::with(pool(is_strict));
        rig.come_up = false;
        rig.submit(5);
        assert_eq!(Begun::default().run_all(&mut rig), begins);
    }
}

fn strict_off(slots: u16) -> Config {
    Config { recycle_strict: false, ..strict(slots, 0, 2) }
}
