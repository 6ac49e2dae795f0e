//! When a region of an item store is used again, against a daemon made by hand: at once where the worker has reported its job, else
//! when the daemon says that no worker has it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod fake;
#[path = "fake/sessions.rs"]
mod sessions;

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bulkhead_client::{
    Chunk, ChunkStop, ItemStore, JobInput, NotChunked, Session, SessionEnd, SessionEvent, SessionOptions,
    Spec,
};
use bulkhead_proto::client::message::{Register, Reply, Request};
use bulkhead_proto::client::outcome::{JobEnded, JobOutput, Outcome};
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::ids::{JobId, Tag};
use bulkhead_proto::registration::RegistrationKind;
use fake::{Fake, Peer};
use sessions::{DEADLINE, open};

/// Takes the registrations of an arena and of a store, and gives their numbers.
fn take_registrations(peer: &mut Peer) -> [u32; 2] {
    [RegistrationKind::Arena, RegistrationKind::Files].map(|wanted| {
        let frame = peer.request().unwrap();
        let Request::Register(Register { number, kind, files, .. }) = frame.request else {
            panic!("{frame:?}")
        };
        assert_eq!((kind, files.len()), (wanted, 1));
        peer.reply(frame.tag, Reply::Registered { number });
        number
    })
}

fn ended(job: u64, outcome: Outcome) -> JobEnded {
    JobEnded { job: JobId(job), outcome, output: JobOutput::None, attempts: 1, survivors: Vec::new() }
}

/// A chunk that takes all of the store.
fn whole(store: &ItemStore) -> Result<(JobInput, Chunk), NotChunked> {
    store.chunk(b"", &["a", "b"], store.length() - 128)
}

/// Submits it, and gives its end.
fn run(session: &Session, spec: &Arc<Spec>, input: JobInput) -> SessionEnd {
    session.submit(1, spec, input).unwrap();
    let mut events = Vec::new();
    while events.is_empty() {
        session.lead().turn(Some(Instant::now() + DEADLINE), None, &mut events).unwrap();
    }
    match events.pop() {
        Some(SessionEvent::Job { end, .. }) if events.is_empty() => end,
        other => panic!("{other:?} after {events:?}"),
    }
}

#[test]
fn a_region_is_used_again_when_no_worker_can_write_there() {
    let crashed = || Outcome::Crashed { crashes: 1, last: "signal 9".to_owned() };
    let failed = || Outcome::Failed { message: "no".to_owned(), code: None };
    let (read, wait_read) = mpsc::channel();
    let fake = Fake::serve(move |mut peer| {
        let [arena, store] = take_registrations(&mut peer);
        for (job, outcome) in (1..).zip([failed(), crashed(), Outcome::Cancelled]) {
            let (tag, submit) = peer.submit().unwrap();
            let used = submit.registered.unwrap();
            assert_eq!((used.arena, used.contexts), (Some(arena), vec![store]));
            assert_eq!((submit.policy.crashes_max, submit.policy.retries_max), (Some(1), Some(0)));
            peer.accept(tag, job, 1);
            peer.reply(tag, Reply::Ended(vec![ended(job, outcome)]));
            wait_read.recv().unwrap();
            if job > 1 {
                peer.reply(Tag(0), Reply::Freed { jobs: vec![JobId(job)] });
            }
        }
        let (tag, _) = peer.submit().unwrap();
        peer.reply(tag, Reply::Refused(Refusal::Invalid { why: "no".to_owned() }));
        assert!(peer.request().is_none());
    });
    let session = open(&fake, SessionOptions::default());
    let arena = session.register_arena(4096).unwrap();
    let store = session.register_item_store(&arena, 4096).unwrap();
    let spec = Arc::new(store.spec(Spec::new("items")));
    for is_told in [true, false, false] {
        let (input, chunk) = whole(&store).unwrap();
        let end = run(&session, &spec, input);
        assert_eq!(whole(&store).unwrap_err(), NotChunked::StoreFull, "it was not read: {end:?}");
        let found = chunk.read(&end);
        assert_eq!((found.stop(), found.rest()), (ChunkStop::Unbegun, 0..2));
        assert_eq!(whole(&store).is_ok(), is_told, "{end:?}");
        read.send(()).unwrap();
        let (mut events, until) = (Vec::new(), Instant::now() + DEADLINE);
        while whole(&store).is_err() {
            assert!(Instant::now() < until, "the region is never free");
            let soon = Instant::now() + Duration::from_millis(10);
            session.lead().turn(Some(soon), None, &mut events).unwrap();
        }
    }
    let (input, chunk) = whole(&store).unwrap();
    let end = run(&session, &spec, input);
    assert!(matches!(end, SessionEnd::Refused(_)), "{end:?}");
    assert_eq!(chunk.read(&end).rest(), 0..2);
    assert!(whole(&store).is_ok());
    drop(session);
    fake.finish();
}
