//! Jobs in parts: no part without its job, each made once and done once.

use std::rc::Rc;

use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::ids::OutputId;
use bulkhead_proto::job::Payload;
use bulkhead_proto::limits::PARTS_MAX;

use super::{JobRoom, PARTED, POOL, WORKER};
use crate::job::state::TaskKind;

#[test]
fn parts_are_done_one_by_one_and_merged() {
    let mut room = JobRoom::new();
    let job = room.in_parts(2);
    for _ in 0..2 {
        let part = room.next_running();
        assert!(part.is_part());
        assert!(room.jobs.part_done(part, Payload::default(), 1).is_none());
    }
    assert_eq!(room.jobs.task_kind(job), TaskKind::Merge);
    let merge = room.next_running();
    assert_eq!(merge, job);
    assert_eq!(room.jobs.close_parts(&mut room.turn, job), Vec::new());
    room.end_as(job, Outcome::Done);
}

/// The merge has room in memory, for which the plan may wait for ever: only the first task of a user is looked at.
#[test]
fn a_merge_that_has_to_run_alone_goes_before_the_plans_of_its_user() {
    let mut room = JobRoom::new();
    let first = room.in_parts(0);
    let merge = room.next_running();
    room.of_kind(PARTED);
    let plan = room.next_running();
    assert_eq!((merge, room.charge(plan), room.charge(merge)), (first, None, None));
    assert_eq!(room.jobs.take_alone(POOL, 1000), Some(merge));
    assert_eq!(room.jobs.take_alone(POOL, 1000), Some(plan));
}

#[test]
#[should_panic(expected = "job 1 was at its plan")]
fn a_job_is_planned_at_its_plan() {
    let mut room = JobRoom::new();
    let run = room.running();
    room.jobs.planned(&mut room.turn, run, OutputId(9), 2, 1);
}

#[test]
#[should_panic(expected = "job 1 was at its plan")]
fn a_job_is_planned_once() {
    let mut room = JobRoom::new();
    let run = room.in_parts(2);
    room.jobs.planned(&mut room.turn, run, OutputId(9), 2, 1);
}

#[test]
#[should_panic(expected = "job 1 has 65537 parts")]
fn every_part_has_a_number() {
    JobRoom::new().in_parts(PARTS_MAX + 1);
}

#[test]
#[should_panic(expected = "a job at its plan holds its attachments")]
fn a_plan_is_kept_for_a_job_that_was_offered() {
    let mut room = JobRoom::new();
    let run = room.of_kind(PARTED);
    room.jobs.keep_plan(&mut room.turn, run.handle.index, OutputId(9));
}

#[test]
#[should_panic(expected = "was done by a worker")]
fn a_queued_part_is_not_done() {
    let mut room = JobRoom::new();
    room.in_parts(2);
    let part = room.take();
    room.jobs.part_done(part, Payload::default(), 1);
}

#[test]
#[should_panic(expected = "a part is done as a part")]
fn a_job_is_not_done_as_a_part() {
    let mut room = JobRoom::new();
    let run = room.running();
    room.jobs.part_done(run, Payload::default(), 1);
}

#[test]
#[should_panic(expected = "a part ends as a part")]
fn a_job_does_not_end_as_a_part() {
    let mut room = JobRoom::new();
    let run = room.running();
    room.jobs.part_ended(&mut room.turn, run, Outcome::Cancelled);
}

#[test]
#[should_panic(expected = "is not where it was")]
fn a_part_is_done_once() {
    let mut room = JobRoom::new();
    room.in_parts(2);
    let part = room.next_running();
    room.jobs.part_done(part, Payload::default(), 1);
    room.jobs.part_done(part, Payload::default(), 1);
}

#[test]
#[should_panic(expected = "a part never outlives its job")]
fn a_part_does_not_outlive_its_job() {
    let mut room = JobRoom::new();
    room.in_parts(2);
    let part = room.next_running();
    let (id, _) = room.jobs.part_sets.iter().next().unwrap();
    room.jobs.part_sets.close(id);
    room.jobs.part_done(part, Payload::default(), 1);
}

#[test]
#[should_panic(expected = "is gone once")]
fn a_job_knows_its_live_parts() {
    let mut room = JobRoom::new();
    room.in_parts(2);
    let part = room.next_running();
    let (id, _) = room.jobs.part_sets.iter().next().unwrap();
    room.jobs.part_sets.get_mut(id).unwrap().live.remove(&part.handle.index);
    room.jobs.part_done(part, Payload::default(), 1);
}

#[test]
#[should_panic(expected = "part 0 of job 1 was made and is not done")]
fn no_more_parts_are_done_than_were_made() {
    let mut room = JobRoom::new();
    room.in_parts(2);
    let (id, _) = room.jobs.part_sets.iter().next().unwrap();
    let part_set = room.jobs.part_sets.get_mut(id).unwrap();
    part_set.done = part_set.next;
    part_set.keep(0, Payload::default());
}

#[test]
#[should_panic(expected = "no offer has the results before the merge")]
fn results_are_not_shared_before_the_merge() {
    let mut room = JobRoom::new();
    room.in_parts(2);
    let (id, _) = room.jobs.part_sets.iter().next().unwrap();
    let part_set = room.jobs.part_sets.get_mut(id).unwrap();
    let _shared = Rc::clone(&part_set.results);
    part_set.keep(0, Payload::default());
}

#[test]
#[should_panic(expected = "the parts of a job are closed once")]
fn the_parts_of_a_job_are_closed_once() {
    let mut room = JobRoom::new();
    room.in_parts(2);
    let (id, _) = room.jobs.part_sets.iter().next().unwrap();
    room.jobs.part_sets.close(id);
    room.jobs.part_sets.close(id);
}

#[test]
#[should_panic(expected = "job 1 has parts until its end")]
fn a_job_that_has_ended_has_no_parts() {
    let mut room = JobRoom::new();
    let run = room.ended();
    room.jobs.close_parts(&mut room.turn, run);
}

#[test]
fn a_job_gives_the_offers_of_its_parts_when_it_ends() {
    let mut room = JobRoom::new();
    let job = room.in_parts(2);
    room.next_running();
    let held = room.jobs.close_parts(&mut room.turn, job);
    assert_eq!(held.iter().map(|(worker, _)| *worker).collect::<Vec<_>>(), [WORKER]);
}
