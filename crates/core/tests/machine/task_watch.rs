//! Limits that need examinations: no progress, processor time, memory.
//!
//! A test sets what an examination shows. Time passes with a turn at each deadline that the machine asked for.

use bulkhead_proto::client::evidence::{Evidence, ProcessSeen};
use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::outcome::{Outcome, TimeLimit};
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::view::WorkerState;
use bulkhead_proto::death::{Death, KillReason, Violation};
use bulkhead_proto::ids::{ClientId, JobId, WorkerId};
use bulkhead_proto::job::{JobState, Payload, Policy};

use bulkhead_core::config::Config;
use bulkhead_core::event::{Event, TaskResult};

use crate::rig::{ALICE, BOB, Rig, config};

const MEMORY: u64 = 4 << 20;

fn no_progress(limit_ms: u64) -> Policy {
    Policy { no_progress_ms: Some(limit_ms), ..Policy::default() }
}

fn cpu(limit_ms: u64) -> Policy {
    Policy { cpu_ms: Some(limit_ms), ..Policy::default() }
}

fn memory(crashes_max: u8) -> Policy {
    Policy { memory_bytes: Some(MEMORY), crashes_max: Some(crashes_max), ..Policy::default() }
}

fn seen(cpu_ms: u64, resident_bytes: u64) -> Option<ProcessSeen> {
    Some(ProcessSeen { cpu_us: cpu_ms * 1000, resident_bytes, ..ProcessSeen::default() })
}

/// A job that has begun, in a worker that had used 70 ms and 1 MiB before it.
fn begun(rig: &mut Rig, policy: Policy) -> (JobId, WorkerId) {
    rig.seen = seen(70, 1 << 20);
    let job = rig.submit_as(ALICE, "quick", 1, policy, false);
    (job, rig.claim(job))
}

/// Teaches the pool that `quick` is quick.
fn learn(rig: &mut Rig) {
    for _ in 0..400 {
        let job = rig.submit_as(ALICE, "quick", 1, Policy::default(), true);
        rig.finish_with(job, TaskResult::Inline(Payload::default()), 1000);
    }
}

fn held(rig: &Rig) -> usize {
    rig.workers.values().map(Vec::len).sum()
}

fn deaths_seen_by(rig: &mut Rig, client: ClientId) -> usize {
    match rig.answer(client, Request::Deaths { limit: 10 }) {
        Reply::Deaths(rows) => rows.len(),
        other => panic!("no deaths: {other:?}"),
    }
}

/// What it had started before, and waited for, is no part of it.
#[test]
fn what_a_task_starts_uses_its_processor_time() {
    let mut rig = Rig::new(1);
    let used = |own_ms: u64, below_ms: u64| {
        seen(own_ms, 1 << 20).map(|seen| ProcessSeen { below_us: below_ms * 1000, ..seen })
    };
    rig.seen = used(70, 5000);
    let job = rig.submit_as(ALICE, "quick", 1, cpu(200), false);
    let worker = rig.claim(job);
    rig.seen = used(80, 5189);
    rig.sleep(400);
    assert_eq!(rig.outcome(job), None, "it has used 199 ms");
    rig.seen = used(80, 5190);
    rig.sleep(400);
    assert_eq!(
        rig.outcome(job),
        Some(Outcome::TimedOut { limit: TimeLimit::Cpu, limit_ms: 200, part: None })
    );
    assert_eq!(rig.killed.get(&worker), Some(&KillReason::CpuTime));
}

#[test]
fn a_job_without_progress_ends_at_its_limit_and_nobody_is_charged() {
    let mut rig = Rig::new(1);
    let (job, worker) = begun(&mut rig, no_progress(400));
    rig.sleep(399);
    assert_eq!((rig.examined, rig.looks), (0, 0), "it has its time");
    rig.sleep(2);
    assert_eq!(
        rig.outcome(job),
        Some(Outcome::TimedOut { limit: TimeLimit::NoProgress, limit_ms: 400, part: None })
    );
    assert_eq!(rig.killed.get(&worker), Some(&KillReason::NoProgress));
    rig.die(worker, Death::Killed { why: KillReason::NoProgress });
    assert_eq!(rig.recorded(|what| matches!(what, What::Blamed { .. } | What::NobodyBlamed { .. })), 0);
    assert!(rig.holder(job).is_none(), "it is never tried again");
}

#[test]
fn progress_moves_the_deadline_on() {
    let mut rig = Rig::new(1);
    let (job, _) = begun(&mut rig, no_progress(400));
    for _ in 0..10 {
        rig.sleep(300);
        rig.progress_ns = Some(rig.now.mono_ns);
    }
    assert!(rig.killed.is_empty() && rig.examined <= 10, "examined {} times", rig.examined);
    rig.sleep(401);
    let limit = TimeLimit::NoProgress;
    assert_eq!(rig.outcome(job), Some(Outcome::TimedOut { limit, limit_ms: 400, part: None }));
}

