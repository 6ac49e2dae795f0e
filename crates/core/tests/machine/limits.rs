//! Limits of time and number: timeouts, expiry, failures with backoff, full channels.
//!
//! Time passes only when a test says so, with a turn at each deadline that the machine asked for.

use bulkhead_core::event::{Event, Leftover, TaskResult};
use bulkhead_proto::client::outcome::{Outcome, TimeLimit};
use bulkhead_proto::client::record::What;
use bulkhead_proto::death::{Death, KillReason};
use bulkhead_proto::ids::JobId;
use bulkhead_proto::job::{JobState, OutputMode, Policy};

use crate::rig::{ALICE, BOB, Rig};

fn timed(timeout_ms: u64) -> Policy {
    Policy { timeout_ms: Some(timeout_ms), ..Policy::default() }
}

#[test]
fn a_claimed_job_times_out_and_its_worker_is_killed() {
    let mut rig = Rig::new(1);
    let job = rig.submit_as(ALICE, "quick", 1, timed(500), false);
    let worker = rig.claim(job);
    rig.sleep(499);
    assert_eq!(rig.looks, 0);
    rig.sleep(2);
    assert_eq!(
        rig.outcome(job),
        Some(Outcome::TimedOut { limit: TimeLimit::Wall, limit_ms: 500, part: None })
    );
    assert_eq!(rig.killed.get(&worker), Some(&KillReason::Timeout));
    rig.die(worker, Death::Killed { why: KillReason::Timeout });
    assert_eq!(rig.recorded(|what| matches!(what, What::Blamed { .. } | What::NobodyBlamed { .. })), 0);
}

#[test]
fn a_limit_that_was_met_in_time_wakes_nobody() {
    let mut rig = Rig::new(1);
    let job = rig.submit_as(ALICE, "quick", 1, timed(500), true);
    rig.claim(job);
    rig.finish(job);
    rig.sleep(100);
    assert_eq!(rig.core.deadline(), None, "an idle daemon sleeps");
    assert_eq!(rig.looks, 0);
}

#[test]
fn an_unclaimed_head_is_given_patience_then_given_to_another() {
    let mut rig = Rig::new(1);
    let job = rig.submit_as(ALICE, "quick", 1, timed(100), false);
    let worker = rig.holder(job).unwrap().0;
    rig.sleep(1500);
    assert!(rig.killed.is_empty(), "a slow start is no crime");
    rig.sleep(1000);
    assert_eq!(rig.killed.get(&worker), Some(&KillReason::Unresponsive));
    assert_eq!(rig.detail(job).row.state, JobState::Queued);
    rig.die(worker, Death::Killed { why: KillReason::Unresponsive });
    assert_ne!(rig.holder(job).expect("another has it").0, worker);
    assert_eq!(rig.detail(job).row.crashes, 0);
}

#[test]
fn a_job_without_a_limit_is_not_left_with_a_worker_that_does_not_begin_it() {
    let mut rig = Rig::new(1);
    let job = rig.submit_as(ALICE, "quick", 1, Policy::default(), false);
    let worker = rig.holder(job).unwrap().0;
    rig.sleep(9_000);
    assert!(rig.killed.is_empty(), "a slow start is no crime");
    rig.sleep(2_000);
    assert_eq!(rig.killed.get(&worker), Some(&KillReason::Unresponsive));
    rig.die(worker, Death::Killed { why: KillReason::Unresponsive });
    assert_ne!(rig.holder(job).expect("another has it").0, worker);
    assert_eq!(rig.detail(job).row.crashes, 0);
}

#[test]
fn a_job_without_a_limit_may_run_for_ever_once_it_has_begun() {
    let mut rig = Rig::new(1);
    let job = rig.submit_as(ALICE, "quick", 1, Policy::default(), false);
    rig.claim(job);
    rig.sleep(1_000_000);
    assert!(rig.killed.is_empty() && rig.looks == 1, "{:?} looks={}", rig.killed, rig.looks);
    rig.finish(job);
    assert_eq!(rig.detail(job).row.state, JobState::Ended);
}

#[test]
fn a_timeout_is_answered_even_if_its_worker_never_dies() {
    let mut rig = Rig::new(1);
    let job = rig.submit_as(ALICE, "quick", 1, timed(30_000), false);
    let worker = rig.claim(job);
    rig.tell(Event::Violated { worker, violation: bulkhead_proto::death::Violation::ClaimWord });
    rig.sleep(31_000);
    assert_eq!(
        rig.outcome(job),
        Some(Outcome::TimedOut { limit: TimeLimit::Wall, limit_ms: 30_000, part: None })
    );
}

