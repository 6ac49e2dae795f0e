//! Sessions of the client library on real daemons: threads that submit, lead, cancel, and lose their daemon.
//!
//! What a daemon made by hand can show stands in the tests of the client library.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bulkhead_client::{
    Error, JobInput, LeadWait, NotSubmitted, ReceivedOutput, Session, SessionAnswer, SessionEnd,
    SessionEvent, SessionLeader, SessionOptions, SessionQuestion, SessionTurn, Spec, SubmitFault, connect,
};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::client::view::WorkerState;
use bulkhead_proto::job::Policy;
use bulkhead_tests::daemon::{DEADLINE, Daemon, Setup, binary, eventually, send_signal};

const THREADS: u64 = 4;

fn open(daemon: &Daemon, options: SessionOptions) -> Session {
    let client = connect::connect(&daemon.socket()).expect("the daemon is up");
    Session::over(client, options).expect("a new connection")
}

fn kind(name: &str) -> Arc<Spec> {
    Arc::new(Spec::new(name))
}

fn until() -> Option<Instant> {
    Some(Instant::now() + DEADLINE)
}

/// What became of each token: an output, or a word.
type Told = BTreeMap<u64, String>;

fn take(events: &mut Vec<SessionEvent>, told: &mut Told) {
    for event in events.drain(..) {
        let SessionEvent::Job { token, end } = event else { continue };
        let word = match end {
            SessionEnd::Ended(end) => match (end.outcome, end.output) {
                (Outcome::Done, ReceivedOutput::Inline(bytes)) => {
                    String::from_utf8_lossy(&bytes).into_owned()
                }
                (outcome, _) => outcome.word().to_owned(),
            },
            SessionEnd::Refused(refusal) => panic!("{token}: {refusal}"),
            SessionEnd::Withdrawn => "withdrawn".to_owned(),
            SessionEnd::Lost => "lost".to_owned(),
        };
        assert!(told.insert(token, word).is_none(), "token {token} is told once");
    }
}

/// Turns until so many are told.
fn read(leader: &mut SessionLeader<'_>, told: &mut Told, count: usize) {
    let (mut events, until) = (Vec::new(), until());
    while told.len() < count {
        leader.turn(until, None, &mut events).expect("the daemon lives");
        take(&mut events, told);
        assert!(until.is_none_or(|until| Instant::now() < until), "{} of {count} are told", told.len());
    }
}

/// Submits this job; waits for room when the session is full.
fn submit(session: &Session, token: u64, spec: &Arc<Spec>) -> Result<(), NotSubmitted> {
    let mut input = JobInput::from(token.to_string().into_bytes());
    loop {
        match session.submit(token, spec, input) {
            Err(refused) if refused.is_full() => {
                assert!(session.wait_for_room(until()), "there is no room in time");
                input = refused.into_input();
            }
            submitted => return submitted,
        }
    }
}

#[test]
fn four_threads_submit_and_every_result_comes_once() {
    const EACH: u64 = 10_000;
    let daemon = Daemon::start();
    let session = open(&daemon, SessionOptions { jobs_max: 5000, ..SessionOptions::default() });
    let (spec, mut told) = (kind("noop"), Told::new());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (session, spec) = (&session, &spec);
            scope.spawn(move || {
                for token in thread * EACH..(thread + 1) * EACH {
                    submit(session, token, spec).expect("the daemon lives");
                }
            });
        }
        read(&mut session.lead(), &mut told, (THREADS * EACH) as usize);
    });
    assert!(told.iter().all(|(token, output)| *output == token.to_string()), "each has its own result");
    assert_eq!(session.jobs(), 0);
}

/// Each waits for its own result before its next job, and reads by itself when nobody else does.
#[test]
fn threads_that_wait_for_their_own_results_take_turns_to_lead() {
    const EACH: u64 = 500;
    let daemon = Daemon::start();
    let session = open(&daemon, SessionOptions::default());
    let (spec, told, led) = (kind("noop"), Mutex::new(Told::new()), AtomicU64::new(0));
    let is_told = |token: u64| told.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&token);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (session, spec, told, led, is_told) = (&session, &spec, &told, &led, &is_told);
            scope.spawn(move || {
                for token in thread * EACH..(thread + 1) * EACH {
                    submit(session, token, spec).expect("the daemon lives");
                    match session.follow(until(), false, || is_told(token)) {
                        LeadWait::Leads(mut leader) => {
                            led.fetch_or(1 << thread, Ordering::SeqCst);
                            let mut events = Vec::new();
                            while !is_told(token) {
                                leader.turn(until(), None, &mut events).expect("the daemon lives");
                                take(&mut events, &mut told.lock().unwrap_or_else(PoisonError::into_inner));
                            }
                        }
                        LeadWait::Done => {}
                        LeadWait::TimedOut => panic!("thread {thread} waits for ever"),
                    }
                }
            });
        }
    });
    let told = told.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(told.len() as u64, THREADS * EACH);
    assert!(told.iter().all(|(token, output)| *output == token.to_string()));
    assert_ne!(led.load(Ordering::SeqCst), 0);
}

