//! Programs that a signal ended: their deaths are listed with those of workers, though their workers live on.

use bulkhead_core::event::{Leftover, TaskResult};
use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::view::DeathRow;
use bulkhead_proto::death::{Death, ProgramEnd};
use bulkhead_proto::ids::{ClientId, JobId};
use bulkhead_proto::job::Policy;

use crate::rig::{ALICE, BOB, Rig, SEGV};

const OF_PROGRAM: Death = Death::OfProgram { signal: 11, core: true };

fn deaths(rig: &mut Rig, client: ClientId) -> Vec<DeathRow> {
    match rig.answer(client, Request::Deaths { limit: 10 }) {
        Reply::Deaths(rows) => rows,
        other => panic!("no deaths: {other:?}"),
    }
}

fn die_as_a_program(rig: &mut Rig, job: JobId) {
    rig.claim(job);
    let program = Some(ProgramEnd::Signal { signal: 11, core: true });
    let message = "killed by SIGSEGV".to_owned();
    rig.finish_with(job, TaskResult::Failed { message, program, output: Leftover::Nothing }, 1000);
}

#[test]
fn it_is_listed_charged_to_nobody_and_fails_its_job() {
    let mut rig = Rig::new(1);
    let job = rig.submit(1);
    let worker = rig.claim(job);
    die_as_a_program(&mut rig, job);
    let Some(Outcome::Failed { code: Some(139), .. }) = rig.outcome(job) else {
        panic!("{:?}", rig.outcome(job))
    };
    let rows = deaths(&mut rig, ALICE);
    assert_eq!(rows.len(), 1);
    let DeathRow { job: of, death, .. } = &rows[0];
    assert_eq!((*of, &death.death, death.charged, death.attempt), (job, &OF_PROGRAM, false, 1));
    assert_eq!((death.worker, death.pid), (worker, 1000 + worker.0 as u32));
    assert_eq!(deaths(&mut rig, BOB), [], "it is Alice's");
    assert_eq!((rig.status().totals.deaths, rig.detail(job).row.crashes), (0, 0), "no worker died");
    let why = rig.why(ALICE, job).to_string();
    let sentence = format!(
        "Attempt 1 failed in worker {worker} (pid {}), which lives on, its program died of SIGSEGV (core dumped).",
        1000 + worker.0
    );
    assert!(why.contains(&sentence), "{why}");
}

#[test]
fn each_attempt_has_its_own_and_the_death_of_the_worker_is_kept_beside_it() {
    let mut rig = Rig::new(1);
    let policy = Policy { retries_max: Some(2), crashes_max: Some(1), ..Policy::default() };
    let job = rig.submit_as(ALICE, "quick", 1, policy, false);
    for _ in 0..2 {
        die_as_a_program(&mut rig, job);
        rig.sleep(5000);
    }
    assert_eq!(rig.recorded(|what| matches!(what, What::Backoff { .. })), 2);
    let worker = rig.claim(job);
    rig.change(ALICE, Request::Cancel { jobs: vec![job] });
    rig.die(worker, SEGV);
    let all: Vec<(Death, u32)> =
        rig.detail(job).deaths.into_iter().map(|death| (death.death, death.attempt)).collect();
    assert_eq!(all, [(OF_PROGRAM, 1), (OF_PROGRAM, 2), (SEGV, 3)]);
}

#[test]
fn a_program_that_ended_after_its_limit_of_time_was_ended_by_the_daemon() {
    let mut rig = Rig::new(1);
    let policy = Policy { timeout_ms: Some(100), grace_ms: Some(500), ..Policy::default() };
    let job = rig.submit_as(ALICE, "quick", 1, policy, false);
    rig.claim(job);
    rig.sleep(101);
    die_as_a_program(&mut rig, job);
    assert!(matches!(rig.outcome(job), Some(Outcome::TimedOut { .. })));
    assert_eq!(deaths(&mut rig, ALICE), []);
}
