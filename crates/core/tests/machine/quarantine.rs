//! The whole way of a poisonous job: charged, alone, quarantined with its evidence, and out of quarantine again.
//!
//! `death.rs` tests who is charged with one death; this file tests several attempts.

use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::ids::{JobId, WorkerId};
use bulkhead_proto::job::{JobState, Policy};

use crate::rig::{ADMIN, ALICE, BOB, Rig, SEGV};

/// Where a job is offered, after asserting that it is alone there, with its own input, in a worker that has run nothing.
fn alone(rig: &Rig, job: JobId, input: &[u8]) -> WorkerId {
    let (worker, seq) = rig.holder(job).expect("it is offered");
    assert_eq!(seq.0, 1, "worker {worker} was offered nothing before");
    assert_eq!(rig.workers[&worker].len(), 1, "it shares worker {worker} with nobody");
    assert_eq!(rig.workers[&worker][0].task.input.as_bytes(), input);
    worker
}

/// A job of the default budget that has used it up; its second neighbour in the batch is innocent.
fn poisoned(rig: &mut Rig) -> JobId {
    let guilty = rig.submit(1);
    rig.crash(guilty);
    for _ in 0..2 {
        rig.sleep(10);
        alone(rig, guilty, b"0");
        rig.crash(guilty);
    }
    guilty
}

#[test]
fn three_deaths_quarantine_a_job_with_all_of_them_listed_and_its_input_kept() {
    let mut rig = Rig::new(2);
    let guilty = poisoned(&mut rig);
    assert_eq!(rig.holder(guilty), None, "it does not run again");
    let detail = rig.detail(guilty);
    assert_eq!(detail.outcome, Some(Outcome::Crashed { crashes: 3, last: "SIGSEGV".to_owned() }));
    let told: Vec<(u32, u32, bool)> = detail
        .deaths
        .iter()
        .map(|death| (death.attempt, death.pid - death.worker.0 as u32, death.charged))
        .collect();
    assert_eq!(told, [(1, 1000, true), (2, 1000, true), (3, 1000, true)]);
    assert_eq!(detail.input, "0");
    assert_eq!((rig.status().quarantined, rig.status().totals.crashed), (1, 1));
}

#[test]
fn a_retry_runs_the_kept_input_alone_and_keeps_the_evidence() {
    let mut rig = Rig::new(2);
    let guilty = poisoned(&mut rig);
    rig.sleep(10);
    assert_eq!(rig.change(ALICE, Request::Retry { jobs: vec![guilty] }).0, 1);
    assert_eq!(rig.status().quarantined, 0);
    alone(&rig, guilty, b"0");
    rig.crash(guilty);
    rig.sleep(10);
    assert_eq!(rig.detail(guilty).row.crashes, 1, "its budget is fresh");
    assert_eq!(rig.detail(guilty).deaths.len(), 4, "what is known of it is not");
    alone(&rig, guilty, b"0");
    rig.claim(guilty);
    rig.finish(guilty);
    assert_eq!(rig.outcome(guilty), Some(Outcome::Done));
    assert_eq!((rig.status().quarantined, rig.status().totals.crashed, rig.status().totals.done), (0, 0, 1));
}

#[test]
fn to_forget_it_ends_the_quarantine_and_leaves_its_deaths_to_be_listed() {
    let mut rig = Rig::new(2);
    let guilty = poisoned(&mut rig);
    assert_eq!(rig.change(BOB, Request::Forget { jobs: vec![guilty] }).0, 0, "not his");
    assert_eq!(rig.change(ALICE, Request::Forget { jobs: vec![guilty] }).0, 1);
    assert_eq!((rig.status().quarantined, rig.status().kept), (0, 0));
    assert!(matches!(rig.answer(ADMIN, Request::Job { job: guilty }), Reply::Refused(_)));
    let Reply::Deaths(rows) = rig.answer(ALICE, Request::Deaths { limit: 9 }) else { panic!("deaths") };
    assert_eq!(rows.iter().filter(|row| row.job == guilty).count(), 3);
}

#[test]
fn a_charged_job_whose_code_then_fails_waits_and_runs_alone_again() {
    let mut rig = Rig::new(1);
    let policy = Policy { retries_max: Some(1), ..Policy::default() };
    let guilty = rig.submit_as(ALICE, "quick", 1, policy, false);
    rig.crash(guilty);
    rig.sleep(10);
    let failed_in = alone(&rig, guilty, b"0");
    rig.fail(guilty);
    assert_eq!(rig.detail(guilty).row.state, JobState::Retrying);
    rig.sleep(200);
    assert_ne!(alone(&rig, guilty, b"0"), failed_in, "that one has run something");
}

#[test]
fn a_charged_job_that_is_given_back_stays_alone_and_is_not_charged_for_it() {
    let mut rig = Rig::new(1);
    let guilty = rig.submit(1);
    rig.crash(guilty);
    rig.sleep(10);
    // Its next worker dies before it has begun anything, the one after that without blame for the job.
    let unbegun = alone(&rig, guilty, b"0");
    rig.die(unbegun, SEGV);
    rig.sleep(10);
    alone(&rig, guilty, b"0");
    rig.die_unresponsive(guilty);
    rig.sleep(10);
    alone(&rig, guilty, b"0");
    let detail = rig.detail(guilty);
    assert_eq!((detail.row.crashes, detail.row.attempts), (1, 3));
    assert_eq!(detail.deaths.iter().filter(|death| death.charged).count(), 1, "{:?}", detail.deaths);
}

#[test]
fn a_death_after_its_end_is_not_charged_to_a_job() {
    let mut rig = Rig::new(1);
    let job = rig.submit(1);
    let worker = rig.claim(job);
    assert_eq!(rig.change(ALICE, Request::Cancel { jobs: vec![job] }).0, 1);
    rig.die(worker, SEGV);
    let detail = rig.detail(job);
    assert_eq!((detail.outcome, detail.row.crashes), (Some(Outcome::Cancelled), 0));
    assert_eq!(rig.status().quarantined, 0);
}