#[test]
fn a_cancel_ends_what_runs_and_one_of_what_waits_leaves_it() {
    let daemon = Daemon::start_with(&Setup { workers: 1, ..Setup::default() });
    let session = open(&daemon, SessionOptions::default());
    let mut told = Told::new();
    let sleep = kind("sleep");
    let sleeps = |token| session.submit(token, &sleep, JobInput::from(b"600000".to_vec())).expect("room");
    sleeps(1);
    daemon.await_worker(WorkerState::Busy);
    let mut leader = session.lead();
    (2..5).for_each(sleeps);
    // They are queued in the daemon once a turn has sent them.
    eventually("three jobs wait in the daemon", || {
        leader
            .turn(Some(Instant::now() + Duration::from_millis(1)), None, &mut Vec::new())
            .expect("it lives");
        daemon.ok(&["status", "--json"]).contains("\"queued\":3").then_some(())
    });
    session.cancel_waiting(&[1, 2, 3, 4]);
    read(&mut leader, &mut told, 3);
    assert_eq!(told.keys().copied().collect::<Vec<_>>(), [2, 3, 4]);
    assert!(told.values().all(|word| word == "cancelled"), "{told:?}");
    assert_eq!(daemon.workers().iter().filter(|row| row.state == WorkerState::Busy).count(), 1);
    session.cancel(&[1]);
    read(&mut leader, &mut told, 4);
    assert_eq!(told[&1], "cancelled");
}

