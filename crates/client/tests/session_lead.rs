//! The lead of a session passes from thread to thread: to a follower, from the background and back, after a panic, a wake or a
//! signal.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod fake;
#[path = "fake/sessions.rs"]
mod sessions;

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bulkhead_client::{Interrupts, LeadWait, SessionOptions, SessionTurn};
use bulkhead_proto::client::message::Reply;
use bulkhead_proto::client::refusal::{BoundPart, Refusal};
use bulkhead_proto::ids::JobId;
use fake::Fake;
use sessions::{DEADLINE, echo, expected, input, open, read, spec, submit_all, told};

/// Four threads wait for the result of each of their jobs; the thread that leads reads the results of the others too.
#[test]
fn a_leader_brings_the_results_of_followers_and_hands_the_lead_over() {
    const EACH: u64 = 200;
    let fake = Fake::serve(|mut peer| {
        let mut first = 1;
        while let Some(count) = echo(&mut peer, first) {
            first += count;
        }
    });
    let (session, spec) = (open(&fake, SessionOptions::default()), spec());
    let ended: Vec<AtomicBool> = (0..4 * EACH).map(|_| AtomicBool::new(false)).collect();
    let led = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (session, spec, ended, led) = (&session, &spec, &ended, &led);
            scope.spawn(move || {
                for token in thread * EACH..(thread + 1) * EACH {
                    session.submit(token, spec, input(token)).unwrap();
                    let is_done = || ended[token as usize].load(Ordering::SeqCst);
                    let until = Some(Instant::now() + DEADLINE);
                    let LeadWait::Leads(mut leader) = session.follow(until, false, is_done) else {
                        assert!(is_done(), "it waited too long");
                        continue;
                    };
                    led.fetch_add(1, Ordering::SeqCst);
                    let mut events = Vec::new();
                    while !is_done() {
                        let turn = leader.turn(until, None, &mut events).unwrap();
                        assert_eq!(turn, SessionTurn::Heard);
                        for token in told(&mut events).into_keys() {
                            assert!(!ended[token as usize].swap(true, Ordering::SeqCst), "once");
                        }
                    }
                }
            });
        }
    });
    assert!(ended.iter().all(|ended| ended.load(Ordering::SeqCst)));
    assert!(led.load(Ordering::SeqCst) > 0);
    assert_eq!(session.jobs(), 0);
    drop(session);
    fake.finish();
}

/// The leader goes on to lead, so nothing but its next turn tells the follower.
#[test]
fn a_follower_goes_on_while_another_leads() {
    let fake = Fake::serve(|mut peer| while echo(&mut peer, 1).is_some() {});
    let (session, spec) = (open(&fake, SessionOptions::default()), spec());
    let (is_told, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    let mut leader = session.lead();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            session.submit(7, &spec, input(7)).unwrap();
            let until = Instant::now() + DEADLINE;
            let waited = session.follow(Some(until), false, || is_told.load(Ordering::SeqCst));
            is_over.store(true, Ordering::SeqCst);
            session.waker().wake();
            assert!(matches!(waited, LeadWait::Done), "{waited:?}");
            assert!(Instant::now() < until, "the leader tells it, and not the clock");
        });
        let mut events = Vec::new();
        while !is_over.load(Ordering::SeqCst) {
            leader.turn(Some(Instant::now() + 2 * DEADLINE), None, &mut events).unwrap();
            if told(&mut events).contains_key(&7) {
                is_told.store(true, Ordering::SeqCst);
            }
        }
    });
    drop(leader);
    drop(session);
    fake.finish();
}

#[test]
fn a_leader_in_the_background_steps_aside_and_comes_back() {
    let fake = Fake::serve(|mut peer| while peer.request().is_some() {});
    let session = open(&fake, SessionOptions::default());
    let (leads, wait_leads) = mpsc::channel();
    std::thread::scope(|scope| {
        let (session, background) = (&session, leads.clone());
        scope.spawn(move || {
            for round in 0..3 {
                let LeadWait::Leads(mut leader) = session.follow(None, true, || false) else { panic!() };
                background.send("background").unwrap();
                let turn = leader.turn(Some(Instant::now() + DEADLINE), None, &mut Vec::new()).unwrap();
                let expected = if round < 2 { SessionTurn::Wanted } else { SessionTurn::Woken };
                assert_eq!(turn, expected);
            }
        });
        for _ in 0..2 {
            assert_eq!(wait_leads.recv().unwrap(), "background");
            let mut leader = session.lead();
            let turn = leader.turn(Some(Instant::now()), None, &mut Vec::new()).unwrap();
            assert_eq!(turn, SessionTurn::TimedOut, "one that does not step aside is not disturbed");
        }
        assert_eq!(wait_leads.recv().unwrap(), "background");
        session.waker().wake();
    });
    drop(session);
    fake.finish();
}

