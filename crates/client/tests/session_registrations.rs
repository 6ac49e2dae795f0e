//! What a session knows of its registrations, tested against a daemon that the test plays: an arena is
//! taken only once the daemon has answered.
//!
//! Sessions on real daemons stand in the tests of the workspace.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod fake;
#[path = "fake/sessions.rs"]
mod sessions;

use std::sync::mpsc;
use std::time::Instant;

use bulkhead_client::{Error, Session, SessionEvent, SessionOptions, SessionTurn};
use bulkhead_proto::client::message::{Register, Reply, Request};
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::ids::Tag;
use fake::{Fake, Peer};
use sessions::{DEADLINE, open, read, spec, submit_all};

/// The next request, which must be a registration.
fn registration(peer: &mut Peer) -> (Tag, u32) {
    let frame = peer.request().unwrap();
    let Request::Register(Register { number, .. }) = frame.request else { panic!("{frame:?}") };
    (frame.tag, number)
}

/// Turns until there are events.
fn hear(session: &Session) -> Vec<SessionEvent> {
    let mut events = Vec::new();
    let turn = session.lead().turn(Some(Instant::now() + DEADLINE), None, &mut events).unwrap();
    assert_eq!(turn, SessionTurn::Heard);
    events
}

#[test]
fn an_arena_is_taken_from_the_answer_to_the_drop() {
    let (answer, wait_answer) = mpsc::channel();
    let fake = Fake::serve(move |mut peer| {
        let (taken, refused) = (registration(&mut peer), registration(&mut peer));
        wait_answer.recv().unwrap();
        peer.reply(taken.0, Reply::Registered { number: taken.1 });
        peer.reply(refused.0, Reply::Refused(Refusal::Invalid { why: "no".to_owned() }));
        for (_, number) in [taken, refused] {
            assert_eq!(peer.request().unwrap().request, Request::DropRegistration { number });
        }
        assert!(peer.request().is_none());
    });
    let session = open(&fake, SessionOptions::default());
    let (taken, refused) = (session.register_arena(4096).unwrap(), session.register_arena(4096).unwrap());
    assert_eq!((session.has_arena(&taken), session.has_arena(&refused)), (None, None));
    answer.send(()).unwrap();
    let events = hear(&session);
    assert!(matches!(events[..], [SessionEvent::NotRegistered { .. }]), "{events:?}");
    assert_eq!((session.has_arena(&taken), session.has_arena(&refused)), (Some(true), Some(false)));
    session.drop_arena(&taken);
    session.drop_arena(&refused);
    assert_eq!((session.has_arena(&taken), session.has_arena(&refused)), (Some(false), Some(false)));
    drop(session);
    fake.finish();
}

#[test]
fn an_answer_to_a_registration_that_was_dropped_changes_nothing() {
    let fake = Fake::serve(move |mut peer| {
        let (tag, number) = registration(&mut peer);
        assert_eq!(peer.request().unwrap().request, Request::DropRegistration { number });
        peer.reply(tag, Reply::Registered { number });
        while let Some((tag, submit)) = peer.submit() {
            peer.accept(tag, 1, submit.inputs.len());
            peer.reply(tag, Reply::Ended(vec![fake::done(1, b"one")]));
        }
    });
    let session = open(&fake, SessionOptions::default());
    let arena = session.register_arena(4096).unwrap();
    session.drop_arena(&arena);
    assert_eq!(session.has_arena(&arena), Some(false));
    submit_all(&session, &spec(), 1..2);
    read(&mut session.lead(), 1);
    assert_eq!(session.has_arena(&arena), Some(false));
    drop(session);
    fake.finish();
}

#[test]
fn an_arena_without_an_answer_is_not_taken_when_the_connection_has_ended() {
    let fake = Fake::serve(move |mut peer| {
        registration(&mut peer);
    });
    let session = open(&fake, SessionOptions::default());
    let arena = session.register_arena(4096).unwrap();
    let mut events = Vec::new();
    let ended = session.lead().turn(Some(Instant::now() + DEADLINE), None, &mut events);
    assert!(matches!(ended, Err(Error::Closed { .. })), "{ended:?}");
    assert_eq!(session.has_arena(&arena), Some(false));
    assert!(matches!(session.register_arena(4096), Err(Error::Closed { .. })));
    drop(session);
    fake.finish();
}
