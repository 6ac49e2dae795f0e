//! What `why` answers for a job that is tried again, runs or has ended: its deaths, its limits, who ended it.
//!
//! `proto` has the words and tests them; these tests compare the values. `why_waiting.rs` has the jobs that wait.

use bulkhead_core::event::Event;
use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::outcome::{Outcome, TimeLimit};
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::client::why::{Canceller, DrainLeft, QueuedBefore, Running, WhyEnded, WhyNow};
use bulkhead_proto::ids::JobId;
use bulkhead_proto::job::Policy;

use crate::rig::{ADMIN, ALICE, BOB, Rig};

/// One slot whose worker runs a long job of Alice's, claimed two seconds ago.
pub(crate) fn busy() -> (Rig, JobId) {
    let mut rig = Rig::new(1);
    let long = rig.submit(1);
    rig.claim(long);
    rig.pass(2000);
    (rig, long)
}

pub(crate) fn before(rig: &mut Rig, job: JobId) -> QueuedBefore {
    match rig.why(ADMIN, job).now {
        WhyNow::Queued { before, .. } => before,
        other => panic!("not queued: {other:?}"),
    }
}

fn end(rig: &mut Rig, job: JobId) -> WhyEnded {
    match rig.why(ADMIN, job).now {
        WhyNow::Ended(end) => end,
        other => panic!("not ended: {other:?}"),
    }
}

pub(crate) fn running(rig: &mut Rig, job: JobId) -> Running {
    match rig.why(ADMIN, job).now {
        WhyNow::Running(running) => running,
        other => panic!("not running: {other:?}"),
    }
}

#[test]
fn a_failed_job_says_what_its_code_said_and_when_it_is_tried_again() {
    let mut rig = Rig::new(1);
    let policy = Policy { retries_max: Some(1), ..Policy::default() };
    let job = rig.submit_as(ALICE, "quick", 1, policy, false);
    rig.fail(job);
    let why = rig.why(ALICE, job);
    assert!(matches!(why.now, WhyNow::Backoff { left_ms: 1..=100, alone: false }), "{why:?}");
    let failure = why.past.last_failure.expect("its record is kept");
    assert_eq!((failure.attempt, failure.message.as_str()), (1, "no"));
    rig.sleep(200);
    rig.fail(job);
    assert!(matches!(end(&mut rig, job).how, Outcome::Failed { .. }));
    assert_eq!(rig.why(ALICE, job).past.failures, 1, "the second was not tried again");
}

