//! Tasks whose program a signal stopped: shown, counted as no progress, and ended only by a limit that is set.

use bulkhead_core::config::Config;
use bulkhead_core::event::{Event, TaskResult};
use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::outcome::{Outcome, TimeLimit};
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::view::StoppedProgram;
use bulkhead_proto::client::why::WhyNow;
use bulkhead_proto::death::{Death, KillReason};
use bulkhead_proto::ids::{ClientId, JobId, Seq, WorkerId};
use bulkhead_proto::job::{JobState, Payload, Policy};
use bulkhead_proto::kind::Kind;

use crate::rig::{ADMIN, ALICE, BOB, Rig, config};

const SIGSTOP: i32 = 19;
const PROGRAM: u32 = 913;

/// One slot and a kind `program` with a grace of 500 ms; the limit is 2 s if it `is_limited`.
fn rig(is_limited: bool) -> Rig {
    let mut config = config(1);
    config.kinds.push(Kind { name: "program".to_owned(), ring: 1, cancel_grace_ms: 500, ..Kind::default() });
    Rig::with(Config { program_stopped_ms: is_limited.then_some(2000), ..config })
}

fn running(rig: &mut Rig, kind: &str, policy: Policy) -> (JobId, WorkerId, Seq) {
    let job = rig.submit_as(ALICE, kind, 1, policy, false);
    let worker = rig.claim(job);
    let (_, seq) = rig.holder(job).expect("it was claimed");
    (job, worker, seq)
}

fn stop(rig: &mut Rig, worker: WorkerId, seq: Seq) {
    rig.tell(Event::ProgramStopped { worker, seq, pid: PROGRAM, signal: SIGSTOP });
}

fn go_on(rig: &mut Rig, worker: WorkerId, seq: Seq) {
    rig.tell(Event::ProgramContinued { worker, seq });
}

fn shown_by_why(rig: &mut Rig, job: JobId) -> Option<StoppedProgram> {
    match rig.why(ALICE, job).now {
        WhyNow::Running(running) => running.program,
        now => panic!("it does not run: {now:?}"),
    }
}

fn shown_to(rig: &mut Rig, client: ClientId, worker: WorkerId) -> Option<StoppedProgram> {
    let Reply::Workers(rows) = rig.answer(client, Request::Workers) else { panic!("no workers") };
    rows.iter().find(|row| row.worker == worker).expect("it lives").program
}

fn stops(rig: &Rig) -> (usize, usize) {
    let stopped = rig.recorded(|what| matches!(what, What::ProgramStopped { program: PROGRAM, .. }));
    (stopped, rig.recorded(|what| matches!(what, What::ProgramContinued { program: PROGRAM, .. })))
}

fn late() -> Option<Outcome> {
    Some(Outcome::TimedOut { limit: TimeLimit::ProgramStopped, limit_ms: 2000, part: None })
}

#[test]
fn a_stopped_program_is_shown_and_stays_without_a_limit() {
    let mut rig = rig(false);
    let (job, worker, seq) = running(&mut rig, "program", Policy::default());
    stop(&mut rig, worker, seq);
    rig.sleep(3_600_000);
    let seen = shown_by_why(&mut rig, job).expect("it is said");
    let hour_ms = 3_600_000;
    assert_eq!((seen.pid, seen.signal, seen.for_ms, seen.left_ms), (PROGRAM, SIGSTOP, hour_ms, None));
    let shown = |rig: &mut Rig, client| shown_to(rig, client, worker);
    assert_eq!(shown(&mut rig, ALICE), Some(seen));
    assert_eq!(shown(&mut rig, ADMIN), Some(seen));
    assert_eq!(shown(&mut rig, BOB), None, "the job of another user");
    assert!(rig.killed.is_empty() && rig.asked.is_empty());
    go_on(&mut rig, worker, seq);
    assert_eq!((shown_by_why(&mut rig, job), shown(&mut rig, ALICE)), (None, None));
    assert_eq!(stops(&rig), (1, 1));
    rig.finish(job);
    assert_eq!(rig.outcome(job), Some(Outcome::Done));
}

#[test]
fn a_stop_ends_with_its_task() {
    let mut rig = rig(true);
    let (job, worker, seq) = running(&mut rig, "program", Policy::default());
    stop(&mut rig, worker, seq);
    rig.sleep(1999);
    rig.finish(job);
    let (next, same, later) = running(&mut rig, "program", Policy::default());
    assert!(same == worker && later != seq);
    assert_eq!(shown_by_why(&mut rig, next), None);
    // Late news of the task before, and of one to come.
    stop(&mut rig, worker, seq);
    stop(&mut rig, worker, Seq(later.0 + 1));
    go_on(&mut rig, worker, seq);
    assert_eq!(shown_by_why(&mut rig, next), None);
    rig.sleep(10_000);
    assert!(rig.killed.is_empty() && rig.asked.is_empty());
    assert_eq!(stops(&rig), (1, 0));
}

