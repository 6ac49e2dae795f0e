//! The jobs of sessions against a daemon made by hand: who sends, what gathers, and what a busy, dead, silent or lying daemon
//! does to them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod fake;
#[path = "fake/sessions.rs"]
mod sessions;

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bulkhead_client::{
    Error, JobInput, ProtocolError, SessionEvent, SessionOptions, SessionTurn, Spec, SubmitFault,
};
use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::refusal::{BoundPart, Refusal, UnknownJobs};
use bulkhead_proto::ids::JobId;
use fake::{Fake, Peer, done};
use sessions::{DEADLINE, cancelled, echo, expected, input, open, read, spec, submit_all, told};

#[test]
fn the_first_job_is_sent_by_its_thread_and_the_others_gather() {
    let (came, wait_came) = mpsc::channel();
    let (queued, wait_queued) = mpsc::channel();
    let fake = Fake::serve(move |mut peer| {
        assert_eq!(echo(&mut peer, 1), Some(1));
        came.send(()).unwrap();
        wait_queued.recv().unwrap();
        assert!(peer.is_quiet(), "nobody leads, so nothing more is sent");
        came.send(()).unwrap();
        assert_eq!(echo(&mut peer, 2), Some(99), "all that has gathered is one request");
        assert!(peer.request().is_none());
    });
    let (session, spec) = (open(&fake, SessionOptions::default()), spec());
    submit_all(&session, &spec, 0..1);
    wait_came.recv().unwrap();
    submit_all(&session, &spec, 1..100);
    queued.send(()).unwrap();
    wait_came.recv().unwrap();
    let mut leader = session.lead();
    let ends = read(&mut leader, 100);
    assert!(ends.iter().all(|(token, word)| *word == token.to_string()), "{ends:?}");
    assert_eq!(session.jobs(), 0);
    drop(leader);
    drop(session);
    fake.finish();
}

#[test]
fn jobs_of_different_specs_do_not_share_a_request() {
    let fake = Fake::serve(|mut peer| {
        let mut kinds = Vec::new();
        for first in 1..=4 {
            let (tag, submit) = peer.submit().unwrap();
            peer.accept(tag, first, 1);
            peer.reply(tag, Reply::Ended(vec![done(first, submit.kind.as_bytes())]));
            kinds.push(submit.kind);
        }
        assert_eq!(kinds, ["noop", "one", "two", "one"]);
    });
    let session = open(&fake, SessionOptions::default());
    let (one, two) = (Arc::new(Spec::new("one")), Arc::new(Spec::new("two")));
    for (token, spec) in [(1, &spec()), (2, &one), (3, &two), (4, &one)] {
        session.submit(token, spec, input(token)).unwrap();
    }
    let ends = read(&mut session.lead(), 4);
    assert_eq!(ends, expected(&[(1, "noop"), (2, "one"), (3, "two"), (4, "one")]));
    fake.finish();
}

#[test]
fn a_busy_daemon_gets_the_rest_again_or_the_caller_its_refusal() {
    for wait_when_busy in [true, false] {
        let fake = Fake::serve(move |mut peer| {
            assert_eq!(echo(&mut peer, 1), Some(1));
            let (tag, submit) = peer.submit().unwrap();
            assert_eq!(submit.inputs.len(), 4);
            let refused = Refusal::Busy {
                what: "queued jobs".to_owned(),
                limit: 2,
                part: BoundPart::All,
                key: None,
                retry_after_ms: 1,
            };
            peer.reply(tag, Reply::Accepted { first: JobId(2), count: 1, refused: Some(refused) });
            peer.reply(tag, Reply::Ended(vec![done(2, submit.inputs[0].as_bytes())]));
            assert_eq!(echo(&mut peer, 3), wait_when_busy.then_some(3));
        });
        let options = SessionOptions { wait_when_busy, ..SessionOptions::default() };
        let (session, spec) = (open(&fake, options), spec());
        submit_all(&session, &spec, 0..5);
        let ends = read(&mut session.lead(), 5);
        let rest = |word| if wait_when_busy { word } else { "refused" };
        assert_eq!(ends, expected(&[(0, "0"), (1, "1"), (2, rest("2")), (3, rest("3")), (4, rest("4"))]));
        drop(session);
        fake.finish();
    }
}

