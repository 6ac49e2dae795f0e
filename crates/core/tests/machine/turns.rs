//! Whose job is next: the user with the fewest workers, that user's most urgent level over all connections, the
//! connections of a level by turns. And what one take costs when nothing fits.
//!
//! A worker holds one job of the kind `foreign` at a time.

use bulkhead_core::config::{Config, Users};
use bulkhead_core::event::{Event, TaskResult};
use bulkhead_proto::client::view::WorkerState;
use bulkhead_proto::death::Death;
use bulkhead_proto::ids::{ClientId, JobId};
use bulkhead_proto::job::{OutputMode, Payload, Policy};
use bulkhead_proto::worker::stage::Stage;

use crate::rig::{ALICE, BOB, Rig, SEGV, config};

const CAROL: ClientId = ClientId(4);
/// Other connections of Alice.
const SECOND: ClientId = ClientId(40);
const THIRD: ClientId = ClientId(41);

fn rig(slots: u16) -> Rig {
    connected(config(slots))
}

fn connected(config: Config) -> Rig {
    let mut rig = Rig::with(config);
    rig.connect(CAROL, 4, false);
    rig.connect(SECOND, 1, false);
    rig.connect(THIRD, 1, false);
    rig
}

fn submit(rig: &mut Rig, client: ClientId, count: usize, priority: u8) -> JobId {
    rig.submit_as(client, "foreign", count, Policy { priority, ..Policy::default() }, false)
}

/// A short job, which may wait in a ring behind others.
fn short(rig: &mut Rig, client: ClientId, count: usize) -> JobId {
    rig.submit_as(client, "quick", count, Policy::default(), false)
}

/// Ends what runs in the only worker, one after the other, and gives the order.
fn order(rig: &mut Rig, count: usize) -> Vec<u64> {
    (0..count)
        .map(|_| {
            let job = rig.workers.values().flatten().next().expect("something runs").task.job;
            rig.finish(job);
            job.0
        })
        .collect()
}

#[test]
fn priority_is_among_all_jobs_of_a_user() {
    let mut rig = rig(1);
    let first = submit(&mut rig, ALICE, 6, 9);
    let low = submit(&mut rig, SECOND, 6, 0);
    let seen = order(&mut rig, 12);
    let lows: Vec<u64> = (low.0..low.0 + 6).collect();
    assert_eq!(seen[6..], lows, "all of priority 9 go first, from {first}: {seen:?}");
}

#[test]
fn connections_of_one_level_take_turns() {
    let mut rig = rig(1);
    let running = submit(&mut rig, ALICE, 1, 9);
    let ones = submit(&mut rig, ALICE, 3, 5);
    let twos = submit(&mut rig, SECOND, 2, 5);
    let threes = submit(&mut rig, THIRD, 1, 5);
    let high = submit(&mut rig, THIRD, 1, 6);
    let (one, two) = (ones.0, twos.0);
    let expected = [running.0, high.0, one, two, threes.0, one + 1, two + 1, one + 2];
    assert_eq!(order(&mut rig, 8), expected);
}

#[test]
fn a_level_is_as_urgent_as_its_oldest_job_of_any_connection() {
    let mut rig = connected(Config { ageing_ms: 1000, ..config(1) });
    let running = submit(&mut rig, ALICE, 1, 0);
    let old = submit(&mut rig, ALICE, 1, 1);
    rig.sleep(2500);
    let high = submit(&mut rig, SECOND, 1, 3);
    let young = submit(&mut rig, THIRD, 2, 1);
    // Two and a half steps raise the level of the old job over the one that is two above it; the rest of that level is young.
    assert_eq!(order(&mut rig, 5), [running.0, old.0, high.0, young.0, young.0 + 1]);
}

#[test]
fn a_parked_connection_counts_neither_for_the_level_nor_for_turns() {
    let config = Config { ageing_ms: 1000, client_credit_bytes: 1000, ..config(1) };
    let mut rig = connected(config);
    // She leaves so much unread that her jobs rest.
    let policy = Policy { priority: 1, ..Policy::default() };
    let mut next = rig.submit_as(ALICE, "quick", 30, policy, true);
    while rig.holder(next).is_some() {
        rig.finish_with(next, TaskResult::Inline(Payload::from(vec![1; 2048])), 2_000_000);
        next.0 += 1;
    }
    rig.sleep(60_000);
    let busy = submit(&mut rig, SECOND, 1, 0);
    let low = submit(&mut rig, SECOND, 1, 1);
    let high = submit(&mut rig, THIRD, 1, 2);
    assert_eq!(order(&mut rig, 3), [busy.0, high.0, low.0], "her old jobs make no level urgent");
    assert!(rig.holder(next).is_none());
    let busy = submit(&mut rig, SECOND, 1, 0);
    let high = submit(&mut rig, THIRD, 2, 2);
    for _ in 0..4 {
        rig.tell(Event::ClientFlushed { client: ALICE });
    }
    let seen = order(&mut rig, 3);
    assert_eq!(seen[..2], [busy.0, next.0], "she reads, and they are the oldest: {seen:?} before {high}");
}