#[test]
fn a_word_about_the_future_buys_no_time() {
    let mut rig = Rig::new(1);
    let (job, _) = begun(&mut rig, no_progress(400));
    rig.progress_ns = Some(u64::MAX);
    rig.sleep(450);
    rig.progress_ns = None;
    rig.sleep(500);
    assert!(matches!(rig.outcome(job), Some(Outcome::TimedOut { .. })));
}

#[test]
fn processor_time_counts_from_the_offer_and_alone() {
    let mut rig = Rig::new(1);
    let (job, worker) = begun(&mut rig, cpu(1000));
    assert_eq!(rig.examined, 1, "what it starts from");
    rig.seen = seen(70 + 999, 1 << 20);
    rig.sleep(1000);
    assert!(rig.killed.is_empty());
    rig.seen = seen(70 + 1000, 1 << 20);
    rig.sleep(50);
    assert_eq!(
        rig.outcome(job),
        Some(Outcome::TimedOut { limit: TimeLimit::Cpu, limit_ms: 1000, part: None })
    );
    assert_eq!(rig.killed.get(&worker), Some(&KillReason::CpuTime));
}

#[test]
fn processor_time_is_looked_at_when_it_can_be_used_up() {
    let mut rig = Rig::with(Config { cores: 4, ..config(1) });
    begun(&mut rig, cpu(8000));
    rig.sleep(1999);
    assert_eq!(rig.examined, 1, "four cores take two seconds");
    rig.seen = seen(70 + 2000, 0);
    rig.sleep(1);
    assert_eq!(rig.examined, 2);
    rig.sleep(1499);
    assert_eq!(rig.examined, 2, "and a second and a half for the rest");
    rig.sleep(60_000);
    assert!(rig.examined <= 80, "a task that sleeps is hardly looked at: {}", rig.examined);
}

#[test]
fn a_job_that_ends_in_time_is_watched_no_more() {
    let mut rig = Rig::new(1);
    let policy = Policy { no_progress_ms: Some(300), cpu_ms: Some(50), ..memory(1) };
    let job = rig.submit_as(ALICE, "quick", 1, policy, true);
    rig.claim(job);
    assert!(rig.core.deadline().is_some());
    rig.finish(job);
    assert_eq!(rig.core.deadline(), None, "an idle daemon sleeps");
}

#[test]
fn a_job_that_is_done_by_the_look_is_done() {
    let mut rig = Rig::new(1);
    let (job, worker) = begun(&mut rig, cpu(100));
    rig.answer = false;
    rig.sleep(100);
    let over = Event::Examined { worker, seen: seen(70 + 150, 0), progress_ns: None, progress: None };
    rig.tell(over);
    assert_eq!(rig.looks, 1, "what was over the limit may have ended since");
    rig.finish(job);
    rig.look(worker);
    rig.turn();
    assert_eq!(rig.outcome(job), Some(Outcome::Done));
    assert!(rig.killed.is_empty());
}

#[test]
fn memory_is_charged_like_a_crash_and_names_the_limit() {
    let mut rig = Rig::new(1);
    let (job, worker) = begun(&mut rig, memory(2));
    assert_eq!(rig.workers[&worker][0].task.memory_bytes, Some(MEMORY), "the worker is told, too");
    rig.seen = seen(70, (1 << 20) + MEMORY - 1);
    rig.sleep(1000);
    assert!(rig.killed.is_empty(), "it is below its limit");
    for _ in 0..2 {
        rig.seen = seen(70, 1 << 20);
        let worker = if rig.killed.is_empty() { worker } else { rig.claim(job) };
        rig.seen = seen(70, (1 << 20) + MEMORY);
        rig.sleep(300);
        let why = KillReason::Memory { limit_bytes: MEMORY };
        assert_eq!(rig.killed.get(&worker), Some(&why));
        assert_eq!(rig.detail(job).row.state, JobState::Running, "it waits for the proof");
        rig.seen = seen(70, 1 << 20);
        rig.die(worker, Death::Killed { why });
    }
    let Some(Outcome::Crashed { crashes: 2, last }) = rig.outcome(job) else { panic!("it is quarantined") };
    assert!(last.contains(&MEMORY.to_string()), "{last}");
}

#[test]
fn a_watched_task_shares_its_ring_with_nobody() {
    let mut rig = Rig::new(1);
    learn(&mut rig);
    let first = rig.submit_as(ALICE, "quick", 20, no_progress(60_000), false);
    assert_eq!(held(&rig), 1, "nothing behind it");
    rig.submit_as(ALICE, "quick", 20, Policy::default(), false);
    assert_eq!(held(&rig), 1, "whatever it is");
    rig.finish_with(first, TaskResult::Inline(Payload::default()), 1000);
    assert_eq!(held(&rig), 1);
    let plain = rig.submit_as(ALICE, "quick", 20, Policy { priority: 9, ..Policy::default() }, false);
    rig.finish_with(JobId(first.0 + 1), TaskResult::Inline(Payload::default()), 1000);
    assert!(rig.holder(plain).is_some() && held(&rig) > 1, "short ones are fetched ahead as ever");
}

