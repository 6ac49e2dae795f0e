//! How jobs with parts end before their merge: a part fails, the job is cancelled, the daemon stops.

use bulkhead_core::action::TaskFile;
use bulkhead_core::config::Config;
use bulkhead_core::event::{Event, TaskResult};
use bulkhead_proto::client::message::Request;
use bulkhead_proto::client::outcome::{Outcome, TimeLimit};
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::why::Part;
use bulkhead_proto::death::{Death, KillReason};
use bulkhead_proto::ids::OutputId;
use bulkhead_proto::job::{OutputMode, Policy};
use bulkhead_proto::limits::{INLINE_MAX_BYTES, RESULTS_MAX_BYTES};
use bulkhead_proto::worker::stage::Stage;

use crate::parts::{failed, left, order, part_of};
use crate::rig::{ALICE, Rig, config};

#[test]
fn a_merge_that_is_not_wanted_any_more_leaves_nothing() {
    let mut rig = Rig::new(1);
    let job = rig.planned(0, Policy { output: OutputMode::Descriptor, ..Policy::default() });
    let worker = rig.claim(job);
    rig.change(ALICE, Request::Cancel { jobs: vec![job] });
    let (_, seq) = rig.holder(job).expect("it is still there");
    rig.finish_offer(worker, seq, TaskResult::Held { output: OutputId(9), bytes: 70 }, 1000);
    assert_eq!((rig.scratches_dropped.len(), rig.dropped.clone()), (0, vec![OutputId(1001), OutputId(9)]));
}

#[test]
fn a_part_is_retried_by_itself_and_alone() {
    let mut rig = Rig::new(2);
    let job = rig.planned(2, Policy::default());
    rig.crash_part(job, 1);
    assert_eq!(rig.offered(job), [0, 1]);
    let of = Part { number: 2, parts: 2 };
    assert_eq!(rig.recorded(|what| matches!(what, What::Blamed { part: Some(part), .. } if *part == of)), 1);
    assert_eq!(rig.recorded(|what| matches!(what, What::Retried { part: Some(_), alone: true, .. })), 1);
    rig.end_part(job, 0, left(b"a"));
    rig.end_part(job, 1, left(b"b"));
    rig.finish(job);
    assert_eq!(rig.outcome(job), Some(Outcome::Done));
    let detail = rig.detail(job);
    assert_eq!((detail.deaths.len(), detail.deaths[0].part, detail.row.attempts), (1, Some(of), 2));
    assert_eq!(rig.recorded(|what| matches!(what, What::Ended { .. })), 1, "a job that had trouble says so");
}

#[test]
fn a_part_that_crashes_too_often_quarantines_its_job() {
    let mut rig = Rig::new(2);
    let job = rig.planned(3, Policy { crashes_max: Some(2), ..Policy::default() });
    rig.crash_part(job, 1);
    rig.crash_part(job, 1);
    let Some(Outcome::Crashed { crashes: 2, last }) = rig.outcome(job) else {
        panic!("{:?}", rig.outcome(job))
    };
    assert!(last.ends_with("in part 2 of 3"), "{last}");
    assert_eq!(rig.offered(job), Vec::<u32>::new(), "the others were taken back");
    assert_eq!((rig.status().quarantined, rig.status().totals.crashed), (1, 1));
    assert_eq!(rig.dropped, [OutputId(1001)]);
    let why = rig.why(ALICE, job).to_string();
    assert!(why.contains("Attempt 2 of part 2 of 3 ended"), "{why}");
}

#[test]
fn a_part_that_fails_fails_its_job_after_its_retries() {
    let mut rig = Rig::new(1);
    let job = rig.planned(12, Policy { retries_max: Some(1), ..Policy::default() });
    rig.end_part(job, 0, failed());
    assert_eq!(rig.offered(job), [1], "the others go on");
    rig.sleep(1000);
    while rig.offered(job) != [0] {
        order(&mut rig, 1);
    }
    rig.end_part(job, 0, failed());
    let expected = Outcome::Failed { message: "part 1 of 12: no".to_owned(), code: Some(3) };
    assert_eq!(rig.outcome(job), Some(expected));
    assert_eq!(rig.workers.values().flatten().count(), 0);
}

#[test]
fn a_part_that_runs_when_its_job_ends_is_killed_and_charged_to_nobody() {
    let mut rig = Rig::new(2);
    let job = rig.planned(2, Policy::default());
    let (worker, seq, _) = rig.task(job, |stage| part_of(stage) == Some(0)).expect("it is offered");
    rig.claim_offer(worker, seq);
    rig.end_part(job, 1, failed());
    assert!(matches!(rig.outcome(job), Some(Outcome::Failed { .. })));
    assert_eq!(rig.killed.get(&worker), Some(&KillReason::Cancel));
    assert!(rig.dropped.is_empty(), "its plan may still be read");
    let (count, refused) = rig.change(ALICE, Request::Retry { jobs: vec![job] });
    assert!(count == 0 && refused[0].to_string().contains("still being ended"), "{refused:?}");
    rig.die(worker, Death::Killed { why: KillReason::Cancel });
    assert_eq!(rig.dropped, [OutputId(1001)]);
    assert_eq!(rig.recorded(|what| matches!(what, What::Blamed { .. })), 0);
    assert_eq!(rig.detail(job).deaths.len(), 0, "what was ended with the job is no news");
}

