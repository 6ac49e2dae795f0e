//! Processes that cannot be ended: they are kept with their job, nothing is repeated beside them, and a status lists them.

use bulkhead_core::event::{Event, LeftProcess, Leftover, Report, TaskResult};
use bulkhead_proto::client::message::Request;
use bulkhead_proto::client::outcome::{Outcome, Survivor};
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::view::SurvivorRow;
use bulkhead_proto::death::Death;
use bulkhead_proto::ids::{JobId, WorkerId};
use bulkhead_proto::job::Policy;
use bulkhead_proto::kind::Kind;
use bulkhead_proto::worker::message::LEFT_PROCESSES;

use crate::rig::{ALICE, Rig, config, exit_code};

fn survivor(pid: u32) -> Survivor {
    Survivor { pid, uid: Some(0), name: "sudo".to_owned() }
}

/// The worker of a job reports that it failed and left a process, and leaves.
fn fail_and_leave(rig: &mut Rig, job: JobId, pid: u32) -> WorkerId {
    let (worker, seq) = rig.holder(job).expect("the job is offered");
    rig.workers.get_mut(&worker).expect("it lives").retain(|held| held.seq != seq);
    let result =
        TaskResult::Failed { message: "no".to_owned(), program: exit_code(3), output: Leftover::Nothing };
    let report = Report { result, elapsed_ns: 1000, output_bytes: 0, survivors: vec![survivor(pid)] };
    rig.tell(Event::Finished { worker, seq, report });
    worker
}

fn left(pid: u32, worker: WorkerId) -> LeftProcess {
    LeftProcess { survivor: survivor(pid), worker: Some(worker) }
}

fn leave(rig: &mut Rig, worker: WorkerId) {
    rig.die(worker, Death::Exited { code: LEFT_PROCESSES.into() });
}

#[test]
fn a_failed_attempt_whose_processes_live_on_is_not_repeated() {
    let mut rig = Rig::new(2);
    let policy = Policy { retries_max: Some(5), ..Policy::default() };
    let job = rig.submit_as(ALICE, "foreign", 1, policy, false);
    let worker = fail_and_leave(&mut rig, job, 7);
    assert!(matches!(rig.outcome(job), Some(Outcome::Failed { code: Some(3), .. })));
    let detail = rig.detail(job);
    assert_eq!((detail.row.attempts, detail.survivors), (1, vec![survivor(7)]));
    leave(&mut rig, worker);
    let named = |what: &What| matches!(what, What::Died { death: Death::LeftProcesses, .. });
    assert_eq!(rig.recorded(named), 1);
    assert_eq!(rig.recorded(|what| matches!(what, What::NobodyBlamed { .. } | What::Killing { .. })), 0);
    // A user may want it all the same; then it starts without them.
    rig.change(ALICE, Request::Retry { jobs: vec![job] });
    assert!(rig.holder(job).is_some() && rig.detail(job).survivors.is_empty());
}

#[test]
fn a_worker_that_is_about_to_leave_is_offered_nothing_and_killed_only_if_it_stays() {
    let mut rig = Rig::new(1);
    let job = rig.submit(1);
    let worker = fail_and_leave(&mut rig, job, 7);
    let next = rig.submit(1);
    assert_eq!(rig.holder(next), None, "its slot is not free yet");
    rig.sleep(300);
    assert_eq!(rig.killed.get(&worker), None, "it has the time of one that was asked to leave");
    leave(&mut rig, worker);
    assert!(rig.holder(next).is_some_and(|(other, _)| other != worker));
    let stays = rig.claim(next);
    fail_and_leave(&mut rig, next, 8);
    rig.sleep(60_000);
    assert!(rig.killed.contains_key(&stays));
}

#[test]
fn a_job_that_was_cancelled_gets_them_after_its_outcome() {
    let mut config = config(1);
    config.kinds.push(Kind { name: "kind".to_owned(), cancel_grace_ms: 500, ..Kind::default() });
    let mut rig = Rig::with(config);
    let job = rig.submit_as(ALICE, "kind", 1, Policy::default(), false);
    rig.claim(job);
    assert_eq!(rig.change(ALICE, Request::Cancel { jobs: vec![job] }).0, 1);
    assert_eq!((rig.outcome(job), rig.detail(job).survivors), (Some(Outcome::Cancelled), Vec::new()));
    fail_and_leave(&mut rig, job, 7);
    assert_eq!((rig.outcome(job), rig.detail(job).survivors), (Some(Outcome::Cancelled), vec![survivor(7)]));
}

#[test]
fn a_status_lists_those_that_live_and_each_is_recorded_once() {
    let mut rig = Rig::new(2);
    let job = rig.submit(1);
    let worker = fail_and_leave(&mut rig, job, 7);
    let row = |pid, worker, job| SurvivorRow { survivor: survivor(pid), worker, job };
    rig.tell(Event::LiveOn { left: vec![left(7, worker)] });
    leave(&mut rig, worker);
    let stranger = LeftProcess { survivor: survivor(9), worker: None };
    rig.tell(Event::LiveOn { left: vec![left(7, worker), stranger.clone()] });
    let of_job = row(7, Some(worker), Some(job));
    assert_eq!(rig.status().survivors, [of_job, row(9, None, None)]);
    assert_eq!(rig.recorded(|what| matches!(what, What::LivesOn { job: Some(_), .. })), 1);
    assert_eq!(rig.recorded(|what| matches!(what, What::LivesOn { .. })), 2);
    rig.tell(Event::LiveOn { left: vec![stranger] });
    assert_eq!(rig.status().survivors, [row(9, None, None)]);
}