/// The limit is met by a task that waits in the ring: it has all of its time from the look that shows so.
#[test]
fn the_time_without_progress_of_a_task_that_had_not_begun_begins_anew() {
    let mut rig = Rig::new(1);
    let job = rig.submit_as(ALICE, "quick", 1, no_progress(400), false);
    rig.sleep(400);
    assert_eq!((rig.examined, rig.looks), (1, 1), "the limit is met, and the task has not begun");
    rig.claim(job);
    rig.sleep(399);
    assert_eq!(rig.outcome(job), None, "its time began at the look");
    rig.sleep(1);
    let limit = TimeLimit::NoProgress;
    assert_eq!(rig.outcome(job), Some(Outcome::TimedOut { limit, limit_ms: 400, part: None }));
}

#[test]
fn a_short_time_without_progress_that_begins_anew_is_not_made_longer() {
    let mut rig = Rig::new(1);
    let job = rig.submit_as(ALICE, "quick", 1, no_progress(5), false);
    rig.sleep(5);
    assert_eq!((rig.examined, rig.looks), (1, 1), "the limit is met, and the task has not begun");
    rig.claim(job);
    rig.sleep(5);
    let limit = TimeLimit::NoProgress;
    assert_eq!(rig.outcome(job), Some(Outcome::TimedOut { limit, limit_ms: 5, part: None }));
}

#[test]
fn the_processor_time_of_a_task_that_had_not_begun_begins_anew() {
    let mut rig = Rig::new(1);
    rig.seen = seen(70, 1 << 20);
    let job = rig.submit_as(ALICE, "quick", 1, cpu(100), false);
    rig.seen = seen(170, 1 << 20);
    rig.sleep(400);
    assert_eq!(rig.looks, 1, "the limit is met once, and the task has not begun");
    rig.claim(job);
    rig.seen = seen(269, 1 << 20);
    rig.sleep(1000);
    assert_eq!(rig.outcome(job), None, "what its worker used before the look is not its own");
    rig.seen = seen(270, 1 << 20);
    rig.sleep(100);
    let limit = TimeLimit::Cpu;
    assert_eq!(rig.outcome(job), Some(Outcome::TimedOut { limit, limit_ms: 100, part: None }));
}

#[test]
fn a_job_of_a_killed_worker_does_not_wait_for_the_proof() {
    let mut rig = Rig::new(1);
    let (job, worker) = begun(&mut rig, Policy { cpu_ms: Some(10), ..no_progress(30_000) });
    rig.tell(Event::Violated { worker, violation: Violation::ClaimWord });
    rig.seen = seen(100_000, 0);
    rig.sleep(29_000);
    assert_eq!(rig.detail(job).row.state, JobState::Running, "what a killed worker uses is nobody's");
    rig.sleep(2_000);
    let limit = TimeLimit::NoProgress;
    assert_eq!(rig.outcome(job), Some(Outcome::TimedOut { limit, limit_ms: 30_000, part: None }));
}

#[test]
fn a_death_in_mid_job_stays_as_evidence_though_nobody_is_charged() {
    let mut rig = Rig::new(1);
    let (job, worker) = begun(&mut rig, no_progress(400));
    rig.sleep(401);
    let seen = seen(470, 1 << 20);
    rig.die_with(
        worker,
        Death::Killed { why: KillReason::NoProgress },
        Evidence { seen: seen.clone().map(Box::new), ..Evidence::default() },
    );
    let deaths = rig.detail(job).deaths;
    assert_eq!(deaths.len(), 1);
    assert_eq!(
        (deaths[0].charged, deaths[0].attempt, deaths[0].evidence.seen.as_deref()),
        (false, 1, seen.as_ref())
    );
    assert_eq!(rig.detail(job).row.crashes, 0);
    assert_eq!(deaths_seen_by(&mut rig, ALICE), 1);
    assert_eq!(deaths_seen_by(&mut rig, BOB), 0, "it is Alice's");
}

#[test]
fn a_stuck_worker_says_where_it_waits() {
    let mut rig = Rig::new(1);
    let (_, worker) = begun(&mut rig, Policy::default());
    rig.tell(Event::Violated { worker, violation: Violation::ClaimWord });
    rig.seen = Some(ProcessSeen { waits_in: "vfork".to_owned(), ..ProcessSeen::default() });
    rig.sleep(10_001);
    let stuck =
        |what: &What| matches!(what, What::Stuck { seen: Some(seen), .. } if seen.waits_in == "vfork");
    assert_eq!(rig.recorded(stuck), 1);
    let rows = rig.rows();
    let row = rows.iter().find(|row| row.state == WorkerState::Stuck).expect("it is stuck");
    assert_eq!(row.seen.as_ref().map(|seen| seen.waits_in.as_str()), Some("vfork"));
}