#[test]
fn parts_and_jobs_of_a_level_take_turns_in_each_connection() {
    let mut rig = rig(1);
    let fan = rig.planned(50, Policy { priority: 5, ..Policy::default() });
    submit(&mut rig, ALICE, 40, 5);
    let others = submit(&mut rig, SECOND, 40, 5);
    let seen = order(&mut rig, 41);
    let parts = seen.iter().filter(|job| **job == fan.0).count();
    let others = seen.iter().filter(|job| **job >= others.0).count();
    assert!((9..=11).contains(&parts) && (19..=21).contains(&others), "{seen:?}");
}

/// A worker that holds an offer of this job ends it, and gets the next one.
fn next_after(rig: &mut Rig, job: JobId) -> JobId {
    let worker = rig.claim(job);
    rig.finish(job);
    rig.workers[&worker].first().expect("it gets the next one").task.job
}

#[test]
fn the_user_with_the_fewest_workers_goes_first() {
    let mut rig = rig(3);
    let alice = submit(&mut rig, ALICE, 5, 9);
    let bob = submit(&mut rig, BOB, 5, 0);
    // Three workers were idle: all went to Alice, who was alone then.
    assert!((0..3).all(|next| rig.holder(JobId(alice.0 + next)).is_some()));
    assert_eq!(next_after(&mut rig, alice), bob, "he holds none");
    assert_eq!(next_after(&mut rig, JobId(alice.0 + 1)), JobId(alice.0 + 3), "one each: her turn");
    assert_eq!(next_after(&mut rig, JobId(alice.0 + 2)), JobId(bob.0 + 1), "one each: his turn");
    let carol = submit(&mut rig, CAROL, 9, 0);
    assert_eq!(next_after(&mut rig, JobId(alice.0 + 3)), JobId(alice.0 + 4), "none, as Carol, who came last");
    assert_eq!(next_after(&mut rig, bob), carol, "the others hold one each");
}

#[test]
fn who_ends_one_and_has_another_does_not_go_before_who_holds_none() {
    let mut rig = rig(2);
    let alice = submit(&mut rig, ALICE, 9, 9);
    let bob = submit(&mut rig, BOB, 2, 0);
    let carol = submit(&mut rig, CAROL, 2, 0);
    // Alice sleeps in one worker for ever; the other one is for those who hold none.
    let (mut job, mut seen) = (JobId(alice.0 + 1), Vec::new());
    for _ in 0..5 {
        job = next_after(&mut rig, job);
        seen.push(job.0);
    }
    assert_eq!(seen, [bob.0, carol.0, bob.0 + 1, carol.0 + 1, alice.0 + 2]);
}

#[test]
fn offers_ahead_are_no_workers() {
    let mut rig = rig(1);
    for _ in 0..60 {
        let job = short(&mut rig, ALICE, 1);
        rig.finish_with(job, TaskResult::Inline(Payload::default()), 1000);
    }
    let alice = short(&mut rig, ALICE, 2);
    let bob = short(&mut rig, BOB, 9);
    let held =
        |rig: &Rig| -> Vec<u64> { rig.workers.values().flatten().map(|held| held.task.job.0).collect() };
    let all: Vec<u64> = [alice.0, alice.0 + 1].into_iter().chain(bob.0..bob.0 + 9).collect();
    assert_eq!(held(&rig), all, "he holds none, however many of his wait in the ring");
    let worker = rig.claim(alice);
    rig.finish_with(alice, TaskResult::Inline(Payload::default()), 1000);
    rig.finish_with(JobId(alice.0 + 1), TaskResult::Inline(Payload::default()), 1000);
    assert_eq!(held(&rig)[0], bob.0, "he holds worker {worker} now");
}