#[test]
fn a_cancel_finds_a_job_wherever_it_is() {
    let (go, wait) = mpsc::channel();
    let (came, wait_came) = mpsc::channel();
    let fake = Fake::serve(move |mut peer| {
        let (first, _) = peer.submit().unwrap();
        came.send(()).unwrap();
        wait.recv().unwrap();
        let (second, submit) = peer.submit().unwrap();
        assert_eq!(submit.inputs.len(), 2, "what was withdrawn is not sent");
        peer.accept(first, 1, 1);
        let asked = peer.request().unwrap();
        assert_eq!(asked.request, Request::Cancel { jobs: vec![JobId(1)] }, "as soon as it is accepted");
        peer.accept(second, 2, 2);
        peer.reply(asked.tag, Reply::Changed { count: 1, refused: Vec::new() });
        peer.reply(first, Reply::Ended(vec![cancelled(1)]));
        let asked = peer.request().unwrap();
        assert_eq!(asked.request, Request::CancelWaiting { jobs: vec![JobId(2), JobId(3)] });
        let (ended, running, refused) = (vec![JobId(3)], vec![JobId(2)], Vec::new());
        peer.reply(asked.tag, Reply::CancelledWaiting { ended, running, refused });
        peer.reply(second, Reply::Ended(vec![cancelled(3)]));
        let asked = peer.request().unwrap();
        assert_eq!(asked.request, Request::Cancel { jobs: vec![JobId(2)] }, "the one that ran on");
        peer.reply(asked.tag, Reply::Changed { count: 0, refused: Vec::new() });
        peer.reply(second, Reply::Ended(vec![done(2, b"done before")]));
        assert!(peer.request().is_none());
    });
    let (session, spec) = (open(&fake, SessionOptions::default()), spec());
    submit_all(&session, &spec, 1..2);
    wait_came.recv().unwrap();
    // Queued behind the first, because it is under way. Nobody leads yet: two of them are sent by the cancel.
    submit_all(&session, &spec, 2..5);
    session.cancel(&[1, 3, 99]);
    go.send(()).unwrap();
    let mut leader = session.lead();
    let mut ends = read(&mut leader, 2);
    session.cancel_waiting(&[2, 4]);
    session.cancel_waiting(&[2, 4]);
    ends.extend(read(&mut leader, 1));
    session.cancel(&[2]);
    session.cancel(&[2]);
    ends.extend(read(&mut leader, 1));
    assert_eq!(ends, expected(&[(1, "cancelled"), (2, "done before"), (3, "withdrawn"), (4, "cancelled")]));
    drop(leader);
    drop(session);
    fake.finish();
}

#[test]
fn the_end_of_the_connection_loses_each_job_once() {
    let fake = Fake::serve(|mut peer| {
        assert_eq!(echo(&mut peer, 1), Some(1));
        let (tag, submit) = peer.submit().unwrap();
        peer.accept(tag, 2, submit.inputs.len());
        peer.reply(tag, Reply::Ended(vec![done(2, b"the last")]));
    });
    let (session, spec) = (open(&fake, SessionOptions::default()), spec());
    submit_all(&session, &spec, 0..9000);
    let (mut leader, mut events) = (session.lead(), Vec::new());
    let error = loop {
        match leader.turn(Some(Instant::now() + DEADLINE), None, &mut events) {
            Ok(turn) => assert_eq!(turn, SessionTurn::Heard),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Closed { .. }), "{error:?}");
    let ends = told(&mut events);
    assert_eq!((ends.len(), session.jobs()), (9000, 0));
    assert_eq!(ends.values().filter(|word| *word == "lost").count(), 8998);
    assert_eq!(session.submit(1, &spec, input(1)).unwrap_err().why, SubmitFault::Closed);
    // Neither has any effect, nor an error.
    session.forget(&[JobId(1)]);
    session.cancel(&[1]);
    assert!(matches!(leader.turn(None, None, &mut events), Err(Error::Closed { .. })));
    assert!(session.wait_for_room(None), "who waits for room learns that it is closed");
    drop(leader);
    fake.finish();
}

