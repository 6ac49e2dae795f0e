//! Processes that cannot die: their slots are given away, their jobs are answered or wait, and all is well when they die.
//!
//! Some are frozen (the freezer of cgroup v1, where SIGKILL waits for the thaw), one waits for a file system that does
//! not answer. Where a machine has neither, the tests say so and are skipped.

use bulkhead_proto::client::evidence::RunState;
use bulkhead_proto::client::message::{Reply, Request, Submit};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::view::{WorkerRow, WorkerState};
use bulkhead_proto::ids::JobId;
use bulkhead_proto::job::Policy;
use bulkhead_tests::daemon::eventually;
use bulkhead_tests::dead_disk::DeadDisk;
use bulkhead_tests::freezer::Freezer;
use bulkhead_tests::grove::Grove;
use bulkhead_tests::hostile::grove::{DIE, END};
use bulkhead_tests::or_skip;
use bulkhead_tests::siege::Siege;
use bulkhead_tests::wire::{Wire, submit};

const CONFIG: &str = "stuck_after_seconds = 1";

fn plant(wire: &mut Wire, input: &str, policy: Policy) -> JobId {
    let job = Submit { policy, ..submit("chaos", &[input], false) };
    match wire.call(Request::Submit(job)) {
        Reply::Accepted { first, count: 1, refused: None } => first,
        other => panic!("not accepted: {other:?}"),
    }
}

fn cancel(wire: &mut Wire, job: JobId) {
    let reply = wire.call(Request::Cancel { jobs: vec![job] });
    assert!(matches!(reply, Reply::Changed { .. }), "{reply:?}");
}

fn outcome_of(wire: &mut Wire, job: JobId) -> Outcome {
    match wire.call(Request::Wait { jobs: vec![job] }) {
        Reply::Ended(ended) => ended[0].outcome.clone(),
        other => panic!("no end: {other:?}"),
    }
}

