//! Inputs in arenas and the memory of a task, and registrations where sessions and requests meet, with real daemons.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use std::sync::Arc;
use std::time::{Duration, Instant};

use bulkhead_client::{
    Arena, JobInput, NewContext, ReceivedOutput, Session, SessionEnd, SessionEvent, SessionOptions,
    SessionTurn, Spec, connect,
};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::job::Policy;
use bulkhead_tests::contexts::{RESIDENT, SHOW, STAY, summed};
use bulkhead_tests::daemon::{DEADLINE, Daemon, Setup, binary, eventually};

const MIB: usize = 1 << 20;

fn start() -> Daemon {
    let config = format!("worker_program = {:?}\n", binary("context-worker").display().to_string());
    Daemon::start_with(&Setup { workers: 1, config, ..Setup::default() })
}

fn open(daemon: &Daemon, options: SessionOptions) -> Session {
    Session::over(connect::connect(&daemon.socket()).unwrap(), options).unwrap()
}

/// Turns until one job is told: its token, and its output or the word for its outcome with its text.
fn next_end(session: &Session) -> (u64, String) {
    let (mut events, until) = (Vec::new(), Instant::now() + DEADLINE);
    loop {
        session.lead().turn(Some(until), None, &mut events).unwrap();
        assert!(Instant::now() < until, "no end is told");
        for event in events.drain(..) {
            if let SessionEvent::Job { token, end } = event {
                return (token, word(end));
            }
        }
    }
}

fn word(end: SessionEnd) -> String {
    match end {
        SessionEnd::Ended(end) => match (end.outcome, end.output) {
            (Outcome::Done, ReceivedOutput::Inline(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
            (Outcome::Failed { message, .. }, _) => format!("failed: {message}"),
            (outcome, _) => outcome.word().to_owned(),
        },
        SessionEnd::Refused(refusal) => format!("refused: {refusal}"),
        other => format!("{other:?}"),
    }
}

/// Runs a job with this input in the arena.
fn run(session: &Session, arena: &Arena, input: &[u8], policy: Policy) -> String {
    let spec = Arc::new(Spec { policy, ..Spec::new("noop") });
    session.submit(1, &spec, arena.block(input).unwrap().into()).unwrap();
    next_end(session).1
}

fn limit(bytes: usize) -> Policy {
    Policy { memory_bytes: Some(bytes as u64), crashes_max: Some(1), ..Policy::default() }
}

#[test]
fn an_input_that_does_not_fit_the_memory_of_its_task_fails_it_and_the_worker_lives() {
    let daemon = start();
    let session = open(&daemon, SessionOptions::default());
    let arena = session.register_arena(128 * MIB).unwrap();
    let workers = || daemon.workers().iter().map(|row| row.worker).collect::<Vec<_>>();
    run(&session, &arena, b"the worker is up", Policy::default());
    let before = workers();
    let input = vec![7; 96 * MIB];
    let failed = run(&session, &arena, &input, limit(64 * MIB));
    assert!(failed.contains("does not fit the memory") && failed.contains("--memory"), "{failed}");
    assert_eq!(run(&session, &arena, b"a short one", limit(64 * MIB)), summed(b"a short one"));
    // Another one may have come up meanwhile.
    let after = workers();
    assert!(before.iter().all(|worker| after.contains(worker)), "no worker had to go: {before:?} {after:?}");
}

/// The pages of a mapping that were read would count as resident memory beside the copy.
#[test]
fn an_input_in_an_arena_takes_its_length_in_memory_once() {
    let daemon = start();
    let session = open(&daemon, SessionOptions::default());
    let arena = session.register_arena(64 * MIB).unwrap();
    let resident = |length: usize| {
        let mut input = RESIDENT.to_vec();
        input.resize(length, 7);
        run(&session, &arena, &input, Policy::default()).parse::<usize>().unwrap()
    };
    let (before, during, after) = (resident(100), resident(48 * MIB), resident(100));
    assert!((48 * MIB..64 * MIB).contains(&(during - before)), "{before} {during}");
    assert!(after < before + 16 * MIB, "{before} {after}");
}

#[test]
fn a_context_of_one_session_is_unknown_to_another() {
    let daemon = start();
    let [one, other] = [(); 2].map(|()| open(&daemon, SessionOptions::default()));
    let context = one.register_context(NewContext::loaded("one", Vec::new())).unwrap();
    let spec = Arc::new(Spec { contexts: vec![context], ..Spec::new("noop") });
    let show = || JobInput::from(SHOW.as_bytes().to_vec());
    other.submit(1, &spec, show()).unwrap();
    let (_, refused) = next_end(&other);
    assert!(refused.contains("register it first"), "{refused}");
    other.drop_context(context);
    one.submit(2, &spec, show()).unwrap();
    let (_, shown) = next_end(&one);
    assert!(shown.starts_with("one:1 "), "another session cannot drop it: {shown}");
}

/// A refusal without a tag of its own kind is that of a drop: the cancel keeps its answer, and nothing is owed in the end.
#[test]
fn a_drop_that_is_refused_beside_a_cancel_is_not_taken_for_its_answer() {
    let daemon = start();
    let reply_timeout = Duration::from_millis(700);
    let session = open(&daemon, SessionOptions { reply_timeout, ..SessionOptions::default() });
    let context = session.register_context(NewContext::loaded("one", Vec::new())).unwrap();
    let (stay, plain) = (Arc::new(Spec::new("noop")), Arc::new(Spec::new("noop")));
    session.submit(1, &stay, JobInput::from(STAY.as_bytes().to_vec())).unwrap();
    let mut events = Vec::new();
    eventually("a worker has begun it", || {
        let soon = Instant::now() + Duration::from_millis(10);
        session.lead().turn(Some(soon), None, &mut events).unwrap();
        daemon.workers().iter().any(|row| row.job.is_some()).then_some(())
    });
    session.drop_context(context);
    session.drop_context(context);
    session.cancel(&[1]);
    session.drop_context(context);
    session.submit(2, &plain, JobInput::from(b"behind them".to_vec())).unwrap();
    assert_eq!(next_end(&session), (1, "cancelled".to_owned()));
    assert_eq!(next_end(&session), (2, summed(b"behind them")));
    let until = Instant::now() + 2 * reply_timeout;
    let turn = session.lead().turn(Some(until), None, &mut events).unwrap();
    assert_eq!(turn, SessionTurn::TimedOut, "no answer is owed: {events:?}");
}