#[test]
fn jobs_expire_before_their_first_attempt_only() {
    let mut rig = Rig::new(1);
    let policy = Policy { expires_ms: Some(1000), ..Policy::default() };
    let first = rig.submit_as(ALICE, "quick", 3, policy, false);
    rig.sleep(2000);
    assert_eq!(rig.detail(first).row.state, JobState::Running);
    assert_eq!(rig.outcome(JobId(first.0 + 1)), Some(Outcome::Expired));
    assert_eq!(rig.outcome(JobId(first.0 + 2)), Some(Outcome::Expired));
    rig.crash(first);
    rig.sleep(5000);
    assert_ne!(rig.outcome(first), Some(Outcome::Expired), "it has had an attempt");
}

#[test]
fn a_job_that_waits_for_another_attempt_does_not_expire() {
    let mut rig = Rig::new(1);
    let policy = Policy { expires_ms: Some(1000), retries_max: Some(1), ..Policy::default() };
    let job = rig.submit_as(ALICE, "foreign", 1, policy, false);
    let long = rig.submit_as(BOB, "foreign", 1, Policy::default(), false);
    rig.fail(job);
    rig.claim(long);
    rig.sleep(2000);
    assert_eq!(rig.detail(job).row.state, JobState::Queued);
    rig.finish(long);
    rig.finish(job);
    assert_eq!(rig.outcome(job), Some(Outcome::Done));
}

#[test]
fn failures_are_retried_with_growing_backoff_up_to_the_budget() {
    let mut rig = Rig::new(1);
    let policy = Policy { retries_max: Some(2), ..Policy::default() };
    let job = rig.submit_as(ALICE, "quick", 1, policy, false);
    let mut pauses = Vec::new();
    for _ in 0..2 {
        rig.fail(job);
        assert_eq!(rig.detail(job).row.state, JobState::Retrying);
        let start = rig.now.mono_ns;
        while rig.holder(job).is_none() {
            rig.sleep(5);
        }
        pauses.push((rig.now.mono_ns - start) / 1_000_000);
    }
    assert!((50..=110).contains(&pauses[0]) && (100..=210).contains(&pauses[1]), "{pauses:?}");
    rig.fail(job);
    assert_eq!(rig.outcome(job), Some(Outcome::Failed { message: "no".to_owned(), code: Some(3) }));
    assert_eq!(rig.recorded(|what| matches!(what, What::Backoff { .. })), 2);
    assert_eq!(rig.detail(job).row.attempts, 3);
}

#[test]
fn a_long_failure_text_is_cut_between_characters() {
    let mut rig = Rig::new(1);
    let job = rig.submit(1);
    rig.finish_with(
        job,
        TaskResult::Failed { message: "\u{e9}".repeat(4000), program: None, output: Leftover::Nothing },
        1,
    );
    let Some(Outcome::Failed { message, .. }) = rig.outcome(job) else { panic!("it failed") };
    assert_eq!(message.len(), 1024);
}

#[test]
fn a_full_channel_is_offered_nothing_until_something_ends() {
    let mut rig = Rig::new(1);
    let job = rig.submit(1);
    let (worker, seq) = rig.holder(job).unwrap();
    rig.workers.get_mut(&worker).unwrap().clear();
    rig.tell(Event::OfferFailed { worker, seq, taken: true, shortage: None });
    assert_eq!(rig.detail(job).row.state, JobState::Queued);
    assert!(rig.holder(job).is_none());
    rig.sleep(150);
    assert!(rig.holder(job).is_some(), "it holds nothing that could end: it is tried again");
    rig.claim(job);
    rig.finish(job);
    assert_eq!(rig.detail(job).row.attempts, 1);
}

#[test]
fn a_channel_that_stays_full_for_nothing_ends_its_worker() {
    let mut rig = Rig::new(1);
    let job = rig.submit(1);
    let mut tries = 0;
    while rig.killed.is_empty() {
        let (worker, seq) = rig.holder(job).expect("offered again and again");
        rig.workers.get_mut(&worker).unwrap().clear();
        rig.tell(Event::OfferFailed { worker, seq, taken: true, shortage: None });
        rig.sleep(150);
        tries += 1;
        assert!(tries < 100);
    }
    assert!(rig.killed.values().all(|why| *why == KillReason::Unresponsive));
}

#[test]
fn a_shortage_pauses_descriptor_jobs_and_no_others() {
    let mut rig = Rig::new(2);
    let large = Policy { output: OutputMode::Descriptor, ..Policy::default() };
    let job = rig.submit_as(ALICE, "quick", 1, large, false);
    let (worker, seq) = rig.holder(job).unwrap();
    rig.workers.get_mut(&worker).unwrap().clear();
    rig.tell(Event::OfferFailed { worker, seq, taken: true, shortage: Some("no descriptors".into()) });
    assert!(rig.holder(job).is_none());
    let small = rig.submit_as(BOB, "quick", 1, Policy::default(), false);
    assert!(rig.holder(small).is_some());
    rig.sleep(200);
    assert!(rig.holder(job).is_some());
}