#[test]
fn a_goodbye_is_told_and_jobs_that_were_forgotten_have_their_event() {
    let fake = Fake::serve(|mut peer| {
        let (tag, _) = peer.submit().unwrap();
        peer.accept(tag, 1, 1);
        peer.reply(
            tag,
            Reply::Unknown(UnknownJobs { jobs: vec![JobId(1)], last: JobId(1), ..UnknownJobs::default() }),
        );
        let (tag, _) = peer.submit().unwrap();
        peer.accept(tag, 2, 1);
        peer.reply(bulkhead_proto::ids::Tag(0), Reply::Notice("no worker".to_owned()));
        peer.reply(bulkhead_proto::ids::Tag(0), Reply::Goodbye(Refusal::Draining));
    });
    let (session, spec) = (open(&fake, SessionOptions::default()), spec());
    submit_all(&session, &spec, 1..3);
    let (mut leader, mut events) = (session.lead(), Vec::new());
    let error = loop {
        if let Err(error) = leader.turn(Some(Instant::now() + DEADLINE), None, &mut events) {
            break error;
        }
    };
    assert!(matches!(error, Error::Goodbye(Refusal::Draining)), "{error:?}");
    assert!(events.iter().any(|event| matches!(event, SessionEvent::Notice(text) if text == "no worker")));
    assert_eq!(told(&mut events), expected(&[(1, "refused"), (2, "lost")]));
    drop(leader);
    fake.finish();
}

#[test]
fn replies_that_break_the_protocol_end_the_session() {
    type Lie = fn(&mut Peer);
    let lies: [(Lie, &str); 5] = [
        (
            |peer| {
                let (tag, _) = peer.submit().unwrap();
                peer.accept(tag, 1, 2);
            },
            "Count",
        ),
        (
            |peer| {
                let (tag, _) = peer.submit().unwrap();
                peer.reply(tag, Reply::Ended(vec![done(1, b"early")]));
            },
            "Reply",
        ),
        (
            |peer| {
                let (tag, _) = peer.submit().unwrap();
                peer.accept(tag, 1, 1);
                peer.reply(tag, Reply::Ended(vec![done(7, b"another")]));
            },
            "Job",
        ),
        (
            |peer| {
                drop(peer.submit());
                peer.accept(bulkhead_proto::ids::Tag(77), 1, 1);
            },
            "Tag",
        ),
        (
            |peer| {
                let (tag, _) = peer.submit().unwrap();
                peer.reply(tag, Reply::Kinds(Vec::new()));
            },
            "Reply",
        ),
    ];
    for (lie, name) in lies {
        let fake = Fake::serve(move |mut peer| {
            lie(&mut peer);
            assert!(peer.request().is_none());
        });
        let (session, spec) = (open(&fake, SessionOptions::default()), spec());
        submit_all(&session, &spec, 5..6);
        let (mut leader, mut events) = (session.lead(), Vec::new());
        let error = leader.turn(Some(Instant::now() + DEADLINE), None, &mut events).unwrap_err();
        let Error::Protocol(fault) = &error else { panic!("{name}: {error:?}") };
        assert!(format!("{fault:?}").starts_with(name), "{name}: {fault:?}");
        assert!(!matches!(fault, ProtocolError::Frame(_)));
        assert_eq!(told(&mut events), expected(&[(5, "lost")]));
        drop(leader);
        drop(session);
        fake.finish();
    }
}