#[test]
fn the_limit_gives_the_task_its_grace_and_keeps_what_it_wrote() {
    let mut rig = rig(true);
    let (job, worker, seq) = running(&mut rig, "program", Policy::default());
    rig.sleep(10_000);
    stop(&mut rig, worker, seq);
    assert_eq!(shown_by_why(&mut rig, job).and_then(|stop| stop.left_ms), Some(2000));
    rig.sleep(1999);
    assert!(rig.asked.is_empty());
    rig.sleep(2);
    assert_eq!(rig.asked, [(worker, seq)]);
    assert_eq!(rig.detail(job).row.state, JobState::Running, "its end is told when the task has ended");
    // CONT comes with TERM.
    go_on(&mut rig, worker, seq);
    rig.finish_with(job, TaskResult::Inline(Payload::from(b"bye".to_vec())), 1);
    assert_eq!((rig.outcome(job), rig.detail(job).output_bytes), (late(), Some(3)));
    assert_eq!(rig.detail(job).row.crashes, 0);
    rig.sleep(10_000);
    assert!(rig.killed.is_empty(), "its worker stays warm");
}

#[test]
fn a_task_that_ignores_its_grace_is_killed_for_the_limit() {
    let mut rig = rig(true);
    let (job, worker, seq) = running(&mut rig, "program", Policy::default());
    stop(&mut rig, worker, seq);
    rig.sleep(2001);
    assert_eq!(rig.asked.len(), 1);
    // It stops itself again.
    stop(&mut rig, worker, seq);
    rig.sleep(1501);
    assert_eq!(rig.killed.get(&worker), Some(&KillReason::ProgramStopped));
    rig.die(worker, Death::Killed { why: KillReason::ProgramStopped });
    assert_eq!((rig.outcome(job), rig.detail(job).row.crashes), (late(), 0));
}

#[test]
fn a_kind_without_grace_is_killed_at_the_limit() {
    let mut rig = rig(true);
    let (job, worker, seq) = running(&mut rig, "foreign", Policy::default());
    stop(&mut rig, worker, seq);
    rig.sleep(2001);
    assert_eq!(rig.killed.get(&worker), Some(&KillReason::ProgramStopped));
    assert_eq!(rig.outcome(job), late());
}

#[test]
fn a_program_that_goes_on_in_time_begins_anew() {
    let mut rig = rig(true);
    let (job, worker, seq) = running(&mut rig, "program", Policy::default());
    for _ in 0..10 {
        stop(&mut rig, worker, seq);
        rig.sleep(1500);
        // It went on and was stopped again between two looks of the shell.
        stop(&mut rig, worker, seq);
        rig.sleep(1500);
        go_on(&mut rig, worker, seq);
        rig.sleep(1500);
    }
    assert!(rig.killed.is_empty() && rig.asked.is_empty());
    rig.finish(job);
    assert_eq!(rig.outcome(job), Some(Outcome::Done));
}

#[test]
fn a_result_that_was_there_before_the_limit_counts() {
    let mut rig = rig(true);
    let (job, worker, seq) = running(&mut rig, "program", Policy::default());
    stop(&mut rig, worker, seq);
    rig.answer = false;
    rig.sleep(2001);
    rig.finish(job);
    assert_eq!(rig.outcome(job), Some(Outcome::Done));
    assert!(rig.asked.is_empty());
}

#[test]
fn a_stopped_program_makes_no_progress_whatever_is_reported() {
    let mut rig = rig(false);
    let policy = Policy { no_progress_ms: Some(5000), ..Policy::default() };
    let (job, worker, seq) = running(&mut rig, "program", policy);
    rig.progress_ns = Some(rig.now.mono_ns);
    stop(&mut rig, worker, seq);
    for _ in 0..9 {
        rig.sleep(500);
        rig.progress_ns = Some(rig.now.mono_ns);
    }
    assert!(rig.asked.is_empty());
    rig.sleep(501);
    assert_eq!(rig.asked, [(worker, seq)], "others of its processes go on writing");
    rig.finish(job);
    let limit = TimeLimit::NoProgress;
    assert_eq!(rig.outcome(job), Some(Outcome::TimedOut { limit, limit_ms: 5000, part: None }));
}

#[test]
fn a_cancel_and_a_limit_of_time_come_first() {
    let mut rig = rig(true);
    let policy = Policy { timeout_ms: Some(1000), ..Policy::default() };
    let (job, worker, seq) = running(&mut rig, "program", policy);
    stop(&mut rig, worker, seq);
    rig.sleep(1001);
    assert_eq!(rig.asked.len(), 1);
    rig.sleep(1400);
    assert_eq!(rig.asked.len(), 1, "the limit of stopped programs is met in the grace, and changes nothing");
    rig.finish(job);
    let limit = TimeLimit::Wall;
    assert_eq!(rig.outcome(job), Some(Outcome::TimedOut { limit, limit_ms: 1000, part: None }));
    let (job, worker, seq) = running(&mut rig, "program", Policy::default());
    stop(&mut rig, worker, seq);
    assert_eq!(rig.change(ALICE, Request::Cancel { jobs: vec![job] }).0, 1);
    assert_eq!((rig.outcome(job), rig.asked.last()), (Some(Outcome::Cancelled), Some(&(worker, seq))));
}

#[test]
fn a_worker_that_toggles_fills_no_records() {
    let mut rig = rig(true);
    let (_, worker, seq) = running(&mut rig, "program", Policy::default());
    for _ in 0..1000 {
        stop(&mut rig, worker, seq);
        go_on(&mut rig, worker, seq);
    }
    assert_eq!(stops(&rig), (1, 1));
    rig.sleep(60_000);
    for _ in 0..1000 {
        stop(&mut rig, worker, seq);
    }
    assert_eq!(stops(&rig), (2, 1));
    go_on(&mut rig, worker, seq);
    assert_eq!(stops(&rig), (2, 1), "the last stop was not recorded, so neither is its end");
}
