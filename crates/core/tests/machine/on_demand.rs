//! Outputs that tasks ask for while they run: given once, refused with a bound, counted from the question to the last close.

use bulkhead_core::config::Config;
use bulkhead_core::event::{Event, TaskResult};
use bulkhead_proto::client::message::Request;
use bulkhead_proto::client::why::WhyNow;
use bulkhead_proto::death::{KillReason, Violation};
use bulkhead_proto::ids::{ClientId, JobId, OutputId, Seq, WorkerId};
use bulkhead_proto::job::{OutputMode, Policy};
use bulkhead_proto::limits::OUTPUTS_KEY;

use crate::rig::{ALICE, BOB, Rig, SEGV, config};

const MIB: u64 = 1 << 20;
/// A bound of which Alice has 192 MiB.
const BOUND: u64 = 256 * MIB;
const REFUSED: KillReason = KillReason::Violation { violation: Violation::NeedOutput };

fn rig(slots: u16, change: impl FnOnce(&mut Config)) -> Rig {
    let mut config = Config { outputs_bytes_max: BOUND, ..config(slots) };
    for kind in &mut config.kinds {
        kind.output_max_bytes = Some(1 << 30);
    }
    change(&mut config);
    Rig::with(config)
}

fn auto() -> Policy {
    Policy { output: OutputMode::Auto, ..Policy::default() }
}

/// One detached job whose task may ask.
fn submit(rig: &mut Rig, client: ClientId) -> JobId {
    rig.submit_as(client, "quick", 1, auto(), false)
}

/// The task of a job has begun, and asks.
fn ask(rig: &mut Rig, job: JobId) -> (WorkerId, Seq) {
    rig.claim(job);
    let (worker, seq) = rig.holder(job).expect("the job is offered");
    rig.tell(Event::OutputNeeded { worker, seq });
    (worker, seq)
}

/// The room that the last one was given.
fn room(rig: &Rig) -> u64 {
    rig.given.last().expect("an output was given").2
}

fn held(rig: &mut Rig) -> (u64, u64) {
    let outputs = rig.status().outputs;
    (outputs.held, outputs.running)
}

#[test]
fn an_output_counts_from_the_question_on_and_a_task_that_does_not_ask_costs_nothing() {
    let mut rig = rig(1, |_| ());
    let silent = submit(&mut rig, ALICE);
    assert_eq!(held(&mut rig), (0, 0));
    rig.finish(silent);
    let job = submit(&mut rig, ALICE);
    let asked = ask(&mut rig, job);
    assert_eq!(rig.given, [(asked.0, asked.1, 192 * MIB)], "all of the share: there is one slot");
    assert_eq!(held(&mut rig), (192 * MIB, 192 * MIB));
    rig.finish_with(job, TaskResult::Held { output: OutputId(1), bytes: 5000 }, 2_000_000);
    assert_eq!(held(&mut rig), (5000, 0));
    rig.change(ALICE, Request::Forget { jobs: vec![job] });
    assert_eq!((rig.dropped.clone(), held(&mut rig)), (vec![OutputId(1)], (0, 0)));
    assert!(rig.refused.is_empty());
}

#[test]
fn a_task_may_be_given_one_and_end_without_it() {
    let mut rig = rig(1, |_| ());
    let job = submit(&mut rig, ALICE);
    ask(&mut rig, job);
    rig.finish(job);
    assert_eq!(held(&mut rig), (0, 0));
}

#[test]
fn each_worker_has_its_part_and_a_kind_its_most() {
    let mut rig = rig(3, |config| config.kinds[1].output_max_bytes = Some(MIB));
    let jobs: Vec<_> = (0..3).map(|_| submit(&mut rig, ALICE)).collect();
    for job in &jobs {
        ask(&mut rig, *job);
        assert_eq!(room(&rig), 64 * MIB);
    }
    jobs.iter().for_each(|job| rig.finish(*job));
    let foreign = rig.submit_as(ALICE, "foreign", 1, auto(), false);
    ask(&mut rig, foreign);
    assert_eq!((room(&rig), rig.given.len(), rig.refused.len()), (MIB, 4, 0));
}