/// Inputs of 4 KiB, which fill the socket.
#[test]
fn a_daemon_that_does_not_read_blocks_nobody_and_takes_bounded_memory() {
    let (go, wait) = mpsc::channel();
    let fake = Fake::serve(move |mut peer| {
        wait.recv().unwrap();
        let mut first = 1;
        while let Some(count) = echo(&mut peer, first) {
            first += count;
        }
    });
    let options = SessionOptions { jobs_max: 2000, bytes_max: 4 << 20, ..SessionOptions::default() };
    let (session, spec) = (open(&fake, options), spec());
    let long = || JobInput::from(vec![b'x'; 4096]);
    let mut count = 0;
    let full = loop {
        match session.submit(count, &spec, long()) {
            Ok(()) => count += 1,
            Err(full) => break full,
        }
    };
    assert_eq!((full.why, count), (SubmitFault::Full { limit: 4 << 20, of_bytes: true }, 1024));
    assert!(full.is_full() && full.into_input().bytes.len() == 4096);
    let (mut leader, mut events) = (session.lead(), Vec::new());
    // The leader sends what the socket takes, and waits no longer than it is asked to.
    let turn = leader.turn(Some(Instant::now() + Duration::from_millis(20)), None, &mut events).unwrap();
    assert_eq!((turn, events.len()), (SessionTurn::TimedOut, 0));
    assert!(!session.wait_for_room(Some(Instant::now())));
    session.cancel(&[count - 1]);
    go.send(()).unwrap();
    let ends = read(&mut leader, 1024);
    assert_eq!(ends.values().filter(|word| word.starts_with("xx")).count(), 1023);
    assert_eq!(ends[&(count - 1)], "withdrawn");
    assert!(session.wait_for_room(Some(Instant::now())));
    drop(leader);
    drop(session);
    fake.finish();
}

#[test]
fn jobs_are_bounded_and_tokens_are_unique() {
    let fake = Fake::serve(|mut peer| while peer.request().is_some() {});
    let options = SessionOptions { jobs_max: 3, ..SessionOptions::default() };
    let (session, spec) = (open(&fake, options), spec());
    submit_all(&session, &spec, 0..2);
    assert_eq!(session.submit(1, &spec, input(1)).unwrap_err().why, SubmitFault::TokenInUse { token: 1 });
    let long = JobInput::from(vec![0; 5000]);
    assert_eq!(session.submit(2, &spec, long).unwrap_err().why, SubmitFault::TooLong { bytes: 5000 });
    submit_all(&session, &spec, 2..3);
    let full = session.submit(3, &spec, input(3)).unwrap_err();
    assert!(full.to_string().contains("3 jobs are under way"), "{full}");
    drop(session);
    fake.finish();
}

#[test]
fn what_cannot_be_submitted_together_comes_back_and_leaves_nothing() {
    let fake = Fake::serve(|mut peer| {
        let mut first = 1;
        while let Some(count) = echo(&mut peer, first) {
            first += count;
        }
    });
    let options = SessionOptions { jobs_max: 4, ..SessionOptions::default() };
    let (session, spec) = (open(&fake, options), spec());
    let jobs = |tokens: &[u64]| tokens.iter().map(|token| (*token, input(*token))).collect::<Vec<_>>();
    let twice = session.submit_all(&spec, jobs(&[1, 2, 1])).unwrap_err();
    assert_eq!(twice.why, SubmitFault::TokenInUse { token: 1 });
    let full = session.submit_all(&spec, jobs(&[1, 2, 3, 4, 5])).unwrap_err();
    assert_eq!(full.why, SubmitFault::Full { limit: 4, of_bytes: false });
    assert_eq!(session.jobs(), 0);
    for (refused, tokens) in [(&twice, &[1, 2, 1][..]), (&full, &[1, 2, 3, 4, 5])] {
        let back: Vec<_> = refused.jobs.iter().map(|(token, input)| (*token, input.bytes.clone())).collect();
        let sent: Vec<_> = jobs(tokens).into_iter().map(|(token, input)| (token, input.bytes)).collect();
        assert_eq!(back, sent);
    }
    let mut again = full.jobs;
    again.pop();
    session.submit_all(&spec, again).unwrap();
    assert_eq!(read(&mut session.lead(), 4).len(), 4);
    drop(session);
    fake.finish();
}