#[test]
fn a_dead_or_stuck_worker_is_held_no_longer() {
    // Where a daemon is for one user, that user's stuck workers bound nothing.
    let mut rig = connected(Config { stuck_after_ms: 1000, users: Users::One, ..config(2) });
    let alice = submit(&mut rig, ALICE, 4, 9);
    let bob = submit(&mut rig, BOB, 1, 0);
    let dead = rig.claim(alice);
    rig.die(dead, SEGV);
    // Her charged job runs alone; the next worker is for him who holds none.
    assert!(rig.holder(alice).is_some());
    let second = JobId(alice.0 + 1);
    assert_eq!(next_after(&mut rig, second), bob);
    // A worker that gets stuck gives its slot away, and is not of the pool any more: she holds none then.
    let worker = rig.claim(alice);
    rig.claim(bob);
    rig.tell(Event::Violated { worker, violation: bulkhead_proto::death::Violation::Lane });
    rig.sleep(2000);
    assert!(rig.holder(JobId(alice.0 + 2)).is_some(), "another worker has the slot");
    let carol = submit(&mut rig, CAROL, 1, 0);
    rig.finish(bob);
    assert!(rig.holder(carol).is_some(), "Alice holds one, Carol none");
}

#[test]
fn an_idle_worker_gets_the_only_job_that_fits_behind_hundreds_that_do_not() {
    let mut rig = rig(1);
    let fan = submit_fan(&mut rig, ALICE);
    rig.plan(fan, 50);
    // As many plans as may be are made; the rest wait.
    let clients: Vec<ClientId> = (100..260).map(ClientId).collect();
    for client in &clients {
        rig.connect(*client, 1, false);
        submit_fan(&mut rig, *client);
    }
    let mut ended = 0;
    while let Some(task) = rig.workers.values().flatten().next().map(|held| held.task.clone()) {
        if task.stage == Stage::Plan {
            rig.plan(task.job, 2);
        } else {
            order(&mut rig, 1);
        }
        ended += 1;
        assert!(ended < 10_000, "it comes to an end");
    }
    assert_eq!(rig.status().queued, 0, "every job was found");
}

fn submit_fan(rig: &mut Rig, client: ClientId) -> JobId {
    rig.submit_as(client, "fan", 1, Policy::default(), false)
}

/// The rest of a search that found nothing within its looks goes on by itself, and then rests.
#[test]
fn a_search_that_is_not_over_asks_for_the_next_turn_at_once() {
    let mut rig = rig(1);
    let policy = Policy { output: OutputMode::Descriptor, ..Policy::default() };
    let first = rig.submit_as(ALICE, "quick", 1, policy.clone(), false);
    let (worker, seq) = rig.holder(first).unwrap();
    rig.workers.get_mut(&worker).unwrap().clear();
    // No descriptor can be made for a while: nothing of this fits.
    rig.tell(Event::OfferFailed { worker, seq, taken: true, shortage: Some("no descriptors".into()) });
    for client in (100..400).map(ClientId) {
        rig.connect(client, 1, false);
        rig.submit_as(client, "quick", 1, policy.clone(), false);
    }
    assert!(rig.workers[&worker].is_empty());
    let fits = submit(&mut rig, SECOND, 1, 0);
    assert_eq!(rig.holder(fits).map(|(worker, _)| worker), Some(worker), "it was found behind all of them");
    rig.finish(fits);
    assert!(rig.core.deadline().is_some_and(|at| at > rig.now.mono_ns), "and then nothing is asked for");
}

#[test]
fn retries_that_run_alone_take_turns_with_the_jobs_of_others() {
    for slots in [1, 2] {
        let mut rig = rig(slots);
        // Jobs that crash again and again, more than there are workers.
        let stubborn = Policy { crashes_max: Some(200), ..Policy::default() };
        let first = rig.submit_as(ALICE, "foreign", 4, stubborn, false);
        let hers: Vec<JobId> = (first.0..first.0 + 4).map(JobId).collect();
        let crash_all = |rig: &mut Rig| {
            for job in &hers {
                if rig.holder(*job).is_some() {
                    rig.crash(*job);
                }
            }
            for worker in std::mem::take(&mut rig.retired) {
                rig.die(worker, Death::Retired);
            }
            // Until new workers are up, however long spawns are paused.
            while rig.rows().iter().all(|row| row.state != WorkerState::Spare) {
                rig.sleep(100);
            }
        };
        (0..4).for_each(|_| crash_all(&mut rig));
        let other = submit(&mut rig, CAROL, 3, 5);
        let mut crashes = 0;
        for job in (other.0..other.0 + 3).map(JobId) {
            while rig.holder(job).is_none() {
                crash_all(&mut rig);
                crashes += 1;
                assert!(crashes <= 8, "{slots} slots: job {job} of another user waits behind them");
            }
            rig.finish(job);
        }
        let running = hers.iter().filter(|job| rig.holder(**job).is_some()).count();
        assert!(running > 0, "{slots} slots: hers go on");
    }
}