/// A second question, one of a task with another place for its output, one of an offer that is not there.
#[test]
fn a_worker_that_asks_for_what_it_may_not_have_is_killed_and_gets_nothing() {
    let mut rig = rig(1, |_| ());
    let job = submit(&mut rig, ALICE);
    let (worker, seq) = ask(&mut rig, job);
    rig.tell(Event::OutputNeeded { worker, seq });
    assert_eq!((rig.killed.remove(&worker), rig.given.len()), (Some(REFUSED), 1));
    rig.die(worker, bulkhead_proto::death::Death::Killed { why: REFUSED });
    rig.sleep(10);
    rig.finish(job);
    for mode in [OutputMode::Inline, OutputMode::Descriptor] {
        let policy = Policy { output: mode, ..Policy::default() };
        let job = rig.submit_as(ALICE, "quick", 1, policy, false);
        let (worker, _) = ask(&mut rig, job);
        assert_eq!((rig.killed.remove(&worker), rig.given.len()), (Some(REFUSED), 1), "{mode:?}");
        rig.die(worker, bulkhead_proto::death::Death::Killed { why: REFUSED });
        rig.sleep(10);
        rig.finish(job);
    }
    let (worker, stale) = (*rig.workers.keys().next().expect("a worker"), Seq(77));
    rig.tell(Event::OutputNeeded { worker, seq: stale });
    rig.tell(Event::OutputNeeded { worker: WorkerId(999), seq: stale });
    assert!(rig.killed.is_empty() && rig.given.len() == 1 && rig.refused.is_empty());
}

#[test]
fn what_was_refused_may_not_be_asked_for_again() {
    let mut rig = rig(1, |_| ());
    let job = submit(&mut rig, ALICE);
    let (worker, seq) = ask(&mut rig, job);
    rig.tell(Event::OutputShort { worker, seq, shortage: "no descriptor".to_owned() });
    rig.tell(Event::OutputNeeded { worker, seq });
    assert_eq!((rig.killed.get(&worker), rig.given.len()), (Some(&REFUSED), 1));
}

#[test]
fn a_shortage_of_the_shell_refuses_and_gives_the_room_back_at_once() {
    let mut rig = rig(1, |_| ());
    let job = submit(&mut rig, ALICE);
    let (worker, seq) = ask(&mut rig, job);
    rig.tell(Event::OutputShort { worker, seq, shortage: "no descriptor".to_owned() });
    assert_eq!(rig.refused, [(worker, seq, "no descriptor".to_owned())]);
    assert_eq!(held(&mut rig), (0, 0));
    rig.tell(Event::OutputShort { worker, seq, shortage: "no descriptor".to_owned() });
    assert_eq!(rig.refused.len(), 1, "it has its answer");
    rig.fail(job);
    assert_eq!(held(&mut rig), (0, 0));
}

#[test]
fn a_task_whose_job_has_ended_is_refused() {
    let mut rig = rig(1, |config| config.kinds[0].cancel_grace_ms = 1000);
    let job = submit(&mut rig, ALICE);
    rig.claim(job);
    let (worker, seq) = rig.holder(job).expect("the job is offered");
    rig.change(ALICE, Request::Cancel { jobs: vec![job] });
    rig.look(worker);
    rig.turn();
    rig.tell(Event::OutputNeeded { worker, seq });
    assert!(rig.given.is_empty());
    assert_eq!(rig.refused, [(worker, seq, "its job has ended".to_owned())]);
}

/// Between question and answer, and after it.
#[test]
fn a_death_a_cancel_and_a_timeout_give_the_room_back() {
    let mut rig = rig(2, |_| ());
    let job = submit(&mut rig, ALICE);
    let (worker, seq) = rig.holder(job).expect("the job is offered");
    rig.claim(job);
    rig.batch.push(Event::OutputNeeded { worker, seq });
    rig.die(worker, SEGV);
    assert_eq!(held(&mut rig), (0, 0), "the answer came too late for it");
    rig.sleep(10);
    let (again, _) = ask(&mut rig, job);
    assert!(again != worker && held(&mut rig).1 == 96 * MIB);
    rig.change(ALICE, Request::Cancel { jobs: vec![job] });
    rig.look(again);
    rig.turn();
    assert_eq!(rig.killed.get(&again), Some(&KillReason::Cancel));
    rig.tell(Event::OutputNeeded { worker: again, seq });
    assert_eq!(held(&mut rig).1, 96 * MIB, "it may write until its death is proven");
    rig.die(again, bulkhead_proto::death::Death::Killed { why: KillReason::Cancel });
    assert_eq!(held(&mut rig), (0, 0));
    let policy = Policy { timeout_ms: Some(50), ..auto() };
    let late = rig.submit_as(ALICE, "quick", 1, policy, false);
    let (worker, _) = ask(&mut rig, late);
    rig.sleep(60);
    assert_eq!(rig.killed.get(&worker), Some(&KillReason::Timeout));
    rig.die(worker, bulkhead_proto::death::Death::Killed { why: KillReason::Timeout });
    assert_eq!(held(&mut rig), (0, 0));
}

