//! What action.rs promises of each action that concerns workers, as one script for both shells: the supervisor's hands
//! with real workers, and the simulation's with fake ones.
//!
//! A package that has a shell takes this file in by its path. Not in it is what only one of them can be asked: replies,
//! logs and outputs, which the simulation's oracles take only if a client asked for them. The script never looks at a
//! clock.

#![allow(clippy::wildcard_enum_match_arm)] // a script waits for one event of many

use bulkhead_core::action::{Action, Task};
use bulkhead_core::event::{Event, Head, ProcessEnd, Remains, TaskResult};
use bulkhead_proto::death::{Death, KillReason};
use bulkhead_proto::ids::{Fence, FileId, JobId, KindId, PoolId, RegistrationId, ScratchId, Seq, WorkerId};
use bulkhead_proto::job::{OutputMode, Payload};
use bulkhead_proto::worker::message::OutputRoom;
use bulkhead_proto::worker::stage::Stage;

/// Looks at the world until something must have happened.
const PATIENCE: usize = 20_000;

/// Hands and ears around a core that is not there.
pub trait Shell {
    /// Performs one action; what comes of it at once, and whether the daemon is to leave.
    fn perform(&mut self, action: Action) -> (Vec<Event>, bool);
    /// Lets the world go on a little, and hears it.
    fn hear(&mut self) -> Vec<Event>;
    /// A task that ends by itself.
    fn quick(&self) -> (KindId, Payload);
    /// A task that never does, whatever it is told.
    fn endless(&self) -> (KindId, Payload);
}

/// Events that may come of an action at once. Whoever adds an action says here what it promises.
fn answers(action: &Action) -> &'static [&'static str] {
    match action {
        Action::Spawn { .. } => &["WorkerSpawned", "SpawnFailed"],
        Action::Offer { .. } => &["OfferFailed", "Violated"],
        Action::GiveOutput { .. } => &["OutputShort"],
        Action::TakeBack { .. } => &["TookBack", "Violated"],
        Action::Look { .. } => &["Finished", "Violated", "Looked"],
        Action::Examine { .. } => &["Examined"],
        Action::LookUp { .. } => &["LookedUp"],
        Action::DropLog { .. } => &["LogClosed", "LogFreed"],
        Action::DropOutput { .. } => &["OutputClosed", "OutputFreed"],
        Action::RefuseOutput { .. }
        | Action::Reply { .. }
        | Action::Close { .. }
        | Action::Unwant { .. }
        | Action::AskStack { .. }
        | Action::Settle { .. }
        | Action::Kill { .. }
        | Action::Retire { .. }
        | Action::ShowLog { .. }
        | Action::DropFile { .. }
        | Action::Forget { .. }
        | Action::DropScratch { .. }
        | Action::Ready { .. }
        | Action::ReserveJobs { .. }
        | Action::Exit => &[],
    }
}

/// Performs an action that does not end the daemon, and checks that nothing comes of it but what may.
fn act(shell: &mut impl Shell, action: Action) -> Vec<Event> {
    let (told, allowed) = (format!("{action:?}"), answers(&action));
    let (events, leaves) = shell.perform(action);
    for event in &events {
        let name = format!("{event:?}");
        let name = name.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default();
        assert!(allowed.contains(&name), "{event:?} came of {told}");
    }
    assert!(!leaves, "the daemon leaves after {told}");
    events
}

/// Nothing may come of it at once.
fn quietly(shell: &mut impl Shell, action: Action) {
    let told = format!("{action:?}");
    let events = act(shell, action);
    assert!(events.is_empty(), "{events:?} came of {told}");
}

/// Hears until there is such an event.
fn await_event<T>(shell: &mut impl Shell, what: &str, pick: impl Fn(&Event) -> Option<T>) -> T {
    for _ in 0..PATIENCE {
        if let Some(found) = shell.hear().iter().find_map(&pick) {
            return found;
        }
    }
    panic!("it never happened that {what}");
}

fn task(number: u64, (kind, input): (KindId, Payload)) -> Task {
    Task {
        job: JobId(number),
        fence: Fence(1),
        kind,
        memory_bytes: None,
        grace_ms: 0,
        output: OutputMode::Inline,
        room: Some(Box::new(OutputRoom::LARGEST)),
        stage: Stage::Whole,
        files: Vec::new().into(),
        input,
    }
}

/// Spawns a worker: it exists at once.
fn spawn(shell: &mut impl Shell, worker: WorkerId) {
    let events = act(shell, Action::Spawn { worker, pool: PoolId(0) });
    assert!(matches!(events[..], [Event::WorkerSpawned { worker: is, .. }] if is == worker), "{events:?}");
}

fn await_ready(shell: &mut impl Shell, worker: WorkerId) {
    await_event(shell, "a worker is ready", |event| match event {
        Event::WorkerReady { worker: is, .. } if *is == worker => Some(()),
        Event::BootstrapFailed { .. } => panic!("{event:?}"),
        _ => None,
    });
}

