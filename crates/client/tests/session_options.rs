//! What a session is told beyond the ends of its jobs, against a daemon made by hand: results that are held, progress, jobs that go
//! on after a cancel, and a daemon that owes an answer for too long.
//!
//! Sessions on real daemons stand in the tests of the workspace.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod fake;
#[path = "fake/sessions.rs"]
mod sessions;

use std::sync::mpsc;
use std::time::{Duration, Instant};

use bulkhead_client::{Error, SessionEvent, SessionOptions, SessionTurn};
use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::ids::{JobId, Tag};
use fake::{Fake, done};
use sessions::{DEADLINE, cancelled, expected, open, read, spec, submit_all, told};

#[test]
fn held_results_are_kept_until_the_caller_has_them() {
    let (came, wait_came) = mpsc::channel();
    let fake = Fake::serve(move |mut peer| {
        let (tag, submit) = peer.submit().unwrap();
        assert!(submit.attached && submit.held && !submit.progress);
        peer.accept(tag, 1, 1);
        peer.reply(tag, Reply::Held { first: 1, ended: vec![done(1, b"one")] });
        let (tag, submit) = peer.submit().unwrap();
        assert_eq!(submit.inputs.len(), 3);
        peer.accept(tag, 2, 3);
        peer.reply(tag, Reply::Held { first: 2, ended: vec![done(3, b"three"), done(2, b"two")] });
        assert_eq!(peer.request().unwrap().request, Request::Received { through: 3 });
        peer.reply(tag, Reply::Held { first: 4, ended: vec![done(4, b"four")] });
        came.send(()).unwrap();
        assert_eq!(peer.request().unwrap().request, Request::Received { through: 4 });
        assert!(peer.request().is_none());
    });
    let options = SessionOptions { held: true, ..SessionOptions::default() };
    let (session, spec) = (open(&fake, options), spec());
    submit_all(&session, &spec, 1..5);
    let mut leader = session.lead();
    let (mut events, mut told_jobs) = (Vec::new(), Vec::new());
    let mut hear = |until: u64| {
        while !events.iter().any(|event| matches!(event, SessionEvent::Held { through } if *through >= until))
        {
            leader.turn(Some(Instant::now() + DEADLINE), None, &mut events).unwrap();
        }
        for event in events.drain(..) {
            match event {
                SessionEvent::Job { token, .. } => told_jobs.push(token),
                SessionEvent::Held { through } => {
                    assert_eq!(through, told_jobs.len() as u64, "ends come first")
                }
                other => panic!("{other:?}"),
            }
        }
    };
    hear(3);
    // One that was not told, and none twice.
    [99, 3, 3, 1].into_iter().for_each(|through| session.received(through));
    wait_came.recv().unwrap();
    hear(4);
    session.received(4);
    assert_eq!(told_jobs, [1, 3, 2, 4]);
    drop(leader);
    drop(session);
    fake.finish();
}

#[test]
fn progress_and_jobs_that_go_on_after_a_cancel_are_told_by_their_tokens() {
    let fake = Fake::serve(|mut peer| {
        let (first, submit) = peer.submit().unwrap();
        assert!(submit.progress && !submit.held);
        peer.accept(first, 7, 1);
        let (second, submit) = peer.submit().unwrap();
        assert_eq!(submit.inputs.len(), 2);
        peer.accept(second, 8, 2);
        peer.reply(second, Reply::Progress { job: JobId(9), done: 3, total: 10 });
        let asked = peer.request().unwrap();
        assert_eq!(asked.request, Request::CancelWaiting { jobs: vec![JobId(7), JobId(8), JobId(9)] });
        peer.reply(first, Reply::Ended(vec![done(7, b"seven")]));
        // Job 7 had begun and has ended meanwhile.
        let (ended, running, refused) = (vec![JobId(8)], vec![JobId(7), JobId(9)], Vec::new());
        peer.reply(asked.tag, Reply::CancelledWaiting { ended, running, refused });
        peer.reply(second, Reply::Ended(vec![cancelled(8)]));
        peer.reply(second, Reply::Ended(vec![done(9, b"nine")]));
        // Progress that comes after the end of its job gives no event.
        peer.reply(second, Reply::Progress { job: JobId(9), done: 9, total: 10 });
        peer.reply(Tag(0), Reply::Notice("the end".to_owned()));
        assert!(peer.request().is_none());
    });
    let options = SessionOptions { progress: true, ..SessionOptions::default() };
    let (session, spec) = (open(&fake, options), spec());
    submit_all(&session, &spec, 1..4);
    let mut leader = session.lead();
    let (mut events, mut said) = (Vec::new(), Vec::new());
    while said.last().is_none_or(|last| last != "notice") {
        leader.turn(Some(Instant::now() + DEADLINE), None, &mut events).unwrap();
        for event in events.drain(..) {
            said.push(match event {
                SessionEvent::Job { token, .. } => format!("{token} ended"),
                SessionEvent::RunsOn { token } => format!("{token} runs on"),
                SessionEvent::Progress { token, job, done, total } => {
                    session.cancel_waiting(&[1, 2, 3]);
                    format!("{token} is job {job}: {done} of {total}")
                }
                SessionEvent::Notice(_) => "notice".to_owned(),
                other => panic!("{other:?}"),
            });
        }
    }
    assert_eq!(said, ["3 is job 9: 3 of 10", "1 ended", "3 runs on", "2 ended", "3 ended", "notice"]);
    drop(leader);
    drop(session);
    fake.finish();
}

#[test]
fn a_daemon_that_owes_an_answer_for_too_long_ends_the_session() {
    let (go, wait) = mpsc::channel::<()>();
    let fake = Fake::serve(move |mut peer| {
        let (tag, submit) = peer.submit().unwrap();
        peer.accept(tag, 1, submit.inputs.len());
        // The job takes longer than that: no answer is owed.
        wait.recv().unwrap();
        peer.reply(tag, Reply::Ended(vec![done(1, b"1")]));
        // Nothing is answered until the client leaves.
        while peer.request().is_some() {}
    });
    let reply_timeout = Duration::from_millis(200);
    let (session, spec) =
        (open(&fake, SessionOptions { reply_timeout, ..SessionOptions::default() }), spec());
    submit_all(&session, &spec, 1..2);
    let mut leader = session.lead();
    let mut events = Vec::new();
    let turn = leader.turn(Some(Instant::now() + 3 * reply_timeout), None, &mut events);
    assert!(matches!(turn, Ok(SessionTurn::TimedOut)) && events.is_empty(), "{turn:?} {events:?}");
    go.send(()).unwrap();
    assert_eq!(read(&mut leader, 1), expected(&[(1, "1")]));
    submit_all(&session, &spec, 2..4);
    let error = leader.turn(Some(Instant::now() + DEADLINE), None, &mut events).unwrap_err();
    assert!(matches!(error, Error::NoReply { waited } if waited == reply_timeout), "{error:?}");
    assert_eq!(told(&mut events), expected(&[(2, "lost"), (3, "lost")]));
    drop(leader);
    drop(session);
    fake.finish();
}
