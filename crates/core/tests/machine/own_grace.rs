//! The grace that a job asks for itself, the grace of parts, a memory limit that is met in it, and what `why` tells of it.

use bulkhead_core::event::Event;
use bulkhead_proto::client::evidence::ProcessSeen;
use bulkhead_proto::client::message::{Reply, Request, Submit};
use bulkhead_proto::client::outcome::{Outcome, TimeLimit};
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::client::why::{EndingTask, WhyNow};
use bulkhead_proto::death::{Death, KillReason};
use bulkhead_proto::ids::{JobId, Seq, WorkerId};
use bulkhead_proto::job::{Payload, Policy};
use bulkhead_proto::kind::Kind;
use bulkhead_proto::limits::CANCEL_GRACE_MAX_MS;

use crate::parts::{failed, part_of};
use crate::rig::{ADMIN, ALICE, Rig, config};

const MEMORY: u64 = 4 << 20;
/// The time in which a worker reports what was done in the grace.
const REPORT_MS: u64 = 1000;

/// One slot, and the kind `kind` whose own grace is 500 ms.
fn rig() -> Rig {
    let mut config = config(1);
    config.kinds.push(Kind { name: "kind".to_owned(), ring: 8, cancel_grace_ms: 500, ..Kind::default() });
    Rig::with(config)
}

fn begun(rig: &mut Rig, policy: Policy) -> (JobId, WorkerId) {
    let job = rig.submit_as(ALICE, "kind", 1, policy, false);
    (job, rig.claim(job))
}

fn grace(ms: u32) -> Policy {
    Policy { grace_ms: Some(ms), ..Policy::default() }
}

fn cancel(rig: &mut Rig, job: JobId) {
    assert_eq!(rig.change(ALICE, Request::Cancel { jobs: vec![job] }).0, 1);
}

fn seen(resident_bytes: u64) -> Option<ProcessSeen> {
    Some(ProcessSeen { resident_bytes, ..ProcessSeen::default() })
}

#[test]
fn the_grace_of_a_job_goes_before_that_of_its_kind() {
    for (asked, given) in [(None, 500), (Some(3000), 3000), (Some(100), 100)] {
        let mut rig = rig();
        let (job, worker) = begun(&mut rig, Policy { grace_ms: asked, ..Policy::default() });
        assert_eq!(rig.workers[&worker][0].task.grace_ms, given, "the worker is told, too");
        assert_eq!(rig.detail(job).policy.grace_ms, Some(given), "it is shown");
        cancel(&mut rig, job);
        assert_eq!(rig.asked.len(), 1);
        rig.sleep(u64::from(given) + REPORT_MS - 1);
        assert!(rig.killed.is_empty(), "{asked:?}");
        rig.sleep(2);
        assert_eq!(rig.killed.get(&worker), Some(&KillReason::Cancel));
    }
}

#[test]
fn a_grace_of_nothing_kills_at_once_and_a_kind_without_one_may_be_given_one() {
    let mut rig = rig();
    let (job, worker) = begun(&mut rig, grace(0));
    cancel(&mut rig, job);
    assert!(rig.asked.is_empty());
    assert_eq!(rig.killed.get(&worker), Some(&KillReason::Cancel));
    let mut rig = Rig::new(1);
    let job = rig.submit_as(ALICE, "quick", 1, grace(700), false);
    rig.claim(job);
    cancel(&mut rig, job);
    assert!(rig.killed.is_empty() && rig.asked.len() == 1);
}

#[test]
fn a_grace_above_the_most_is_refused_with_the_most() {
    let mut rig = rig();
    let policy = grace(CANCEL_GRACE_MAX_MS + 1);
    let inputs = vec![Payload::default()];
    let submit = Submit { kind: "kind".to_owned(), policy, inputs, ..Submit::default() };
    let reply = rig.answer(ADMIN, Request::Submit(submit));
    let Reply::Refused(Refusal::Invalid { why }) = reply else { panic!("{reply:?}") };
    assert!(why.contains("a grace of 60001 ms is not from 0 to 60000 ms"), "{why}");
}

#[test]
fn why_tells_of_the_grace_while_it_runs_and_no_longer() {
    let mut rig = rig();
    let (job, _) = begun(&mut rig, Policy { timeout_ms: Some(100), ..grace(2000) });
    let ending = |rig: &mut Rig| match rig.why(ALICE, job).now {
        WhyNow::Running(running) => running.holder.ending,
        WhyNow::Ended(end) => end.holder.and_then(|holder| holder.ending),
        other => panic!("{other:?}"),
    };
    assert_eq!(ending(&mut rig), None);
    rig.sleep(100);
    rig.pass(700);
    let met = Some(TimeLimit::Wall);
    assert_eq!(ending(&mut rig), Some(EndingTask { told_ms: 700, left_ms: 1300, met }));
    let text = rig.why(ALICE, job).to_string();
    for sentence in [
        "It ran longer than 100.00ms: it has timed out once it has ended.",
        "It was told to end 700.00ms ago, and is killed in 1.30s unless it ends before.",
    ] {
        assert!(text.contains(sentence), "{text}");
    }
    assert!(!text.contains("It may run for another"), "{text}");
    rig.fail(job);
    assert_eq!(ending(&mut rig), None);
}