#[test]
fn a_drain_answers_tasks_that_run_and_a_stop_refuses_them() {
    let mut rig = rig(2, |config| config.kinds[0].cancel_grace_ms = 1000);
    let jobs = [submit(&mut rig, ALICE), submit(&mut rig, ALICE)];
    rig.tell(Event::Drain { grace_ms: None });
    ask(&mut rig, jobs[0]);
    assert_eq!((rig.given.len(), rig.refused.len()), (1, 0));
    rig.claim(jobs[1]);
    let (worker, seq) = rig.holder(jobs[1]).expect("the job is offered");
    rig.tell(Event::Stop);
    rig.tell(Event::OutputNeeded { worker, seq });
    assert_eq!(rig.given.len(), 1);
    assert_eq!(held(&mut rig).1, 96 * MIB);
}

#[test]
fn without_room_a_task_waits_in_the_queue_and_one_that_runs_is_refused_with_the_key() {
    let mut rig = rig(2, |_| ());
    rig.free = false;
    let jobs = [submit(&mut rig, ALICE), submit(&mut rig, ALICE)];
    ask(&mut rig, jobs[0]);
    let almost = 192 * MIB - 1000;
    rig.finish_with(jobs[0], TaskResult::Held { output: OutputId(1), bytes: almost }, 2_000_000);
    // A reply still holds it.
    rig.change(ALICE, Request::Forget { jobs: vec![jobs[0]] });
    assert!(rig.refused.is_empty());
    ask(&mut rig, jobs[1]);
    let (_, _, why) = rig.refused.last().expect("there is no room");
    assert!(why.contains(OUTPUTS_KEY) && why.contains(&format!("{almost} of {}", 192 * MIB)), "{why}");
    rig.fail(jobs[1]);
    let next = submit(&mut rig, ALICE);
    assert_eq!(rig.holder(next), None, "nothing that may ask is begun");
    match rig.why(ALICE, next).now {
        WhyNow::Queued { outputs: Some(wait), .. } => {
            assert_eq!((wait.held, wait.share, wait.files), (almost, 192 * MIB, None));
        }
        other => panic!("{other:?}"),
    }
    let neighbours = submit(&mut rig, BOB);
    assert!(rig.holder(neighbours).is_some(), "the neighbour has a share too");
    rig.finish(neighbours);
    assert_eq!(rig.holder(next), None);
    rig.tell(Event::OutputFreed { output: OutputId(1) });
    assert!(rig.holder(next).is_some());
}

#[test]
fn without_a_file_the_same_and_the_limit_is_told() {
    let mut rig = rig(2, |config| config.open_outputs_max = 4);
    rig.free = false;
    let jobs: Vec<_> = (0..4).map(|_| submit(&mut rig, ALICE)).collect();
    for (number, job) in (1..).zip(&jobs[..3]) {
        ask(&mut rig, *job);
        rig.finish_with(*job, TaskResult::Held { output: OutputId(number), bytes: 5000 }, 2_000_000);
        rig.change(ALICE, Request::Forget { jobs: vec![*job] });
    }
    ask(&mut rig, jobs[3]);
    let (_, _, why) = rig.refused.last().expect("there is no file");
    assert!(why.contains("RLIMIT_NOFILE") && why.contains("3 of 3"), "{why}");
    rig.fail(jobs[3]);
    let next = submit(&mut rig, ALICE);
    match rig.why(ALICE, next).now {
        WhyNow::Queued { outputs: Some(wait), .. } => {
            assert_eq!(wait.files.map(|files| files.share), Some(3))
        }
        other => panic!("{other:?}"),
    }
    rig.tell(Event::OutputClosed { output: OutputId(1) });
    assert!(rig.holder(next).is_some(), "what is closed takes no file");
}

#[test]
fn kept_outputs_go_where_they_stand_in_the_way() {
    let mut rig = rig(1, |config| config.outputs_bytes_max = 64 * MIB);
    for number in 1..=2 {
        let job = submit(&mut rig, ALICE);
        ask(&mut rig, job);
        assert_eq!(room(&rig), 48 * MIB);
        rig.finish_with(job, TaskResult::Held { output: OutputId(number), bytes: 30 * MIB }, 2_000_000);
    }
    assert_eq!(rig.dropped, [OutputId(1)], "the room of the second took the place of the first");
}

/// A kind says so for all of its jobs that do not ask for another place; the log of an attempt is a file of its own.
#[test]
fn a_kind_may_say_so_and_keep_logs_beside_it() {
    let mut rig = rig(1, |config| {
        config.kinds[0].output = OutputMode::Auto;
        config.kinds[0].logs = true;
    });
    let job = rig.submit(1);
    let before = held(&mut rig);
    ask(&mut rig, job);
    let with = held(&mut rig);
    assert!(before.0 > 0 && with.1 - before.1 == room(&rig));
    rig.finish_with(job, TaskResult::Held { output: OutputId(1), bytes: 5000 }, 2_000_000);
    assert_eq!(held(&mut rig).1, 0);
}
