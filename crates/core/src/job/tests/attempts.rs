//! Attempts: from an offer to what becomes of it.

use super::{POOL, Room};
use crate::event::Leftover;
use crate::job::state::{Phase, State};

#[test]
#[should_panic(expected = "job 1 is taken before it is offered")]
fn a_job_is_taken_before_it_starts() {
    let mut room = Room::new();
    let run = room.queued();
    room.start(run);
}

#[test]
#[should_panic(expected = "job 1 went from Running to Running")]
fn an_attempt_starts_once() {
    let mut room = Room::new();
    let run = room.running();
    room.start(run);
}

#[test]
#[should_panic(expected = "job 1 was taken out of its list")]
fn a_taken_job_is_of_the_state_of_its_list() {
    let mut room = Room::new();
    let run = room.running();
    room.charge(run);
    // Its state says otherwise than its list.
    let index = run.handle.index;
    room.jobs.queues.unlink_solo(&mut room.jobs.table, index);
    room.jobs.table[index].state = State::Queued;
    room.jobs.taken(index, Phase::Solo);
}

#[test]
#[should_panic(expected = "job 1 is given back by a worker")]
fn a_queued_job_is_not_given_back() {
    let mut room = Room::new();
    let run = room.queued();
    room.jobs.requeue(&mut room.turn, run, false);
}

#[test]
#[should_panic(expected = "job 1 is given back by a worker")]
fn a_job_is_given_back_once() {
    let mut room = Room::new();
    let run = room.running();
    assert!(room.jobs.requeue(&mut room.turn, run, true));
    room.jobs.requeue(&mut room.turn, run, true);
}

#[test]
#[should_panic(expected = "attempts of a job are counted before they go")]
fn an_offer_that_did_not_begin_was_counted() {
    let mut room = Room::new();
    let run = room.running();
    room.jobs.table[run.handle.index].attempts = 0;
    room.jobs.requeue(&mut room.turn, run, false);
}

#[test]
#[should_panic(expected = "job 1 has no retry left")]
fn a_job_backs_off_within_its_budget() {
    let mut room = Room::new();
    let run = room.running();
    room.jobs.back_off(&mut room.turn, run, "no".to_owned(), Leftover::Nothing);
}

#[test]
#[should_panic(expected = "job 1 went from Queued to Waiting")]
fn a_queued_job_does_not_back_off() {
    let mut room = Room::new();
    let run = room.admit(1, |admission| admission.submit.policy.retries_max = Some(1));
    room.jobs.back_off(&mut room.turn, run, "no".to_owned(), Leftover::Nothing);
}

#[test]
#[should_panic(expected = "job 1 was with the dead worker")]
fn a_queued_job_is_not_charged() {
    let mut room = Room::new();
    let run = room.queued();
    room.charge(run);
}

#[test]
#[should_panic(expected = "job 1 was with the dead worker")]
fn a_death_is_charged_once() {
    let mut room = Room::new();
    let run = room.running();
    room.charge(run);
    room.charge(run);
}

#[test]
#[should_panic(expected = "job 1 has a crash left to be charged")]
fn a_job_is_charged_within_its_budget() {
    let mut room = Room::new();
    let run = room.admit(1, |admission| admission.submit.policy.crashes_max = Some(1));
    room.next_running();
    assert!(room.charge(run).is_some());
    room.charge(run);
}

#[test]
#[should_panic(expected = "the evidence of job 1 has a bound")]
fn the_evidence_of_a_job_has_a_bound() {
    let mut room = Room::new();
    let run = room.running();
    room.charge(run);
    let deaths = &mut room.jobs.table[run.handle.index].aside_mut().deaths;
    let death = deaths[0].clone();
    deaths.resize(33, death);
    let run = room.jobs.take_alone(POOL).unwrap();
    room.start(run);
    room.charge(run);
}