#[test]
fn why_tells_of_the_grace_of_a_cancelled_job_until_its_worker_is_killed() {
    let mut rig = rig();
    let (job, _) = begun(&mut rig, grace(2000));
    cancel(&mut rig, job);
    rig.pass(500);
    let text = rig.why(ALICE, job).to_string();
    let sentence =
        "still has it; it was told to end 500.00ms ago, and is killed in 1.50s unless it ends before.";
    assert!(text.contains(sentence), "{text}");
    rig.sleep(3000);
    let text = rig.why(ALICE, job).to_string();
    assert!(text.contains("was killed (cancel) and has not ended yet"), "{text}");
}

#[test]
fn a_memory_limit_that_is_met_in_the_grace_kills_at_once() {
    for limit_first in [true, false] {
        let mut rig = rig();
        rig.seen = seen(1 << 20);
        let timeout_ms = limit_first.then_some(100);
        let policy = Policy { timeout_ms, memory_bytes: Some(MEMORY), ..grace(60_000) };
        let (job, worker) = begun(&mut rig, policy);
        if !limit_first {
            cancel(&mut rig, job);
        }
        rig.sleep(101);
        assert!(rig.asked.len() == 1 && rig.killed.is_empty(), "{:?}", rig.killed);
        rig.seen = seen((1 << 20) + MEMORY);
        rig.sleep(300);
        let why = KillReason::Memory { limit_bytes: MEMORY };
        assert_eq!(rig.killed.get(&worker), Some(&why));
        let late = Outcome::TimedOut { limit: TimeLimit::Wall, limit_ms: 100, part: None };
        let first = if limit_first { late } else { Outcome::Cancelled };
        assert_eq!(rig.outcome(job), Some(first), "what came first decides");
        rig.die(worker, Death::Killed { why });
        assert_eq!(rig.detail(job).row.crashes, 0, "nothing is charged to a job that has ended");
    }
}

/// A job with two parts, both of which run, and the offers of them.
fn parts(rig: &mut Rig, policy: Policy) -> (JobId, [(WorkerId, Seq); 2]) {
    let job = rig.planned(2, policy);
    let offers = [0, 1].map(|part| {
        let (worker, seq, task) = rig.task(job, |stage| part_of(stage) == Some(part)).expect("it is offered");
        assert_eq!(task.grace_ms, 2000);
        rig.claim_offer(worker, seq);
        (worker, seq)
    });
    (job, offers)
}

#[test]
fn the_parts_of_a_cancelled_job_have_its_grace() {
    let mut rig = Rig::new(2);
    let (job, offers) = parts(&mut rig, grace(2000));
    cancel(&mut rig, job);
    let mut asked = rig.asked.clone();
    asked.sort_unstable();
    assert!(asked == offers && rig.killed.is_empty(), "{asked:?} {:?}", rig.killed);
    let (worker, seq) = offers[0];
    rig.finish_offer(worker, seq, failed(), 1000);
    rig.sleep(2000 + REPORT_MS + 1);
    assert!(!rig.killed.contains_key(&worker), "it ended in time");
    assert_eq!(rig.killed.get(&offers[1].0), Some(&KillReason::Cancel));
    assert_eq!(rig.outcome(job), Some(Outcome::Cancelled));
}

#[test]
fn a_part_that_meets_a_limit_ends_its_job_at_once_and_all_parts_have_their_grace() {
    let mut rig = Rig::new(2);
    let (job, offers) = parts(&mut rig, Policy { timeout_ms: Some(300), ..grace(2000) });
    rig.sleep(301);
    let Some(Outcome::TimedOut { limit_ms: 300, part: Some(part), .. }) = rig.outcome(job) else {
        panic!("{:?}", rig.outcome(job))
    };
    assert_eq!(part.parts, 2, "{part}");
    assert_eq!(rig.detail(job).output_bytes, None);
    let mut asked = rig.asked.clone();
    asked.sort_unstable();
    assert!(asked == offers && rig.killed.is_empty(), "{asked:?} {:?}", rig.killed);
    rig.sleep(2000 + REPORT_MS);
    assert_eq!(rig.killed.len(), 2, "{:?}", rig.killed);
}

#[test]
fn the_end_of_the_service_gives_parts_their_grace() {
    let mut rig = Rig::new(2);
    let (job, offers) = parts(&mut rig, grace(2000));
    rig.tell(Event::Stop);
    assert!(matches!(rig.outcome(job), Some(Outcome::Lost { .. })));
    assert_eq!(rig.asked.len(), offers.len());
    assert!(offers.iter().all(|(worker, _)| !rig.killed.contains_key(worker)), "{:?}", rig.killed);
}