fn is_alive(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

/// Waits until the worker of this process is stuck.
fn await_stuck(siege: &mut Siege, pid: u32) -> WorkerRow {
    eventually("the worker is stuck", || {
        let rows = siege.workers();
        rows.into_iter().find(|row| row.pid == Some(pid) && row.state == WorkerState::Stuck)
    })
}

/// Who is stuck, and where it waits, is told wherever somebody may look.
fn see_it_named(siege: &mut Siege, row: &WorkerRow, state: RunState) {
    let (worker, pid) = (row.worker, row.pid.expect("it was spawned"));
    let seen = row.seen.clone().expect("it can be seen");
    assert_eq!(seen.state, state, "{seen:?}");
    siege.await_record("the event names it", |what| match what {
        What::Stuck { worker: named, pid: process, seen: told } if *named == worker => {
            assert_eq!((*process, told.as_ref()), (pid, Some(&seen)));
            Some(())
        }
        _ => None,
    });
    for verb in ["workers", "status", "events"] {
        let text = siege.daemon.ok(&[verb]);
        let is_named = |line: &str| line.contains("stuck") && line.contains(&pid.to_string());
        assert!(text.lines().any(is_named), "`{verb}` does not name {pid}:\n{text}");
        assert!(text.contains(&seen.waits_in), "`{verb}` does not say where it waits, in {seen:?}:\n{text}");
    }
}

/// A worker that cannot die: the cancel is answered, another takes its slot.
#[test]
fn a_cancel_is_answered_while_its_worker_cannot_die() {
    let freezer = or_skip!(Freezer::new());
    let mut siege = Siege::begin_with(&[], 0, CONFIG);
    let grove = Grove::new(siege.armoury.folder());
    siege.beside_a_neighbour(|siege| {
        let mut wire = Wire::connect(&siege.daemon.socket());
        let job = plant(&mut wire, &grove.input("plain"), Policy::default());
        let tree = grove.next_grown("plain");
        freezer.freeze(&[tree.worker]);
        cancel(&mut wire, job);
        assert_eq!(outcome_of(&mut wire, job), Outcome::Cancelled);
        assert!(is_alive(tree.worker), "it was to be frozen");
        let row = await_stuck(siege, tree.worker);
        assert_eq!(row.slot, None, "its slot is given away");
        see_it_named(siege, &row, RunState::Uninterruptible);
        eventually("both slots have workers", || {
            (siege.workers().iter().filter(|row| row.slot.is_some()).count() == 2).then_some(())
        });
        assert!(is_alive(tree.worker));
        freezer.thaw();
        tree.await_gone();
    });
    siege.assert_nothing_left();
}

/// It waits for a disk that does not answer, and meets its limit.
#[test]
fn a_limit_is_answered_while_its_worker_waits_for_a_dead_disk() {
    let disk = or_skip!(DeadDisk::mount());
    let mut siege = Siege::begin_with(&[], 0, CONFIG);
    let grove = Grove::new(siege.armoury.folder());
    siege.beside_a_neighbour(|siege| {
        let mut wire = Wire::connect(&siege.daemon.socket());
        let input = format!("{} {}", grove.input("plain"), disk.file().display());
        let job = plant(&mut wire, &input, Policy { timeout_ms: Some(1000), ..Policy::default() });
        let tree = grove.next();
        disk.await_victim();
        let outcome = outcome_of(&mut wire, job);
        assert!(matches!(outcome, Outcome::TimedOut { limit_ms: 1000, .. }), "{outcome:?}");
        let row = await_stuck(siege, tree.worker);
        see_it_named(siege, &row, RunState::Uninterruptible);
        assert!(is_alive(tree.worker));
        disk.leave();
        tree.await_gone();
    });
    siege.assert_nothing_left();
}

/// The worker is dead, but not all of its tree: the job waits for the proof, and is run again when that comes.
#[test]
fn no_retry_while_a_grandchild_cannot_die() {
    let freezer = or_skip!(Freezer::new());
    let mut siege = Siege::begin_with(&[], 0, CONFIG);
    let grove = Grove::new(siege.armoury.folder());
    siege.beside_a_neighbour(|siege| {
        let mut wire = Wire::connect(&siege.daemon.socket());
        for shape in ["plain", "double-forked-setsid"] {
            let job = plant(&mut wire, &grove.input(shape), Policy::default());
            let mut first = grove.next_grown(shape);
            freezer.freeze(&first.members);
            first.order(DIE);
            let row = await_stuck(siege, first.worker);
            assert!(!is_alive(first.worker) && first.lives(), "{shape}");
            see_it_named(siege, &row, RunState::Uninterruptible);
            assert_eq!(
                row.seen.map(|seen| seen.pid),
                first.members.first().copied(),
                "{shape}: who hinders it"
            );
            // A death of somebody else is proven all the same, unlike this one.
            let other =
                plant(&mut wire, &grove.input(shape), Policy { crashes_max: Some(1), ..Policy::default() });
            let mut another = grove.next_grown(shape);
            another.order(DIE);
            assert!(matches!(outcome_of(&mut wire, other), Outcome::Crashed { .. }), "{shape}");
            assert!(first.lives() && siege.attempts_of(job) == 1, "{shape}: retried without proof");
            freezer.thaw();
            let mut second = grove.next_grown(shape);
            assert!(!first.lives(), "{shape}: retried while somebody lives");
            second.order(END);
            assert_eq!(outcome_of(&mut wire, job), Outcome::Done, "{shape}");
            end_worker(siege, second.worker);
        }
    });
    siege.assert_nothing_left();
}

/// What a job that is done left behind goes with its worker.
fn end_worker(siege: &mut Siege, pid: u32) {
    bulkhead_tests::daemon::send_signal(pid, "KILL");
    siege.await_record("it dies", |what| match what {
        What::Died { pid: dead, .. } if *dead == pid => Some(()),
        _ => None,
    });
}

/// As many as there are slots are replaced, no more; when one of them dies, the next is.
#[test]
fn no_more_are_replaced_than_there_are_slots() {
    let freezers: Vec<Freezer> = or_skip!((0..3).map(|_| Freezer::new()).collect::<Result<_, _>>());
    let mut siege = Siege::begin_with(&[], 0, CONFIG);
    let grove = Grove::new(siege.armoury.folder());
    let mut wire = Wire::connect(&siege.daemon.socket());
    for freezer in &freezers {
        let job = plant(&mut wire, &grove.input("plain"), Policy::default());
        let tree = grove.next_grown("plain");
        freezer.freeze(&[tree.worker]);
        cancel(&mut wire, job);
        await_stuck(&mut siege, tree.worker);
    }
    let slots_of = |siege: &mut Siege| {
        let rows = siege.workers();
        rows.iter()
            .filter(|row| row.state == WorkerState::Stuck)
            .map(|row| row.slot.is_some())
            .collect::<Vec<_>>()
    };
    assert_eq!(slots_of(&mut siege), [false, false, true], "the third keeps its slot");
    freezers[0].thaw();
    eventually("the third is replaced", || (slots_of(&mut siege) == [false, false]).then_some(()));
    assert_eq!(wire.run("noop", &["on"; 10]).len(), 10);
    freezers.iter().for_each(Freezer::thaw);
    drop(wire);
    siege.assert_nothing_left();
}

/// A daemon that is stopped does not wait for ever for one that cannot die.
#[test]
fn a_stop_does_not_wait_for_the_undying() {
    let freezer = or_skip!(Freezer::new());
    let mut siege = Siege::begin_with(&[], 0, CONFIG);
    let grove = Grove::new(siege.armoury.folder());
    let mut wire = Wire::connect(&siege.daemon.socket());
    plant(&mut wire, &grove.input("plain"), Policy::default());
    let tree = grove.next_grown("plain");
    freezer.freeze(&[tree.worker]);
    assert!(siege.daemon.end("INT").success());
    freezer.thaw();
    tree.await_gone();
    // The worker itself, which no socket tells of, dies of the kill that it slept through.
    eventually("nothing is left", || siege.daemon.leftovers().is_empty().then_some(()));
}
