//! Workers that a signal stopped: they are offered nothing for a while, then killed and replaced.

use bulkhead_core::event::Event;
use bulkhead_proto::client::outcome::{Outcome, TimeLimit};
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::view::{StoppedWorker, WorkerState};
use bulkhead_proto::death::{Death, KillReason};
use bulkhead_proto::job::{JobState, Policy};

use crate::rig::{ALICE, Rig};

const SIGSTOP: i32 = 19;

#[test]
fn a_stopped_worker_that_goes_on_is_spared() {
    let mut rig = Rig::new(1);
    let job = rig.submit(1);
    let worker = rig.claim(job);
    rig.tell(Event::Suspended { worker, signal: SIGSTOP });
    rig.tell(Event::Suspended { worker, signal: SIGSTOP });
    let said = |what: &What| matches!(what, What::Suspended { job: Some(of), signal: 19, .. } if *of == job);
    assert_eq!(rig.recorded(said), 1);
    let stopped = |rig: &mut Rig| rig.rows().into_iter().find(|row| row.worker == worker).unwrap().stopped;
    assert_eq!(stopped(&mut rig), Some(StoppedWorker { for_ms: 0, left_ms: 10_000 }));
    rig.sleep(9_900);
    assert_eq!(stopped(&mut rig), Some(StoppedWorker { for_ms: 9_900, left_ms: 100 }));
    rig.tell(Event::Resumed { worker });
    assert_eq!(stopped(&mut rig), None);
    rig.sleep(60_000);
    assert!(rig.killed.is_empty());
    rig.finish(job);
    assert_eq!(rig.outcome(job), Some(Outcome::Done));
    let next = rig.submit(1);
    assert_eq!(rig.holder(next).map(|held| held.0), Some(worker), "it takes tasks again");
}

#[test]
fn a_worker_that_stays_stopped_is_killed_and_its_job_is_charged() {
    let mut rig = Rig::new(1);
    let job = rig.submit(1);
    let worker = rig.claim(job);
    rig.tell(Event::Suspended { worker, signal: SIGSTOP });
    rig.sleep(9_999);
    assert!(rig.killed.is_empty());
    rig.sleep(2);
    assert_eq!(rig.killed.get(&worker), Some(&KillReason::Stopped));
    rig.die(worker, Death::Killed { why: KillReason::Stopped });
    assert_eq!(rig.detail(job).row.crashes, 1, "as with any death from outside");
    assert_ne!(rig.holder(job).expect("tried again").0, worker);
}

#[test]
fn what_a_stopped_worker_has_not_begun_goes_to_others() {
    let mut rig = Rig::new(2);
    let job = rig.submit(1);
    let worker = rig.holder(job).expect("it is offered").0;
    rig.tell(Event::Suspended { worker, signal: SIGSTOP });
    assert_ne!(rig.holder(job).expect("it is offered to the other").0, worker);
    rig.claim(job);
    let more = rig.submit(3);
    assert!(rig.workers[&worker].is_empty(), "it is offered nothing");
    assert_eq!(rig.detail(more).row.state, JobState::Queued);
    rig.sleep(10_001);
    rig.die(worker, Death::Killed { why: KillReason::Stopped });
    assert_eq!(rig.detail(more).row.state, JobState::Running, "a spare has its slot");
}

#[test]
fn a_stopped_spare_gets_no_slot_until_it_goes_on() {
    let mut rig = Rig::new(1);
    let spare = rig.rows().iter().find(|row| row.state == WorkerState::Spare).expect("it is warm").worker;
    rig.tell(Event::Suspended { worker: spare, signal: SIGSTOP });
    let job = rig.submit(1);
    rig.crash(job);
    rig.sleep(10);
    assert_ne!(rig.holder(job).map(|held| held.0), Some(spare));
    rig.tell(Event::Resumed { worker: spare });
    rig.sleep(100);
    assert!(rig.killed.is_empty() && rig.holder(job).is_some());
}

/// A task that stops and continues its worker pushes no other record out: the stops of a minute are told in one.
#[test]
fn a_worker_that_is_stopped_again_and_again_makes_few_records() {
    let mut rig = Rig::new(1);
    let job = rig.submit(1);
    let worker = rig.claim(job);
    let churn = |rig: &mut Rig, times: u64| {
        for _ in 0..times {
            rig.tell(Event::Suspended { worker, signal: SIGSTOP });
            rig.tell(Event::Resumed { worker });
        }
    };
    let stops = |rig: &Rig| {
        let told = |what: &What| matches!(what, What::Suspended { .. } | What::Resumed { .. });
        let summed = rig.records.iter().filter_map(|what| match what {
            What::SuspendedOften { count, .. } => Some(*count),
            _ => None,
        });
        (rig.recorded(told), summed.collect::<Vec<u64>>())
    };
    churn(&mut rig, 5000);
    assert_eq!(stops(&rig), (2, vec![]));
    rig.sleep(60_000);
    assert_eq!(stops(&rig), (2, vec![4999]));
    churn(&mut rig, 1);
    assert_eq!(stops(&rig), (4, vec![4999]), "one of the next minute is told by itself");
    churn(&mut rig, 7);
    rig.die(worker, Death::Signalled { signal: 11, core: false });
    assert_eq!(stops(&rig), (4, vec![4999, 7]), "told before its death");
    rig.sleep(120_000);
    assert_eq!(stops(&rig), (4, vec![4999, 7]));
}

/// No worker is spawned in place of a stopped spare, so one that goes on has to be used again.
#[test]
fn a_spare_that_goes_on_takes_the_next_free_slot() {
    let mut rig = Rig::new(1);
    let spare = rig.rows().iter().find(|row| row.state == WorkerState::Spare).expect("it is warm").worker;
    rig.tell(Event::Suspended { worker: spare, signal: SIGSTOP });
    rig.tell(Event::Resumed { worker: spare });
    let job = rig.submit(1);
    rig.crash(job);
    assert_eq!(rig.holder(job).map(|held| held.0), Some(spare), "in the turn of the death");
}

#[test]
fn a_limit_met_by_a_stopped_worker_keeps_its_own_reason() {
    let mut rig = Rig::new(1);
    let policy = Policy { timeout_ms: Some(500), ..Policy::default() };
    let job = rig.submit_as(ALICE, "quick", 1, policy, false);
    let worker = rig.claim(job);
    rig.tell(Event::Suspended { worker, signal: SIGSTOP });
    rig.sleep(501);
    assert_eq!(
        rig.outcome(job),
        Some(Outcome::TimedOut { limit: TimeLimit::Wall, limit_ms: 500, part: None })
    );
    assert_eq!(rig.killed.get(&worker), Some(&KillReason::Timeout));
    rig.sleep(9_600);
    assert_eq!(rig.killed.get(&worker), Some(&KillReason::Timeout));
}