#[test]
fn a_charged_job_says_what_it_waits_for_and_each_death() {
    let mut rig = Rig::new(1);
    let guilty = rig.submit(1);
    rig.come_up = false;
    rig.crash(guilty);
    rig.crash(guilty);
    let why = rig.why(ALICE, guilty);
    let WhyNow::Alone { before: 0, shortage_ms: None, outputs: None, pool } = &why.now else {
        panic!("{why:?}")
    };
    assert_eq!((pool.spares, pool.busy + pool.idle, pool.next_spawn_ms), (0, 0, Some(2)));
    assert_eq!((why.past.crashes, why.past.crashes_max, why.past.deaths.len()), (2, 3, 2));
    // A second one waits behind it.
    let other = rig.submit(1);
    assert_eq!(before(&mut rig, other).alone, 1);
    rig.come_up = true;
    rig.sleep(10);
    assert!(running(&mut rig, guilty).alone);
    rig.crash(guilty);
    assert!(matches!(end(&mut rig, guilty).how, Outcome::Crashed { crashes: 3, .. }));
    let deaths = rig.why(ALICE, guilty).past.deaths;
    assert_eq!(deaths.iter().map(|death| death.attempt).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(rig.change(ALICE, Request::Retry { jobs: vec![guilty] }).0, 1);
    let past = rig.why(ALICE, guilty).past;
    assert_eq!((past.crashes, past.asked, past.deaths.len()), (0, 1, 3), "budgets are fresh, evidence stays");
}

#[test]
fn a_running_job_says_where_since_when_and_its_limits() {
    let mut rig = Rig::new(1);
    let policy = Policy { timeout_ms: Some(60_000), cpu_ms: Some(7), ..Policy::default() };
    let job = rig.submit_as(ALICE, "quick", 1, policy, false);
    let worker = rig.claim(job);
    rig.sleep(1500);
    let running = running(&mut rig, job);
    assert_eq!((running.holder.worker, running.for_ms, running.behind), (worker, 1500, 0));
    assert_eq!(running.holder.pid, Some(1000 + worker.0 as u32));
    let limits = running.limits;
    assert_eq!((limits.timeout_ms, limits.timeout_left_ms), (Some(60_000), Some(58_500)));
    assert_eq!((limits.cpu_ms, limits.memory_bytes), (Some(7), None));
}

#[test]
fn a_running_job_says_what_is_about_to_end_it() {
    let mut rig = Rig::new(1);
    let job = rig.submit_as(ALICE, "quick", 1, Policy::default(), true);
    let worker = rig.claim(job);
    let before = running(&mut rig, job);
    assert_eq!((before.stopped_ms, before.drain, rig.why(ADMIN, job).vanished_ms), (None, None, None));
    rig.tell(Event::Suspended { worker, signal: 19 });
    rig.tell(Event::ClientGone { client: ALICE });
    rig.tell(Event::Drain { grace_ms: Some(60_000) });
    rig.pass(1000);
    let now = running(&mut rig, job);
    assert_eq!((now.stopped_ms, now.drain), (Some(9_000), Some(DrainLeft { left_ms: Some(59_000) })));
    assert_eq!(rig.why(ADMIN, job).vanished_ms, Some(29_000));
    rig.tell(Event::Resumed { worker });
    assert_eq!(running(&mut rig, job).stopped_ms, None);
    rig.sleep(29_001);
    let why = rig.why(ADMIN, job);
    assert_eq!(why.vanished_ms, None, "it is cancelled: {why:?}");
}

#[test]
fn a_lost_attempt_is_told_and_not_charged() {
    let mut rig = Rig::new(1);
    let job = rig.submit(1);
    rig.die_unresponsive(job);
    let past = rig.why(ALICE, job).past;
    assert_eq!((past.lost, past.crashes), (1, 0));
    assert!(past.deaths.iter().all(|death| !death.charged), "{past:?}");
}

#[test]
fn a_cancelled_job_says_by_whom() {
    let (mut rig, long) = busy();
    let other = rig.submit(1);
    rig.change(ALICE, Request::Cancel { jobs: vec![long] });
    rig.change(ADMIN, Request::Cancel { jobs: vec![other] });
    let ended = end(&mut rig, long);
    assert_eq!(ended.by, Some(Canceller::Owner { uid: 1 }));
    let holder = ended.holder.expect("its worker lives until the proof");
    assert_eq!(holder.killed.as_deref(), Some("cancel"));
    assert_eq!(end(&mut rig, other).by, Some(Canceller::Administrator { uid: 0 }));
    let attached = rig.submit_as(BOB, "quick", 1, Policy::default(), true);
    rig.tell(Event::ClientGone { client: BOB });
    rig.sleep(40_000);
    assert_eq!(end(&mut rig, attached).by, Some(Canceller::Vanished { after_ms: 30_000 }));
}

#[test]
fn a_job_that_ran_out_of_time_says_of_which() {
    let (mut rig, _) = busy();
    let waits = rig.submit_as(ALICE, "quick", 1, Policy { expires_ms: Some(50), ..Policy::default() }, false);
    rig.sleep(60);
    let ended = end(&mut rig, waits);
    assert_eq!((ended.how, ended.expires_ms), (Outcome::Expired, Some(50)));
    let mut rig = Rig::new(1);
    let slow = rig.submit_as(ALICE, "quick", 1, Policy { timeout_ms: Some(50), ..Policy::default() }, false);
    rig.claim(slow);
    rig.sleep(60);
    assert_eq!(
        end(&mut rig, slow).how,
        Outcome::TimedOut { limit: TimeLimit::Wall, limit_ms: 50, part: None }
    );
}

/// Whoever waits for a number learns as much as whoever asks `why`.
#[test]
fn a_wait_tells_what_never_was_from_what_is_forgotten() {
    let mut rig = Rig::new(1);
    let job = rig.submit(1);
    let beyond = JobId(job.0 + 1);
    let refused = |rig: &mut Rig, job| match rig.answer(ADMIN, Request::Wait { jobs: vec![job] }) {
        Reply::Unknown(unknown) => unknown.refusals().next().expect("it names the job").1,
        other => panic!("told: {other:?}"),
    };
    assert_eq!(refused(&mut rig, beyond), Refusal::NeverWas { job: beyond, last: job });
    rig.finish(job);
    rig.change(ALICE, Request::Forget { jobs: vec![job] });
    assert_eq!(refused(&mut rig, job), Refusal::Gone { job, others: false });
}

#[test]
fn a_job_that_is_not_there_never_was_or_is_forgotten_and_strangers_learn_no_more() {
    let mut rig = Rig::new(1);
    let job = rig.submit(1);
    let refused = |rig: &mut Rig, client, job| match rig.answer(client, Request::Why { job }) {
        Reply::Refused(refusal) => refusal,
        other => panic!("told: {other:?}"),
    };
    let beyond = JobId(job.0 + 1);
    assert_eq!(refused(&mut rig, ALICE, beyond), Refusal::NeverWas { job: beyond, last: job });
    assert_eq!(refused(&mut rig, ALICE, JobId(0)), Refusal::NeverWas { job: JobId(0), last: job });
    let stranger = refused(&mut rig, BOB, job);
    assert_eq!(stranger, Refusal::Gone { job, others: true });
    rig.crash(job);
    rig.finish(job);
    rig.change(ALICE, Request::Forget { jobs: vec![job] });
    assert_eq!(refused(&mut rig, BOB, job), stranger, "he cannot tell whether it is there");
    assert_eq!(refused(&mut rig, ADMIN, job), Refusal::Gone { job, others: false });
}
