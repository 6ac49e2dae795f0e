//! Attempts: from an offer to what becomes of it.

use std::collections::BTreeSet;

use super::{JobRoom, POOL};
use crate::event::{Leftover, Now};
use crate::job::TaskRun;
use crate::job::state::{EntryState, Phase};

/// A method, the state before it and the state after it.
type Way = (String, String, String);

/// The ways in the table of a header: each state of the second column to each of the third, without text in brackets.
fn ways_told(source: &str) -> BTreeSet<Way> {
    let states = |cell: &str| {
        let outside: String =
            cell.split('(').map(|text| text.split_once(')').map_or(text, |(_, rest)| rest)).collect();
        outside.split(',').map(|state| state.trim().to_owned()).collect::<Vec<_>>()
    };
    let mut ways = BTreeSet::new();
    for row in source.lines().filter_map(|line| line.strip_prefix("//! | `")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        for from in states(cells[1]) {
            let method = cells[0].trim_end_matches('`').to_owned();
            ways.extend(states(cells[2]).into_iter().map(|to| (method.clone(), from.clone(), to)));
        }
    }
    ways
}

/// Calls methods and notes the ways that they went.
struct Watched {
    room: JobRoom,
    run: TaskRun,
    seen: BTreeSet<Way>,
}

impl Watched {
    fn call(&mut self, method: &str, change: impl FnOnce(&mut JobRoom, TaskRun)) {
        let index = self.run.handle.index;
        let phase = |room: &JobRoom| format!("{:?}", room.jobs.table[index].state.phase()).to_lowercase();
        let from = phase(&self.room);
        change(&mut self.room, self.run);
        self.seen.insert((method.to_owned(), from, phase(&self.room)));
    }

    fn start(&mut self) {
        if let Phase::Solo = self.room.jobs.table[self.run.handle.index].state.phase() {
            self.room.jobs.take_alone(POOL, 1000);
        } else {
            self.room.take();
        }
        self.call("start", |room, run| drop(room.start(run)));
    }

    fn requeue(&mut self, begun: bool) {
        self.call("requeue", |room, run| {
            room.jobs.requeue(&mut room.turn, run, begun);
        });
    }

    fn fail(&mut self) {
        let no = "no".to_owned();
        self.call("back_off", |room, run| room.jobs.back_off(&mut room.turn, run, no, Leftover::Nothing));
        self.call("backoff_over", |room, run| room.jobs.backoff_over(run.first()));
    }

    fn charge(&mut self) {
        self.call("charge", |room, run| drop(room.charge(run)));
    }
}

#[test]
fn the_table_of_attempts_is_the_code() {
    let mut room = JobRoom::new();
    let run = room.admit(1, |admission| {
        let policy = &mut admission.submit.policy;
        (policy.crashes_max, policy.retries_max, policy.expires_ms) = (Some(2), Some(2), Some(5));
    });
    let mut watched = Watched { room, run, seen: BTreeSet::new() };
    watched.start();
    // Its first attempt began after all, or it would have expired.
    watched.requeue(true);
    watched.start();
    watched.fail();
    watched.start();
    watched.charge();
    watched.start();
    watched.requeue(true);
    watched.start();
    watched.fail();
    watched.start();
    watched.charge();
    let mut seen = watched.seen;
    // Another one, given back unbegun when its time is over.
    let mut room = JobRoom::new();
    let run = room.admit(1, |admission| admission.submit.policy.expires_ms = Some(5));
    let mut watched = Watched { room, run, seen: BTreeSet::new() };
    watched.start();
    watched.room.turn.end(&mut crate::action::Output::default());
    let later = Now { mono_ns: 2_000_000_000, wall_us: 2 };
    watched.room.turn.begin(later, &mut crate::action::Output::default());
    watched.requeue(false);
    seen.append(&mut watched.seen);
    assert_eq!(
        ways_told(include_str!("../attempt.rs")),
        seen,
        "left: the table in the header, right: the code"
    );
}

#[test]
#[should_panic(expected = "job 1 is taken before it is offered")]
fn a_job_is_taken_before_it_starts() {
    let mut room = JobRoom::new();
    let run = room.queued();
    room.start(run);
}

#[test]
#[should_panic(expected = "job 1 went from Running to Running")]
fn an_attempt_starts_once() {
    let mut room = JobRoom::new();
    let run = room.running();
    room.start(run);
}

#[test]
#[should_panic(expected = "job 1 was taken out of its list")]
fn a_taken_job_is_of_the_state_of_its_list() {
    let mut room = JobRoom::new();
    let run = room.running();
    room.charge(run);
    // Its state says otherwise than its list.
    let index = run.handle.index;
    room.jobs.queues.unlink_solo(&mut room.jobs.table, index);
    room.jobs.table[index].state = EntryState::Queued;
    room.jobs.taken(index, Phase::Solo);
}

#[test]
#[should_panic(expected = "job 1 is given back by a worker")]
fn a_queued_job_is_not_given_back() {
    let mut room = JobRoom::new();
    let run = room.queued();
    room.jobs.requeue(&mut room.turn, run, false);
}

#[test]
#[should_panic(expected = "job 1 is given back by a worker")]
fn a_job_is_given_back_once() {
    let mut room = JobRoom::new();
    let run = room.running();
    assert!(room.jobs.requeue(&mut room.turn, run, true));
    room.jobs.requeue(&mut room.turn, run, true);
}

#[test]
#[should_panic(expected = "attempts of a job are counted before they go")]
fn an_offer_that_did_not_begin_was_counted() {
    let mut room = JobRoom::new();
    let run = room.running();
    room.jobs.table[run.handle.index].attempts = 0;
    room.jobs.requeue(&mut room.turn, run, false);
}

#[test]
#[should_panic(expected = "job 1 has no retry left")]
fn a_job_backs_off_within_its_budget() {
    let mut room = JobRoom::new();
    let run = room.running();
    room.jobs.back_off(&mut room.turn, run, "no".to_owned(), Leftover::Nothing);
}

#[test]
#[should_panic(expected = "job 1 went from Queued to Waiting")]
fn a_queued_job_does_not_back_off() {
    let mut room = JobRoom::new();
    let run = room.admit(1, |admission| admission.submit.policy.retries_max = Some(1));
    room.jobs.back_off(&mut room.turn, run, "no".to_owned(), Leftover::Nothing);
}

#[test]
#[should_panic(expected = "job 1 was with the dead worker")]
fn a_queued_job_is_not_charged() {
    let mut room = JobRoom::new();
    let run = room.queued();
    room.charge(run);
}

#[test]
#[should_panic(expected = "job 1 was with the dead worker")]
fn a_death_is_charged_once() {
    let mut room = JobRoom::new();
    let run = room.running();
    room.charge(run);
    room.charge(run);
}

#[test]
#[should_panic(expected = "job 1 has a crash left to be charged")]
fn a_job_is_charged_within_its_budget() {
    let mut room = JobRoom::new();
    let run = room.admit(1, |admission| admission.submit.policy.crashes_max = Some(1));
    room.next_running();
    assert!(room.charge(run).is_some());
    room.charge(run);
}

#[test]
#[should_panic(expected = "the evidence of job 1 has a bound")]
fn the_evidence_of_a_job_has_a_bound() {
    let mut room = JobRoom::new();
    let run = room.running();
    room.charge(run);
    let deaths = &mut room.jobs.table[run.handle.index].rare_mut().deaths;
    let death = deaths[0].clone();
    deaths.resize(33, death);
    let run = room.jobs.take_alone(POOL, 1000).unwrap();
    room.start(run);
    room.charge(run);
}