/// The proof of a death: how, and what was left.
fn await_death(shell: &mut impl Shell, worker: WorkerId) -> (ProcessEnd, Vec<Remains>) {
    await_event(shell, "a death is proven", |event| match event {
        Event::Died { worker: is, end, remains, .. } if *is == worker => Some((end.clone(), remains.clone())),
        _ => None,
    })
}

/// Takes a shell through every action that concerns workers.
///
/// # Panics
/// If one of them does not do what action.rs promises.
pub fn keep_every_promise(shell: &mut impl Shell) {
    let (first, second, third) = (WorkerId(1), WorkerId(2), WorkerId(3));
    an_offer_fails_before_its_worker_is_ready(shell, first);
    a_task_is_offered_ended_and_settled(shell, first);
    what_is_begun_is_not_won_back(shell, first);
    a_kill_is_told_with_what_was_left(shell, first);
    nothing_comes_of_a_worker_that_is_gone(shell, first);

    spawn(shell, second);
    await_ready(shell, second);
    quietly(shell, Action::Retire { worker: second });
    assert_eq!(await_death(shell, second), (ProcessEnd::Itself(Death::Exited { code: 0 }), Vec::new()));
    spawn(shell, third);
    quietly(shell, Action::Kill { worker: third, why: KillReason::Stop });
    assert_eq!(await_death(shell, third), (ProcessEnd::ByUs, Vec::new()));

    for action in [
        Action::DropFile { file: FileId(1) },
        Action::Forget { worker: first, registration: RegistrationId(1) },
        Action::DropScratch { scratch: ScratchId(1) },
        Action::Ready { status: "a test".to_owned() },
    ] {
        quietly(shell, action);
    }
    let (events, leaves) = shell.perform(Action::Exit);
    assert!(events.is_empty() && leaves, "{events:?}");
}

fn an_offer_fails_before_its_worker_is_ready(shell: &mut impl Shell, worker: WorkerId) {
    spawn(shell, worker);
    let quick = task(1, shell.quick());
    let events = act(shell, Action::Offer { worker, seq: Seq(1), task: quick });
    let [Event::OfferFailed { seq: Seq(1), taken: true, shortage: None, .. }] = events[..] else {
        panic!("{events:?}");
    };
    quietly(shell, Action::Settle { worker, seq: Seq(1) });
    await_ready(shell, worker);
}

fn a_task_is_offered_ended_and_settled(shell: &mut impl Shell, worker: WorkerId) {
    let quick = task(2, shell.quick());
    quietly(shell, Action::Offer { worker, seq: Seq(2), task: quick });
    await_event(shell, "a task ends", |event| match event {
        Event::Finished { seq: Seq(2), report, .. } => {
            assert!(matches!(report.result, TaskResult::Inline(_)), "{report:?}");
            Some(())
        }
        _ => None,
    });
    let events = act(shell, Action::Look { worker });
    assert!(matches!(events[..], [Event::Looked { head: None, .. }]), "{events:?}");
    quietly(shell, Action::Settle { worker, seq: Seq(2) });
}

fn what_is_begun_is_not_won_back(shell: &mut impl Shell, worker: WorkerId) {
    for (seq, what) in [(3, shell.endless()), (4, shell.quick())] {
        quietly(shell, Action::Offer { worker, seq: Seq(seq), task: task(seq, what) });
    }
    let begun = Some(Head { seq: Seq(3), claimed: true });
    let is_begun = |events: &[Event]| matches!(events, [Event::Looked { head, .. }] if *head == begun);
    let mut looks = 0;
    while !is_begun(&act(shell, Action::Look { worker })) {
        looks += 1;
        assert!(looks < PATIENCE, "the task is never begun");
        shell.hear();
    }
    for (seq, expected) in [(4, true), (3, false), (4, false)] {
        let events = act(shell, Action::TakeBack { worker, seq: Seq(seq) });
        let [Event::TookBack { seq: is, won, .. }] = events[..] else { panic!("{events:?}") };
        assert_eq!((is, won), (Seq(seq), expected));
    }
    let events = act(shell, Action::Examine { worker });
    assert!(matches!(events[..], [Event::Examined { seen: Some(_), .. }]), "{events:?}");
    quietly(shell, Action::Settle { worker, seq: Seq(4) });
    quietly(shell, Action::Unwant { worker, seq: Seq(3) });
}

fn a_kill_is_told_with_what_was_left(shell: &mut impl Shell, worker: WorkerId) {
    let why = KillReason::Timeout;
    quietly(shell, Action::Kill { worker, why });
    let left = vec![Remains { seq: Seq(3), claimed: true }];
    assert_eq!(await_death(shell, worker), (ProcessEnd::ByUs, left));
}

fn nothing_comes_of_a_worker_that_is_gone(shell: &mut impl Shell, worker: WorkerId) {
    let (seq, why) = (Seq(5), KillReason::Cancel);
    let quick = task(5, shell.quick());
    for action in [
        Action::Offer { worker, seq, task: quick },
        Action::TakeBack { worker, seq },
        Action::Unwant { worker, seq },
        Action::Look { worker },
        Action::Examine { worker },
        Action::Settle { worker, seq },
        Action::Kill { worker, why },
        Action::Retire { worker },
    ] {
        quietly(shell, action);
    }
}
