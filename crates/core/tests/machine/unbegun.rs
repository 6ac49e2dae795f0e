//! Jobs that end before they begin: one record for each cause and user in a turn, with their count and their numbers.

use bulkhead_core::event::{Event, Report, TaskResult};
use bulkhead_proto::client::message::Request;
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::record::{JobRange, What};
use bulkhead_proto::ids::{ClientId, JobId};
use bulkhead_proto::job::{Payload, Policy};
use bulkhead_proto::limits::JOB_RANGES_MAX;

use crate::rig::{ALICE, BOB, Rig, SEGV};

fn range(first: JobId, count: u64) -> JobRange {
    JobRange { first, last: JobId(first.0 + count - 1) }
}

/// The records of jobs that ended in the queue.
fn told(rig: &Rig) -> Vec<What> {
    let is_told = |what: &&What| matches!(what, What::EndedQueued { .. });
    rig.records.iter().filter(is_told).cloned().collect()
}

fn expires(ms: u64) -> Policy {
    Policy { expires_ms: Some(ms), ..Policy::default() }
}

#[test]
fn jobs_that_expire_in_one_turn_are_one_record_for_each_user() {
    let mut rig = Rig::new(1);
    rig.submit(1);
    let first = rig.submit_as(ALICE, "quick", 1000, expires(1000), false);
    let second = rig.submit_as(ALICE, "quick", 5, expires(1000), true);
    let other = rig.submit_as(BOB, "quick", 2, expires(1000), false);
    rig.sleep(999);
    assert_eq!(told(&rig), []);
    rig.sleep(1);
    let ended = |count, first| What::EndedQueued {
        outcome: Outcome::Expired,
        gone_ms: None,
        count,
        jobs: vec![range(first, count)],
    };
    assert_eq!((second, other), (JobId(first.0 + 1000), JobId(first.0 + 1005)));
    assert_eq!(told(&rig), [ended(1005, first), ended(2, other)]);
    assert_eq!(rig.recorded(|what| matches!(what, What::Ended { .. })), 0, "no record for each");
    rig.sleep(5000);
    assert_eq!(told(&rig).len(), 2);
}

#[test]
fn jobs_that_are_lost_in_the_queue_are_told_before_the_daemon_stops() {
    let mut rig = Rig::new(1);
    let running = rig.submit(1);
    rig.claim(running);
    let queued = rig.submit(300);
    rig.forget_past();
    rig.tell(Event::Drain { grace_ms: Some(50) });
    rig.sleep(51);
    let lost = Outcome::Lost { reason: "the service stopped".to_owned() };
    let ended =
        What::EndedQueued { outcome: lost, gone_ms: None, count: 300, jobs: vec![range(queued, 300)] };
    assert_eq!(told(&rig), [ended]);
    assert_eq!(rig.recorded(|what| matches!(what, What::Ended { job, .. } if *job == running)), 1);
    let at = |wanted: fn(&What) -> bool| rig.records.iter().position(wanted);
    let stopped = at(|what| matches!(what, What::Stopped)).unwrap_or(usize::MAX);
    assert!(at(|what| matches!(what, What::EndedQueued { .. })).is_some_and(|told| told < stopped));
}

#[test]
fn jobs_of_a_client_that_is_gone_are_told_and_those_that_a_user_cancels_are_not() {
    let mut rig = Rig::new(1);
    let running = rig.submit(1);
    rig.claim(running);
    let mine = rig.submit(3);
    assert_eq!(rig.change(ALICE, Request::Cancel { jobs: vec![mine, JobId(mine.0 + 2)] }).0, 2);
    assert_eq!(told(&rig), []);
    let queued = rig.submit_as(BOB, "quick", 4, Policy::default(), true);
    rig.tell(Event::ClientGone { client: BOB });
    rig.sleep(60_000);
    let [What::EndedQueued { outcome: Outcome::Cancelled, gone_ms: Some(_), count: 4, jobs }] =
        &told(&rig)[..]
    else {
        panic!("{:?}", told(&rig))
    };
    assert_eq!(*jobs, [range(queued, 4)]);
}

/// Every second job is of another user, so none follows another.
#[test]
fn many_ranges_are_cut_and_counted() {
    let mut rig = Rig::new(1);
    let running = rig.submit(1);
    rig.claim(running);
    let count = JOB_RANGES_MAX + 4;
    let mut alices = Vec::new();
    for _ in 0..count {
        alices.push(range(rig.submit(1), 1));
        rig.submit_as(BOB, "quick", 1, Policy::default(), false);
    }
    rig.forget_past();
    rig.tell(Event::Stop);
    let told = told(&rig);
    assert_eq!(told.len(), 2);
    let What::EndedQueued { count: told_count, jobs, .. } = &told[0] else { panic!("{told:?}") };
    assert_eq!((*told_count, &jobs[..]), (count as u64, &alices[..JOB_RANGES_MAX]));
    assert!(told[0].to_string().contains(",.."), "{}", told[0]);
}

