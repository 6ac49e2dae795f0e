//! Cancelled tasks of a kind with `cancel_grace_ms`: the worker is told first, and killed if the task goes on.

use bulkhead_core::config::Config;
use bulkhead_core::event::Event;
use bulkhead_proto::client::message::Request;
use bulkhead_proto::client::outcome::{Outcome, TimeLimit};
use bulkhead_proto::death::{Death, KillReason};
use bulkhead_proto::ids::{JobId, WorkerId};
use bulkhead_proto::job::{JobState, Policy};
use bulkhead_proto::kind::Kind;

use crate::rig::{ALICE, Rig, config};

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
    rig.sleep(499);
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
    rig.sleep(600);
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
fn the_end_of_the_service_waits_for_no_grace() {
    let mut rig = rig();
    let (job, worker) = running(&mut rig);
    cancel(&mut rig, job);
    rig.tell(Event::Stop);
    assert_eq!(rig.killed.get(&worker), Some(&KillReason::Stop));
}

#[test]
fn a_limit_is_no_cancel() {
    let mut rig = rig();
    let policy = Policy { timeout_ms: Some(100), ..Policy::default() };
    let job = rig.submit_as(ALICE, "kind", 1, policy, false);
    let worker = rig.claim(job);
    rig.sleep(101);
    assert_eq!(
        rig.outcome(job),
        Some(Outcome::TimedOut { limit: TimeLimit::Wall, limit_ms: 100, part: None })
    );
    assert_eq!(rig.killed.get(&worker), Some(&KillReason::Timeout));
    assert!(rig.asked.is_empty());
}
