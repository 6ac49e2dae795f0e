//! Reserves: an output goes with an offer if the tasks like it lately asked for one, and counts until the offer is settled.

use bulkhead_core::config::Config;
use bulkhead_core::event::{Event, TaskResult};
use bulkhead_proto::client::message::Request;
use bulkhead_proto::death::{KillReason, Violation};
use bulkhead_proto::ids::{JobId, OutputId};
use bulkhead_proto::job::{OutputMode, Payload, Policy};
use bulkhead_proto::limits::RESERVE_MAX_BYTES;

use crate::rig::{ALICE, Rig, SEGV, config};

const MIB: u64 = 1 << 20;
/// Alice has three quarters of it.
const BOUND: u64 = 256 * MIB;

fn rig(change: impl FnOnce(&mut Config)) -> Rig {
    let mut config = Config { outputs_bytes_max: BOUND, ..config(1) };
    change(&mut config);
    Rig::with(config)
}

fn submit(rig: &mut Rig, output: OutputMode) -> JobId {
    rig.submit_as(ALICE, "quick", 1, Policy { output, ..Policy::default() }, false)
}

/// A job whose task may ask has ended with a result of so many bytes; it did ask if that is long and it had no reserve. Gives the
/// room of its reserve.
fn run(rig: &mut Rig, number: u64, bytes: u64) -> u64 {
    let job = submit(rig, OutputMode::Auto);
    let reserve = reserve(rig, job);
    rig.claim(job);
    let long = TaskResult::Held { output: OutputId(number), bytes };
    if bytes > 4096 && bytes > reserve {
        let (worker, seq) = rig.holder(job).expect("the job is offered");
        rig.tell(Event::OutputNeeded { worker, seq });
    }
    let result = if bytes > 4096 { long } else { TaskResult::Inline(Payload::default()) };
    rig.finish_with(job, result, 2_000_000);
    rig.change(ALICE, Request::Forget { jobs: vec![job] });
    assert_eq!(held(rig), 0, "the room of an offer that is settled is given back");
    reserve
}

/// The room of what goes with the offer of a job beforehand.
fn reserve(rig: &Rig, job: JobId) -> u64 {
    let held = rig.workers.values().flatten().find(|held| held.task.job == job);
    let task = &held.expect("the job is offered").task;
    assert_eq!(task.has_reserve(), task.room().own_bytes > 0);
    task.room().own_bytes
}

fn held(rig: &mut Rig) -> u64 {
    rig.status().outputs.held
}

/// Six long results: from now on a reserve goes with each offer.
fn teach(rig: &mut Rig) {
    assert!((1..=6).all(|number| run(rig, number, 64 << 10) == 0));
}

#[test]
fn after_six_long_results_an_output_goes_with_the_offer_and_no_task_asks() {
    let mut rig = rig(|_| ());
    teach(&mut rig);
    assert_eq!(rig.given.len(), 6);
    let job = submit(&mut rig, OutputMode::Auto);
    assert_eq!((reserve(&rig, job), held(&mut rig)), (RESERVE_MAX_BYTES, RESERVE_MAX_BYTES));
    rig.claim(job);
    rig.finish_with(job, TaskResult::Held { output: OutputId(7), bytes: 5000 }, 2_000_000);
    assert_eq!((rig.given.len(), held(&mut rig)), (6, 5000));
    let other = submit(&mut rig, OutputMode::Inline);
    assert_eq!(reserve(&rig, other), 0, "a task that may not ask has none");
}

#[test]
fn three_results_that_fit_inline_end_it() {
    let mut rig = rig(|_| ());
    teach(&mut rig);
    let reserves: Vec<_> =
        (7..).zip([9000, 9000, 10, 10, 10, 10]).map(|(number, bytes)| run(&mut rig, number, bytes)).collect();
    let with = RESERVE_MAX_BYTES;
    assert_eq!(reserves, [with, with, with, with, with, 0]);
}

#[test]
fn what_is_longer_than_a_reserve_never_has_one() {
    let mut rig = rig(|_| ());
    assert!((1..=12).all(|number| run(&mut rig, number, RESERVE_MAX_BYTES + 1) == 0));
}

#[test]
fn what_is_given_takes_the_place_of_the_reserve_once() {
    let mut rig = rig(|_| ());
    teach(&mut rig);
    let job = submit(&mut rig, OutputMode::Auto);
    rig.claim(job);
    let (worker, seq) = rig.holder(job).expect("the job is offered");
    rig.tell(Event::OutputNeeded { worker, seq });
    let (_, _, room) = *rig.given.last().expect("it was given one");
    assert!(room > RESERVE_MAX_BYTES && held(&mut rig) == room, "{room}");
    rig.tell(Event::OutputNeeded { worker, seq });
    let lie = KillReason::Violation { violation: Violation::NeedOutput };
    assert_eq!(rig.killed.get(&worker), Some(&lie), "it asks once");
}

#[test]
fn a_death_or_a_shortage_gives_a_reserve_back() {
    let mut rig = rig(|_| ());
    teach(&mut rig);
    let job = submit(&mut rig, OutputMode::Auto);
    rig.claim(job);
    let (worker, _) = rig.holder(job).expect("the job is offered");
    rig.die(worker, SEGV);
    rig.sleep(10);
    let (worker, seq) = rig.holder(job).expect("it is offered again");
    assert_eq!(held(&mut rig), RESERVE_MAX_BYTES);
    rig.claim(job);
    rig.tell(Event::OutputNeeded { worker, seq });
    rig.tell(Event::OutputShort { worker, seq, shortage: "no descriptor".to_owned() });
    assert_eq!(held(&mut rig), 0);
}

#[test]
fn no_reserve_takes_more_than_a_part_of_a_share_or_the_place_of_what_is_kept() {
    let mut rig = rig(|config| config.outputs_bytes_max = 4 * MIB);
    teach(&mut rig);
    let job = submit(&mut rig, OutputMode::Auto);
    assert_eq!(reserve(&rig, job), 0, "a quarter of her share of 3 MiB is less than a reserve");
    let mut rig = self::rig(|config| config.outputs_bytes_max = 64 * MIB);
    teach(&mut rig);
    let job = submit(&mut rig, OutputMode::Auto);
    rig.claim(job);
    let (worker, seq) = rig.holder(job).expect("the job is offered");
    rig.tell(Event::OutputNeeded { worker, seq });
    rig.finish_with(job, TaskResult::Held { output: OutputId(7), bytes: 45 * MIB }, 2_000_000);
    let next = submit(&mut rig, OutputMode::Auto);
    assert_eq!((reserve(&rig, next), rig.dropped.contains(&OutputId(7))), (0, false));
}