#[test]
fn a_job_that_began_and_waits_again_has_a_record_of_its_own() {
    let mut rig = Rig::new(1);
    let policy = Policy { retries_max: Some(5), ..Policy::default() };
    let job = rig.submit_as(ALICE, "quick", 1, policy, false);
    rig.fail(job);
    rig.tell(Event::Stop);
    assert_eq!(told(&rig), []);
    assert_eq!(rig.recorded(|what| matches!(what, What::Ended { job: ended, .. } if *ended == job)), 1);
}

/// Its expiry passes while it is offered, and does not pass again.
#[test]
fn a_job_that_comes_back_unbegun_after_its_expiry_expires() {
    let mut rig = Rig::new(2);
    let returned = rig.submit_as(ALICE, "quick", 1, expires(1000), false);
    let lost = rig.submit_as(ALICE, "quick", 1, expires(1000), false);
    rig.sleep(1001);
    assert_eq!((rig.outcome(returned), rig.outcome(lost)), (None, None), "they may have begun");
    let (worker, seq) = rig.holder(returned).expect("it is offered");
    rig.take_back(worker, seq);
    rig.turn();
    let (worker, _) = rig.holder(lost).expect("it is offered");
    rig.die(worker, SEGV);
    for job in [returned, lost] {
        assert_eq!((rig.outcome(job), rig.holder(job)), (Some(Outcome::Expired), None));
    }
    let ended = |job| {
        let jobs = vec![range(job, 1)];
        What::EndedQueued { outcome: Outcome::Expired, gone_ms: None, count: 1, jobs }
    };
    assert_eq!(told(&rig), [ended(returned), ended(lost)]);
}

/// How many jobs one turn ended that had not begun, of all users and of Bob, whose one job has this number.
fn ended_in_a_step(rig: &mut Rig, bobs: JobId) -> (u64, bool) {
    rig.records.clear();
    rig.step();
    let of = |what: &What| match what {
        What::EndedQueued { count, jobs, .. } => (*count, jobs.contains(&range(bobs, 1))),
        _ => (0, false),
    };
    told(rig).iter().map(of).fold((0, false), |all, one| (all.0 + one.0, all.1 | one.1))
}

/// Steps until nothing is due; no turn ends more than a bounded number of jobs, and the first one Bob's.
fn end_in_many_turns(rig: &mut Rig, jobs: u64, bobs: JobId) {
    const MOST: u64 = 1024 + 64;
    let (mut all, mut steps) = (0, 0);
    loop {
        let (ended, has_bobs) = ended_in_a_step(rig, bobs);
        assert!(ended <= MOST, "{ended} jobs in a turn");
        assert_eq!(has_bobs, steps == 0, "a neighbour's job ends in the first turn: {:?}", rig.records);
        (all, steps) = (all + ended, steps + 1);
        if rig.batch.is_empty() && !rig.is_due() {
            break;
        }
    }
    assert_eq!(all, jobs, "after {steps} turns");
}

/// Hundreds of clients do not come back at one moment: a turn cancels a bounded number of their jobs, by user first.
#[test]
fn the_jobs_of_many_clients_that_are_gone_are_cancelled_over_several_turns() {
    const CROWD: u64 = 300;
    const EACH: usize = 10;
    let mut rig = Rig::new(1);
    let running = rig.submit_as(ALICE, "foreign", 1, Policy::default(), false);
    rig.claim(running);
    let mut gone = Vec::new();
    for client in (0..CROWD).map(|number| ClientId(100 + number)) {
        rig.connect(client, 1, false);
        rig.submit_as(client, "foreign", EACH, Policy::default(), true);
        gone.push(Event::ClientGone { client });
    }
    let bobs = rig.submit_as(BOB, "foreign", 1, Policy::default(), true);
    rig.batch.extend(gone);
    rig.tell(Event::ClientGone { client: BOB });
    rig.sleep(29_999);
    rig.pass(1);
    end_in_many_turns(&mut rig, CROWD * EACH as u64 + 1, bobs);
}

/// A client chooses when its jobs expire, so all may at one moment: a turn ends a bounded number, and none of them is offered
/// before its end.
#[test]
fn many_jobs_that_expire_at_once_end_over_several_turns_and_none_begins() {
    const JOBS: usize = 3000;
    let mut rig = Rig::new(1);
    let running = rig.submit_as(ALICE, "foreign", 1, Policy::default(), false);
    rig.claim(running);
    rig.submit_as(ALICE, "foreign", JOBS, expires(1000), false);
    let bobs = rig.submit_as(BOB, "foreign", 1, expires(1000), false);
    rig.sleep(999);
    rig.pass(1);
    let (worker, seq) = rig.holder(running).expect("it is offered");
    let result = TaskResult::Inline(Payload::default());
    let report = Report { result, elapsed_ns: 1, output_bytes: 0, survivors: Vec::new() };
    rig.workers.get_mut(&worker).expect("it lives").clear();
    rig.batch.push(Event::Finished { worker, seq, report });
    end_in_many_turns(&mut rig, JOBS as u64 + 1, bobs);
    assert!(rig.workers.values().all(Vec::is_empty), "what has expired is not offered");
}
