//! Tasks of a kind with `cancel_grace_ms` that are to end: the worker is told first, and killed if the task goes on. A
//! limit of time decides the outcome, which is told when the task has ended.

use bulkhead_core::config::Config;
use bulkhead_core::event::{Event, Leftover, TaskResult};
use bulkhead_proto::client::message::Request;
use bulkhead_proto::client::outcome::{Outcome, TimeLimit};
use bulkhead_proto::death::{Death, KillReason};
use bulkhead_proto::ids::{JobId, WorkerId};
use bulkhead_proto::job::{JobState, Payload, Policy};
use bulkhead_proto::kind::Kind;

use crate::rig::{ALICE, Rig, config, exit_code};

/// The grace of the kind, and the time to report what was done in it.
const UNTIL_KILL_MS: u64 = 1500;

/// One slot, and the kind `kind` that may take 500 ms and share its ring.
fn rig() -> Rig {
    let mut config = config(1);
    let kind = Kind { name: "kind".to_owned(), ring: 8, cancel_grace_ms: 500, ..Kind::default() };
    config.kinds.push(kind);
    Rig::with(Config { stopped_ms: 100, ..config })
}

fn running(rig: &mut Rig) -> (JobId, WorkerId) {
    let job = rig.submit_as(ALICE, "kind", 1, Policy::default(), false);
    (job, rig.claim(job))
}

fn cancel(rig: &mut Rig, job: JobId) {
    assert_eq!(rig.change(ALICE, Request::Cancel { jobs: vec![job] }).0, 1);
    assert_eq!(rig.outcome(job), Some(Outcome::Cancelled), "whoever cancels does not wait");
}

#[test]
fn a_task_that_ends_in_time_leaves_its_worker_warm() {
    let mut rig = rig();
    let (job, worker) = running(&mut rig);
    let (_, seq) = rig.holder(job).unwrap();
    cancel(&mut rig, job);
    assert_eq!(rig.asked, [(worker, seq)]);
    let next = rig.submit_as(ALICE, "kind", 1, Policy::default(), false);
    assert_eq!(rig.detail(next).row.state, JobState::Queued, "nothing waits behind it");
    rig.sleep(499);
    assert!(rig.killed.is_empty());
    let stale = rig.status().totals.stale;
    rig.fail(job);
    assert_eq!(rig.status().totals.stale, stale + 1, "what it brought is dropped");
    assert_eq!(rig.outcome(job), Some(Outcome::Cancelled));
    assert_eq!(rig.holder(next).map(|held| held.0), Some(worker), "the worker goes on");
    rig.finish(next);
    rig.sleep(1000);
    assert!(rig.killed.is_empty() && rig.asked.len() == 1);
    let now_ns = rig.now.mono_ns;
    assert!(rig.core.deadline().is_none_or(|at_ns| at_ns > now_ns + 1_000_000_000_000), "only old ends go");
}

#[test]
fn a_deaf_task_is_killed_after_its_time() {
    let mut rig = rig();
    let (job, worker) = running(&mut rig);
    cancel(&mut rig, job);
    let (count, refused) = rig.change(ALICE, Request::Retry { jobs: vec![job] });
    assert_eq!((count, refused.len()), (0, 1), "its attempt may still run");
    rig.sleep(UNTIL_KILL_MS - 1);
    assert!(rig.killed.is_empty());
    rig.sleep(2);
    assert_eq!(rig.killed.get(&worker), Some(&KillReason::Cancel));
    rig.die(worker, Death::Killed { why: KillReason::Cancel });
    assert_eq!(rig.change(ALICE, Request::Retry { jobs: vec![job] }).0, 1);
    let again = rig.claim(job);
    assert!(again != worker && rig.asked.len() == 1);
    rig.finish(job);
    assert_eq!(rig.outcome(job), Some(Outcome::Done));
}

#[test]
fn a_result_that_was_there_before_the_kill_spares_the_worker() {
    let mut rig = rig();
    let (job, _) = running(&mut rig);
    cancel(&mut rig, job);
    // Done, and not yet seen when the time is over: the look before a kill finds nothing that runs.
    rig.answer = false;
    rig.sleep(UNTIL_KILL_MS + 100);
    rig.finish(job);
    assert!(rig.killed.is_empty());
}

#[test]
fn a_stopped_worker_cannot_hear_and_is_killed_at_once() {
    let mut rig = rig();
    let (job, worker) = running(&mut rig);
    rig.tell(Event::Suspended { worker, signal: 19 });
    cancel(&mut rig, job);
    assert!(rig.asked.is_empty());
    assert_eq!(rig.killed.get(&worker), Some(&KillReason::Cancel));
}

