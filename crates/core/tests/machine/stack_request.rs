//! Workers that write their stack before they are killed: which kills wait for it, for how long, and what else does not.

use bulkhead_core::event::Event;
use bulkhead_proto::client::message::Request;
use bulkhead_proto::client::outcome::{Outcome, TimeLimit};
use bulkhead_proto::death::{Death, KillReason, Violation};
use bulkhead_proto::ids::{JobId, Seq, WorkerId};
use bulkhead_proto::job::{JobState, Policy};

use crate::rig::{ALICE, Rig, config};

/// The time that a worker has, in milliseconds.
const STACK_MS: u64 = 5;

/// One slot, whose worker writes its stack when it is asked.
fn rig() -> Rig {
    let mut rig = Rig::cold(config(1));
    rig.writes_stack = true;
    rig.start();
    rig
}

fn running(rig: &mut Rig, policy: Policy) -> (JobId, WorkerId, Seq) {
    // A job that is charged does not come back.
    let policy = Policy { crashes_max: Some(1), ..policy };
    let job = rig.submit_as(ALICE, "quick", 1, policy, false);
    let worker = rig.claim(job);
    let (_, seq) = rig.holder(job).expect("its worker");
    (job, worker, seq)
}

fn timeout(limit_ms: u64) -> Policy {
    Policy { timeout_ms: Some(limit_ms), ..Policy::default() }
}

fn cancel(rig: &mut Rig, job: JobId) {
    assert_eq!(rig.change(ALICE, Request::Cancel { jobs: vec![job] }).0, 1);
    assert_eq!(rig.outcome(job), Some(Outcome::Cancelled), "the outcome waits for nothing");
}

#[test]
fn a_job_that_meets_its_limit_ends_at_once_and_its_worker_has_its_time() {
    let mut rig = rig();
    let (job, worker, seq) = running(&mut rig, timeout(100));
    rig.sleep(101);
    let late = Outcome::TimedOut { limit: TimeLimit::Wall, limit_ms: 100, part: None };
    assert_eq!(rig.outcome(job), Some(late));
    assert_eq!((&rig.stacks_asked[..], rig.killed.is_empty()), (&[(worker, seq)][..], true));
    // It was asked when the limit was met, a millisecond ago.
    rig.sleep(STACK_MS - 2);
    assert!(rig.killed.is_empty());
    rig.sleep(1);
    assert_eq!(rig.killed.get(&worker), Some(&KillReason::Timeout));
    rig.die(worker, Death::Killed { why: KillReason::Timeout });
    assert_eq!(rig.detail(job).deaths.len(), 1, "its death is the job's evidence");
    assert_eq!(rig.stacks_asked.len(), 1);
}

#[test]
fn nothing_is_offered_to_a_worker_that_was_asked() {
    let mut rig = rig();
    let (job, worker, seq) = running(&mut rig, Policy::default());
    cancel(&mut rig, job);
    assert_eq!(rig.stacks_asked, [(worker, seq)]);
    let next = rig.submit_as(ALICE, "quick", 1, Policy::default(), false);
    rig.finish(job);
    assert_eq!(rig.detail(next).row.state, JobState::Queued, "the task has ended, and its worker still dies");
    rig.sleep(STACK_MS);
    assert_eq!(rig.killed.get(&worker), Some(&KillReason::Cancel));
    rig.die(worker, Death::Killed { why: KillReason::Cancel });
    assert!(rig.holder(next).is_some_and(|(other, _)| other != worker));
    assert_eq!(rig.detail(next).row.crashes, 0);
}

/// A second reason within the time changes nothing if a stack explains it, and kills at once if not.
#[test]
fn urgent_kills_do_not_wait() {
    let violated = |worker| Event::Violated { worker, violation: Violation::Lane };
    let mut rig = rig();
    let (_, worker, _) = running(&mut rig, Policy::default());
    rig.tell(violated(worker));
    let why = KillReason::Violation { violation: Violation::Lane };
    assert_eq!((rig.killed.get(&worker), rig.stacks_asked.len()), (Some(&why), 0));
    rig.die(worker, Death::Killed { why });
    rig.sleep(10);
    let (_, worker, _) = running(&mut rig, timeout(100));
    rig.sleep(101);
    assert_eq!((rig.stacks_asked.len(), rig.killed.get(&worker)), (1, None));
    rig.tell(violated(worker));
    assert_eq!(rig.killed.get(&worker), Some(&why));
    rig.sleep(STACK_MS + 1);
    rig.die(worker, Death::Killed { why });
}

#[test]
fn a_memory_limit_and_the_end_of_the_service_do_not_wait() {
    let mut rig = rig();
    let limit_bytes = 1 << 20;
    let (_, worker, _) = running(&mut rig, Policy { memory_bytes: Some(limit_bytes), ..Policy::default() });
    let mut grown = rig.seen.clone().unwrap();
    grown.resident_bytes += 2 * limit_bytes;
    rig.seen = Some(grown);
    rig.sleep(300);
    assert_eq!(rig.killed.get(&worker), Some(&KillReason::Memory { limit_bytes }));
    rig.die(worker, Death::Killed { why: KillReason::Memory { limit_bytes } });
    rig.sleep(10);
    let (_, worker, _) = running(&mut rig, Policy::default());
    rig.tell(Event::Stop);
    rig.tell(Event::Stop);
    assert_eq!(rig.killed.get(&worker), Some(&KillReason::Stop));
    assert!(rig.stacks_asked.is_empty());
}

#[test]
fn a_worker_that_hears_nothing_is_not_asked() {
    let mut rig = rig();
    let (job, worker, _) = running(&mut rig, Policy::default());
    rig.tell(Event::Suspended { worker, signal: 19 });
    cancel(&mut rig, job);
    assert_eq!((rig.killed.get(&worker), rig.stacks_asked.len()), (Some(&KillReason::Cancel), 0));
}

#[test]
fn a_worker_that_cannot_is_not_asked() {
    let mut rig = Rig::new(1);
    let (job, worker, _) = running(&mut rig, Policy::default());
    cancel(&mut rig, job);
    assert_eq!((rig.killed.get(&worker), rig.stacks_asked.len()), (Some(&KillReason::Cancel), 0));
}

/// It said that it handles the signal, and died of it: the shell says that it was ours.
#[test]
fn a_worker_that_dies_of_the_question_was_killed_for_the_reason_of_it() {
    let mut rig = rig();
    let (job, worker, _) = running(&mut rig, timeout(100));
    rig.sleep(101);
    assert_eq!(rig.stacks_asked.len(), 1);
    rig.die(worker, Death::Killed { why: KillReason::Timeout });
    let detail = rig.detail(job);
    assert_eq!(detail.deaths[0].death, Death::Killed { why: KillReason::Timeout });
    assert_eq!(detail.row.crashes, 0);
    rig.sleep(STACK_MS + 1);
    assert!(rig.killed.is_empty(), "a dead worker has no alarm");
}