#[test]
fn a_leader_that_panics_hands_over() {
    let fake = Fake::serve(|mut peer| while echo(&mut peer, 1).is_some() {});
    let (session, spec) = (open(&fake, SessionOptions::default()), spec());
    std::thread::scope(|scope| {
        let session = &session;
        let panics = scope.spawn(move || {
            let _leader = session.lead();
            panic!("on purpose");
        });
        panics.join().unwrap_err();
    });
    submit_all(&session, &spec, 8..9);
    assert_eq!(read(&mut session.lead(), 1), expected(&[(8, "8")]));
    drop(session);
    fake.finish();
}

#[test]
fn wakes_and_signals_end_a_turn_and_the_session_goes_on() {
    let fake = Fake::serve(|mut peer| while echo(&mut peer, 1).is_some() {});
    let (session, spec) = (open(&fake, SessionOptions::default()), spec());
    let (mut leader, mut events) = (session.lead(), Vec::new());
    let until = || Some(Instant::now() + DEADLINE);
    let waker = session.waker();
    waker.wake();
    waker.clone().wake();
    assert!(bulkhead_sys::poll::wait_readable(waker.as_fd(), Duration::ZERO).unwrap());
    assert_eq!(leader.turn(until(), None, &mut events).unwrap(), SessionTurn::Woken);
    let now = Some(Instant::now());
    assert_eq!(leader.turn(now, None, &mut events).unwrap(), SessionTurn::TimedOut, "twice is once");
    let mut interrupts = Interrupts::new().unwrap();
    let pid = std::process::id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let turn = leader.turn(until(), Some(&mut interrupts), &mut events).unwrap();
    assert_eq!(turn, SessionTurn::Interrupted);
    drop(leader);
    submit_all(&session, &spec, 8..9);
    assert_eq!(read(&mut session.lead(), 1), expected(&[(8, "8")]));
    drop(session);
    fake.finish();
}

/// The daemon is busy for a while, and the job that it refused was withdrawn: nothing is under way, and nothing may be sent.
#[test]
fn a_job_that_may_not_be_sent_yet_wakes_the_leader() {
    let fake = Fake::serve(|mut peer| {
        let (tag, _) = peer.submit().unwrap();
        let (what, retry_after_ms) = ("queued jobs".to_owned(), 300);
        let refused = Refusal::Busy { what, limit: 1, part: BoundPart::All, key: None, retry_after_ms };
        peer.reply(tag, Reply::Accepted { first: JobId(0), count: 0, refused: Some(refused) });
        while echo(&mut peer, 1).is_some() {}
    });
    let (session, spec) = (open(&fake, SessionOptions::default()), spec());
    let bell = session.waker();
    let is_rung = || bulkhead_sys::poll::wait_readable(bell.as_fd(), Duration::ZERO).unwrap();
    submit_all(&session, &spec, 1..2);
    assert!(!is_rung(), "it was sent by its thread");
    let (mut leader, mut events) = (session.lead(), Vec::new());
    // The answer comes, and the job is queued again: only a cancel in the same state withdraws it.
    while session.jobs() > 0 && events.is_empty() {
        let soon = Some(Instant::now() + Duration::from_millis(1));
        leader.turn(soon, None, &mut events).unwrap();
        session.cancel(&[1]);
    }
    assert_eq!(told(&mut events), expected(&[(1, "withdrawn")]));
    let now = Some(Instant::now());
    leader.turn(now, None, &mut events).unwrap();
    assert!(!is_rung(), "the leader has heard it");
    submit_all(&session, &spec, 2..3);
    assert!(is_rung(), "the leader may wait without an end");
    assert_eq!(read(&mut leader, 1), expected(&[(2, "2")]));
    drop(leader);
    drop(session);
    fake.finish();
}