#[test]
fn the_end_of_the_service_gives_the_grace_and_a_second_stop_none() {
    let mut rig = rig();
    let (job, worker) = running(&mut rig);
    let (_, seq) = rig.holder(job).unwrap();
    rig.tell(Event::Stop);
    assert!(matches!(rig.outcome(job), Some(Outcome::Lost { .. })), "nobody waits for the end of the task");
    assert!(!rig.killed.contains_key(&worker) && rig.asked == [(worker, seq)], "{:?}", rig.killed);
    rig.tell(Event::Stop);
    assert_eq!(rig.killed.get(&worker), Some(&KillReason::Stop));
}

#[test]
fn a_task_that_goes_on_after_the_end_of_the_service_is_killed_for_it() {
    let mut rig = rig();
    let (_, worker) = running(&mut rig);
    rig.tell(Event::Drain { grace_ms: Some(10) });
    rig.sleep(11);
    assert!(!rig.killed.contains_key(&worker) && rig.asked.len() == 1);
    rig.sleep(UNTIL_KILL_MS + 1);
    assert_eq!(rig.killed.get(&worker), Some(&KillReason::Stop));
}

fn late() -> Option<Outcome> {
    Some(Outcome::TimedOut { limit: TimeLimit::Wall, limit_ms: 100, part: None })
}

/// A job that met its limit of 100 ms, and the worker that was told to end it.
fn timed_out(rig: &mut Rig) -> (JobId, WorkerId) {
    let policy = Policy { timeout_ms: Some(100), retries_max: Some(3), ..Policy::default() };
    let job = rig.submit_as(ALICE, "kind", 1, policy, false);
    let worker = rig.claim(job);
    let (_, seq) = rig.holder(job).expect("its worker");
    rig.sleep(101);
    assert_eq!(rig.asked, [(worker, seq)]);
    assert!(rig.killed.is_empty());
    assert_eq!(rig.detail(job).row.state, JobState::Running, "its end is told when the task has ended");
    (job, worker)
}

#[test]
fn a_limit_decides_the_outcome_and_what_was_written_is_kept() {
    for result in [
        TaskResult::Inline(Payload::from(b"bye".to_vec())),
        TaskResult::Failed {
            output: Leftover::Inline(Payload::from(b"bye".to_vec())),
            message: "killed".to_owned(),
            program: exit_code(143),
        },
    ] {
        let mut rig = rig();
        let (job, worker) = timed_out(&mut rig);
        let next = rig.submit_as(ALICE, "kind", 1, Policy::default(), false);
        assert!(rig.holder(next).is_none(), "its worker is busy until it has ended");
        rig.finish_with(job, result, 1);
        assert_eq!(rig.outcome(job), late(), "not done, not failed, not tried again");
        assert_eq!(rig.detail(job).output_bytes, Some(3));
        assert_eq!(rig.holder(next).map(|held| held.0), Some(worker));
        rig.finish(next);
        rig.sleep(2 * UNTIL_KILL_MS);
        assert!(!rig.killed.contains_key(&worker) && rig.asked.len() == 1);
    }
}

#[test]
fn a_deaf_task_that_met_its_limit_is_killed_for_it() {
    let mut rig = rig();
    let (job, worker) = timed_out(&mut rig);
    rig.sleep(UNTIL_KILL_MS - 2);
    assert!(rig.killed.is_empty());
    rig.sleep(2);
    assert_eq!(rig.killed.get(&worker), Some(&KillReason::Timeout));
    assert_eq!(rig.outcome(job), late());
    rig.die(worker, Death::Killed { why: KillReason::Timeout });
    assert_eq!(rig.detail(job).row.crashes, 0);
}

#[test]
fn a_death_in_the_grace_changes_no_outcome_and_charges_nobody() {
    let mut rig = rig();
    let (job, _) = timed_out(&mut rig);
    rig.crash(job);
    assert_eq!(rig.outcome(job), late());
    assert_eq!(rig.detail(job).row.crashes, 0);
}

#[test]
fn a_cancel_or_a_stop_in_the_grace_ends_the_wait_and_leaves_the_grace() {
    for event in [None, Some(Event::Stop)] {
        let mut rig = rig();
        let (job, worker) = timed_out(&mut rig);
        match event {
            None => assert_eq!(rig.change(ALICE, Request::Cancel { jobs: vec![job] }).0, 1),
            Some(event) => rig.tell(event),
        }
        assert_eq!(rig.outcome(job), late(), "the limit came first");
        assert!(!rig.killed.contains_key(&worker) && rig.asked.len() == 1);
    }
}

#[test]
fn a_kind_without_grace_is_killed_at_its_limit() {
    let mut config = config(1);
    config.kinds.push(Kind { name: "kind".to_owned(), ring: 8, ..Kind::default() });
    let mut rig = Rig::with(config);
    let policy = Policy { timeout_ms: Some(100), ..Policy::default() };
    let job = rig.submit_as(ALICE, "kind", 1, policy, false);
    let worker = rig.claim(job);
    rig.sleep(101);
    assert_eq!(rig.outcome(job), late());
    assert_eq!(rig.killed.get(&worker), Some(&KillReason::Timeout));
    assert!(rig.asked.is_empty());
}