#[test]
fn a_retry_starts_again_from_the_plan() {
    let mut rig = Rig::new(1);
    let policy = Policy { output: OutputMode::Descriptor, ..Policy::default() };
    let job = rig.planned(0, policy);
    rig.fail(job);
    let scratches = rig.scratches_dropped.clone();
    rig.change(ALICE, Request::Retry { jobs: vec![job] });
    let (_, _, task) = rig.task(job, |_| true).expect("it is offered");
    assert_eq!(task.stage, Stage::Plan);
    assert!(!task.files.contains(&TaskFile::Shared { scratch: scratches[0] }), "with a new output");
    rig.plan(job, 1);
    rig.end_part(job, 0, left(b""));
    rig.finish_with(job, TaskResult::Held { output: OutputId(9), bytes: 1 }, 1);
    assert_eq!(rig.outcome(job), Some(Outcome::Done));
}

#[test]
fn cancel_ends_every_part() {
    let mut rig = Rig::new(2);
    let job = rig.planned(50, Policy::default());
    rig.end_part(job, 0, left(b"fine"));
    rig.change(ALICE, Request::Cancel { jobs: vec![job] });
    assert_eq!(rig.outcome(job), Some(Outcome::Cancelled));
    assert_eq!(rig.workers.values().flatten().count(), 0);
    assert_eq!(rig.dropped, [OutputId(1001)]);
}

#[test]
fn a_vanished_client_ends_its_parts() {
    let mut rig = Rig::with(Config { vanished_ms: 50, ..config(2) });
    let job = rig.submit_as(ALICE, "fan", 1, Policy::default(), true);
    rig.plan(job, 9);
    rig.tell(Event::ClientGone { client: ALICE });
    assert_eq!(rig.offered(job).len(), 2, "it may come back");
    rig.sleep(100);
    assert_eq!(rig.outcome(job), Some(Outcome::Cancelled));
    assert_eq!(rig.workers.values().flatten().count(), 0);
}

#[test]
fn a_drain_lets_parts_and_merge_go_on() {
    let mut rig = Rig::new(1);
    let job = rig.planned(3, Policy::default());
    rig.tell(Event::Drain { grace_ms: None });
    for part in 0..3 {
        rig.end_part(job, part, left(b"x"));
    }
    rig.finish(job);
    assert_eq!(rig.retired.len(), 2, "only then workers are sent away");
}

#[test]
fn a_stop_loses_the_job_once() {
    let mut rig = Rig::new(2);
    let job = rig.planned(10, Policy::default());
    rig.tell(Event::Stop);
    assert!(matches!(rig.outcome(job), Some(Outcome::Lost { .. })));
    assert_eq!(rig.status().totals.lost, 1);
}

#[test]
fn a_part_that_times_out_ends_its_job() {
    let mut rig = Rig::new(2);
    let job = rig.planned(4, Policy { timeout_ms: Some(100), ..Policy::default() });
    let (worker, seq, _) = rig.task(job, |stage| part_of(stage) == Some(1)).expect("it is offered");
    rig.claim_offer(worker, seq);
    rig.sleep(150);
    let part = Some(Part { number: 2, parts: 4 });
    let outcome = Outcome::TimedOut { limit: TimeLimit::Wall, limit_ms: 100, part };
    assert_eq!(outcome.to_string(), "timed out: part 2 of 4 ran longer than 100 ms");
    assert_eq!(rig.outcome(job), Some(outcome));
    assert_eq!(rig.killed.get(&worker), Some(&KillReason::Timeout));
    rig.die(worker, Death::Killed { why: KillReason::Timeout });
    let deaths = rig.detail(job).deaths;
    assert_eq!(deaths.iter().map(|death| (death.part, death.charged)).collect::<Vec<_>>(), [(part, false)]);
    assert!(rig.why(ALICE, job).to_string().contains("That was part 2 of 4."));
}

#[test]
fn results_that_are_too_large_together_fail_the_job() {
    let mut rig = Rig::new(1);
    let fit = RESULTS_MAX_BYTES / INLINE_MAX_BYTES as u64;
    let job = rig.planned(fit as u32 + 5, Policy::default());
    for part in 0..=fit as u32 {
        rig.end_part(job, part, left(&[7; INLINE_MAX_BYTES]));
    }
    let Some(Outcome::Failed { message, .. }) = rig.outcome(job) else { panic!("{:?}", rig.outcome(job)) };
    assert!(message.contains(&RESULTS_MAX_BYTES.to_string()), "{message}");
    assert_eq!(rig.workers.values().flatten().count(), 0);
}

#[test]
fn a_job_whose_part_took_many_attempts_can_be_run_again() {
    let mut rig = Rig::new(1);
    let job = rig.planned(1, Policy { crashes_max: Some(3), ..Policy::default() });
    for _ in 0..3 {
        rig.crash_part(job, 0);
        rig.sleep(1000);
    }
    assert_eq!(rig.detail(job).row.attempts, 3);
    rig.change(ALICE, Request::Retry { jobs: vec![job] });
    rig.plan(job, 0);
    rig.finish(job);
    assert_eq!(rig.outcome(job), Some(Outcome::Done));
}