/// The daemon is killed while four threads submit. Each job has one event, and each thread learns of the end.
#[test]
fn a_daemon_that_is_killed_loses_every_job_once() {
    let mut daemon = Daemon::start();
    let session = open(&daemon, SessionOptions { jobs_max: 3000, ..SessionOptions::default() });
    let (spec, submitted) = (kind("noop"), AtomicU64::new(0));
    let mut told = Told::new();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (session, spec, submitted) = (&session, &spec, &submitted);
            scope.spawn(move || {
                for count in 0.. {
                    if submit(session, count * THREADS + thread, spec).is_err() {
                        break;
                    }
                    submitted.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let (mut leader, mut events) = (session.lead(), Vec::new());
        read(&mut leader, &mut told, 5000);
        daemon.end("KILL");
        let error = loop {
            let turn = leader.turn(until(), None, &mut events);
            take(&mut events, &mut told);
            if let Err(error) = turn {
                break error;
            }
        };
        assert!(matches!(error, Error::Closed { .. }), "{error:?}");
    });
    assert_eq!(told.len() as u64, submitted.load(Ordering::SeqCst), "each is told");
    let lost = told.values().filter(|word| *word == "lost").count();
    let done = told.iter().filter(|(token, word)| **word == token.to_string()).count();
    assert_eq!(lost + done, told.len());
    assert_eq!(session.jobs(), 0);
}

/// Turns until this question is answered.
fn answer_of(session: &Session, leader: &mut SessionLeader<'_>, about: SessionQuestion) -> SessionAnswer {
    session.ask(7, about).expect("the daemon lives");
    let (mut events, until) = (Vec::new(), until());
    loop {
        leader.turn(until, None, &mut events).expect("the daemon lives");
        let event = events.pop();
        assert!(events.is_empty(), "{events:?}");
        match event {
            Some(SessionEvent::Answer { question: 7, answer }) => return answer,
            Some(other) => panic!("{other:?}"),
            None => {}
        }
        assert!(until.is_none_or(|until| Instant::now() < until), "{about:?} is not answered");
    }
}

#[test]
fn a_session_asks_for_what_the_daemon_knows_of_its_jobs() {
    let daemon = Daemon::start_with(&Setup { workers: 1, chaos: true, ..Setup::default() });
    let session = open(&daemon, SessionOptions::default());
    let crash =
        Arc::new(Spec { policy: Policy { crashes_max: Some(1), ..Policy::default() }, ..Spec::new("chaos") });
    session.submit(1, &crash, JobInput::from(b"abort".to_vec())).expect("it has room");
    assert!(session.is_open(1));
    let (mut leader, mut events, mut job) = (session.lead(), Vec::new(), None);
    while job.is_none() {
        leader.turn(until(), None, &mut events).expect("the daemon lives");
        job = events.drain(..).find_map(|event| match event {
            SessionEvent::Job { token: 1, end: SessionEnd::Ended(end) } => Some(end.job),
            _ => None,
        });
    }
    let job = job.expect("it has crashed");
    assert!(!session.is_open(1) && session.job_of(1).is_none());
    match answer_of(&session, &mut leader, SessionQuestion::Job(job)) {
        SessionAnswer::Job(detail) => assert_eq!(detail.deaths.len(), 1, "its death is kept"),
        other => panic!("{other:?}"),
    }
    match answer_of(&session, &mut leader, SessionQuestion::Workers) {
        SessionAnswer::Workers(rows) => assert!(!rows.is_empty()),
        other => panic!("{other:?}"),
    }
    session.forget(&[job]);
    match answer_of(&session, &mut leader, SessionQuestion::Job(job)) {
        SessionAnswer::Refused(Refusal::Gone { job: gone, .. }) => assert_eq!(gone, job),
        other => panic!("{other:?}"),
    }
    match answer_of(&session, &mut leader, SessionQuestion::Status) {
        SessionAnswer::Status(status) => assert_eq!(status.quarantined, 0),
        other => panic!("{other:?}"),
    }
    session.ask(8, SessionQuestion::Status).expect("the daemon lives");
    session.close();
    let mut events = Vec::new();
    while leader.turn(until(), None, &mut events).is_ok() {}
    let lost = events.iter().filter(|event| {
        matches!(
            event,
            SessionEvent::Answer { question: 8, answer: SessionAnswer::Lost | SessionAnswer::Status(_) }
        )
    });
    assert_eq!(lost.count(), 1, "each question has one answer: {events:?}");
    assert!(matches!(session.ask(9, SessionQuestion::Status), Err(Error::Closed { .. })));
}

#[test]
fn jobs_are_submitted_all_or_none() {
    let daemon = Daemon::start();
    let session = open(&daemon, SessionOptions { jobs_max: 100, ..SessionOptions::default() });
    let (spec, mut told) = (kind("noop"), Told::new());
    let jobs = |tokens: std::ops::Range<u64>| -> Vec<(u64, JobInput)> {
        tokens.map(|token| (token, JobInput::from(token.to_string().into_bytes()))).collect()
    };
    session.submit_all(&spec, jobs(0..60)).expect("it has room");
    let mut refused = session.submit_all(&spec, jobs(60..101)).expect_err("one too many");
    assert!(!session.is_open(60) && session.is_open(0), "none of the second");
    assert!(refused.is_full() && refused.jobs.len() == 41, "all inputs are back: {refused:?}");
    let twice = session.submit_all(&spec, vec![(70, JobInput::default()), (0, JobInput::default())]);
    assert_eq!(twice.expect_err("0 is under way").why, SubmitFault::TokenInUse { token: 0 });
    refused.jobs.pop();
    session.submit_all(&spec, refused.jobs).expect("it has room");
    read(&mut session.lead(), &mut told, 100);
    assert!(told.iter().all(|(token, output)| *output == token.to_string()));
}

/// A program that handles signals by itself looks for them when its turn says so.
#[test]
fn a_leader_that_stops_for_signals_stops_for_them() {
    let daemon = Daemon::start();
    let session = open(&daemon, SessionOptions::default());
    let mut leader = session.lead();
    leader.stop_for_signals();
    let mut events = Vec::new();
    let soon = Some(Instant::now() + Duration::from_millis(20));
    assert_eq!(leader.turn(soon, None, &mut events).expect("the daemon lives"), SessionTurn::TimedOut);
    assert!(events.is_empty());
}

/// A stopped daemon reads nothing: submits go on until a bound, nobody hangs, and nothing is lost when it goes on.
#[test]
fn a_stopped_daemon_blocks_no_thread() {
    let daemon = Daemon::start();
    let session = open(&daemon, SessionOptions { bytes_max: 2 << 20, ..SessionOptions::default() });
    let spec = kind("noop");
    send_signal(daemon.pid(), "STOP");
    let counts: Vec<u64> = std::thread::scope(|scope| {
        let fill = |thread: u64| {
            let (session, spec) = (&session, &spec);
            move || {
                let mut count = 0;
                loop {
                    let input = JobInput::from(vec![b'x'; 4096]);
                    match session.submit(count * THREADS + thread, spec, input) {
                        Ok(()) => count += 1,
                        Err(refused) => {
                            assert_eq!(refused.why, SubmitFault::Full { limit: 2 << 20, of_bytes: true });
                            return count;
                        }
                    }
                }
            }
        };
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(fill(thread))).collect();
        threads.into_iter().map(|thread| thread.join().expect("it does not hang")).collect()
    });
    let all: u64 = counts.iter().sum();
    assert_eq!(all, (2 << 20) / 4096);
    let (mut leader, mut told) = (session.lead(), Told::new());
    let mut events = Vec::new();
    leader.turn(Some(Instant::now() + Duration::from_millis(10)), None, &mut events).expect("it is stopped");
    assert!(events.is_empty());
    send_signal(daemon.pid(), "CONT");
    read(&mut leader, &mut told, all as usize);
    assert!(told.values().all(|output| output.len() == 4096));
}

#[test]
fn the_example_computes_with_four_threads() {
    let daemon = Daemon::start();
    let mut command = Command::new(binary("examples/session"));
    let output = command.arg("300").env("BULKHEAD_SOCKET", daemon.socket()).output().expect("it was built");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said, "300 of 300 done, the longest has 615 digits\n", "{output:?}");
    assert!(output.status.success());
}
