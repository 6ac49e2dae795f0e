//! The order in which parts of jobs are offered: other jobs do not wait for all of them, and many parts cost little.

use bulkhead_core::event::{Event, TaskResult};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::ids::{ClientId, JobId};
use bulkhead_proto::job::Policy;
use bulkhead_proto::worker::stage::Stage;

use crate::parts::{PLAN, left, order};
use crate::rig::{ALICE, BOB, Rig};

#[test]
fn parts_and_other_jobs_take_turns() {
    let mut rig = Rig::new(1);
    let fan = rig.planned(1000, Policy::default());
    rig.submit(40);
    rig.submit_as(BOB, "quick", 40, Policy::default(), false);
    let seen = order(&mut rig, 41);
    let parts = seen.iter().filter(|job| **job == fan).count();
    let alices = seen.iter().filter(|job| **job > fan && job.0 <= fan.0 + 40).count();
    let bobs = seen.len() - parts - alices;
    assert!((19..=21).contains(&bobs), "users take turns: {seen:?}");
    assert!((9..=11).contains(&parts) && (9..=11).contains(&alices), "so do parts and jobs: {seen:?}");
}

#[test]
fn parts_of_two_jobs_take_turns() {
    let mut rig = Rig::new(1);
    let first = rig.planned(1000, Policy::default());
    let second = rig.submit_as(ALICE, "fan", 1, Policy::default(), false);
    while rig.task(second, |stage| stage == Stage::Plan).is_none() {
        order(&mut rig, 1);
    }
    rig.plan(second, 1000);
    let seen = order(&mut rig, 40);
    let firsts = seen.iter().filter(|job| **job == first).count();
    assert!((15..=25).contains(&firsts), "{seen:?}");
}

#[test]
fn more_urgent_jobs_go_before_parts() {
    let mut rig = Rig::new(1);
    let fan = rig.planned(1000, Policy { priority: 3, ..Policy::default() });
    rig.submit_as(ALICE, "quick", 5, Policy { priority: 8, ..Policy::default() }, false);
    let seen = order(&mut rig, 7);
    assert!(seen[0] == fan && seen[6] == fan && !seen[1..6].contains(&fan), "{seen:?}");
}

#[test]
fn plans_do_not_pile_up() {
    let mut rig = Rig::new(1);
    let first = rig.submit_as(ALICE, "fan", 50, Policy::default(), false);
    rig.plan(first, 50);
    let mut planned = vec![first];
    for _ in 0..40 {
        let held = rig.workers.values().flatten().next().expect("something runs").task.clone();
        if held.stage == Stage::Plan {
            rig.plan(held.job, 50);
            planned.push(held.job);
        } else {
            order(&mut rig, 1);
        }
    }
    assert_eq!(planned, [first, JobId(first.0 + 1)], "two at a time with one slot");
}

#[test]
fn jobs_in_parts_of_many_clients_have_a_bound_and_every_user_gets_one() {
    let mut rig = Rig::new(1);
    let mut planned = Vec::new();
    let mut run = |rig: &mut Rig, tasks: usize| {
        for _ in 0..tasks {
            let Some(task) = rig.workers.values().flatten().next().map(|held| held.task.clone()) else {
                break;
            };
            if task.stage == Stage::Plan {
                rig.plan(task.job, 4);
                planned.push(task.job);
            } else {
                order(rig, 1);
            }
        }
        planned.len()
    };
    for number in 100..250 {
        rig.connect(ClientId(number), 7, false);
        rig.submit_as(ClientId(number), "fan", 1, Policy::default(), false);
    }
    assert_eq!(run(&mut rig, 140), 128, "as many as may be");
    rig.submit_as(BOB, "fan", 1, Policy::default(), false);
    assert_eq!(run(&mut rig, 4), 129, "another user's first one does not wait");
    rig.submit_as(BOB, "fan", 1, Policy::default(), false);
    assert_eq!(run(&mut rig, 4), 129, "the second one does");
    assert_eq!(run(&mut rig, 10_000), 152, "they go on as others end");
}

#[test]
fn ten_thousand_parts_are_no_burden() {
    let mut rig = Rig::new(2);
    let job = rig.fan(Policy::default());
    let (worker, seq, _) = rig.task(job, |_| true).expect("it is offered");
    rig.workers.get_mut(&worker).expect("it lives").retain(|held| held.seq != seq);
    let planned = TaskResult::Planned { output: PLAN, bytes: 1 << 20, parts: 10_000 };
    rig.tell(Event::Finished {
        worker,
        seq,
        report: bulkhead_core::event::Report {
            result: planned,
            elapsed_ns: 1,
            output_bytes: 0,
            survivors: Vec::new(),
        },
    });
    let mut done = 0;
    while let Some((worker, seq, task)) = rig.task(job, |_| true) {
        if task.stage == (Stage::Merge { parts: 10_000 }) {
            break;
        }
        rig.finish_offer(worker, seq, left(b"x"), 1000);
        done += 1;
    }
    assert_eq!(done, 10_000);
    rig.finish(job);
    assert_eq!(rig.outcome(job), Some(Outcome::Done));
}
