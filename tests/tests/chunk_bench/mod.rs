//! A daemon whose workers take chunks, a session with a store, and a client that goes on with what is left.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic
#![allow(dead_code, reason = "each test file uses its own part of it")]

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bulkhead_client::{
    Arena, Chunk, ChunkStop, ItemResult, ItemStore, JobEnd, ReceivedOutput, Session, SessionEnd,
    SessionEvent, SessionOptions, Spec, connect,
};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::job::Policy;
use bulkhead_tests::chunks::{HANGING, ITEMS, config, result_of, runs};
use bulkhead_tests::daemon::{DEADLINE, Daemon, Setup, binary, eventually};
use tempfile::TempDir;

/// A daemon, a session with an arena and a store, and the folder in which runs are counted.
pub(crate) struct ChunkBench {
    pub(crate) session: Session,
    pub(crate) arena: Arena,
    pub(crate) store: ItemStore,
    pub(crate) folder: TempDir,
    pub(crate) daemon: Daemon,
}

pub(crate) fn start(workers: u16, store_bytes: usize) -> ChunkBench {
    let daemon =
        Daemon::start_with(&Setup { workers, config: config(&binary("chunk-worker")), ..Setup::default() });
    let client = connect::connect(&daemon.socket()).unwrap();
    let session = Session::over(client, SessionOptions::default()).unwrap();
    let arena = session.register_arena(1 << 20).unwrap();
    let store = session.register_item_store(&arena, store_bytes).unwrap();
    ChunkBench { session, arena, store, folder: tempfile::tempdir().unwrap(), daemon }
}

/// The next ends, as many as these.
pub(crate) fn ends(session: &Session, count: usize) -> BTreeMap<u64, SessionEnd> {
    let (mut told, mut events, until) = (BTreeMap::new(), Vec::new(), Instant::now() + DEADLINE);
    while told.len() < count {
        let turn = session.lead().turn(Some(until), None, &mut events);
        for event in events.drain(..) {
            match event {
                SessionEvent::Job { token, end } => drop(told.insert(token, end)),
                SessionEvent::NotRegistered { refusal, .. } => panic!("{refusal}"),
                _ => {}
            }
        }
        assert!(turn.is_ok() || told.len() == count, "{turn:?}: {} of {count} are told", told.len());
        assert!(Instant::now() < until, "{} of {count} are told", told.len());
    }
    told
}

pub(crate) fn outcome(end: &SessionEnd) -> &Outcome {
    let SessionEnd::Ended(JobEnd { outcome, .. }) = end else { panic!("{end:?}") };
    outcome
}

pub(crate) fn failure(end: &SessionEnd) -> &str {
    let Outcome::Failed { message, .. } = outcome(end) else { panic!("{end:?}") };
    message
}

impl ChunkBench {
    pub(crate) fn head(&self) -> String {
        self.folder.path().display().to_string()
    }

    pub(crate) fn submit(&self, kind: &str, head: &str, items: &[String]) -> Chunk {
        self.submit_with(kind, head, items, Policy::default(), 4096)
    }

    pub(crate) fn submit_with(
        &self,
        kind: &str,
        head: &str,
        items: &[String],
        policy: Policy,
        room: usize,
    ) -> Chunk {
        let spec = self.store.spec(Spec { policy, ..Spec::new(kind) });
        let (input, chunk) = self.store.chunk(head.as_bytes(), items, room).unwrap();
        self.session.submit(1, &Arc::new(spec), input).unwrap();
        chunk
    }

    pub(crate) fn end(&self) -> SessionEnd {
        ends(&self.session, 1).remove(&1).unwrap()
    }

    /// Runs items until each has a result or has failed with its job, as a client does: what never began is submitted again.
    pub(crate) fn run_all(&self, items: &[String]) -> Vec<Result<String, String>> {
        let (mut told, mut from) = (Vec::new(), 0);
        while from < items.len() {
            let chunk = self.submit(ITEMS, &self.head(), &items[from..]);
            let end = self.end();
            let found = chunk.read(&end);
            told.extend(found.delivered().map(told_of));
            match found.stop() {
                ChunkStop::AllDelivered => {}
                ChunkStop::Begun => told.push(Err(outcome(&end).word().to_owned())),
                ChunkStop::LongResult { is_failed } => told.push(long(end, is_failed)),
                other => panic!("{other:?} with {end:?}"),
            }
            assert_eq!(from + found.rest().start, told.len());
            from = told.len();
        }
        told
    }

    /// Each of these items has run once, and no other.
    pub(crate) fn each_ran_once(&self, items: &[String]) {
        let names: BTreeMap<String, u32> = items.iter().map(|item| (name(item), 1)).collect();
        assert_eq!(runs(self.folder.path()), names);
    }

    /// Waits, as a leader does, until all of the arena and all of the store is free.
    pub(crate) fn all_free(&self) {
        let (mut events, until) = (Vec::new(), Instant::now() + DEADLINE);
        let whole = vec![0; self.arena.length()];
        let is_free = || {
            let room = self.store.length() - 2 * 64;
            self.store.chunk(b"", &["x"], room).is_ok() && self.arena.block(&whole).is_some()
        };
        while !is_free() {
            assert!(Instant::now() < until, "a region is never free");
            let soon = Instant::now() + Duration::from_millis(20);
            self.session.lead().turn(Some(soon), None, &mut events).unwrap();
        }
    }

    /// The process that hangs in an item.
    pub(crate) fn hanging(&self) -> u32 {
        let file = self.folder.path().join(HANGING);
        eventually("an item hangs", || std::fs::read_to_string(&file).ok()?.parse().ok())
    }
}

pub(crate) fn told_of(result: ItemResult<'_>) -> Result<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match result {
        ItemResult::Done(bytes) => Ok(text(bytes)),
        ItemResult::Failed(bytes) => Err(text(bytes)),
    }
}

/// The output of a job that is the result of one item.
pub(crate) fn long(end: SessionEnd, is_failed: bool) -> Result<String, String> {
    let SessionEnd::Ended(end) = end else { panic!("{end:?}") };
    let mut text = String::new();
    match end.output {
        ReceivedOutput::Inline(bytes) => text = String::from_utf8(bytes).unwrap(),
        ReceivedOutput::File(file) => drop(file.reader().read_to_string(&mut text).unwrap()),
        other => panic!("{other:?}"),
    }
    if is_failed { Err(text) } else { Ok(text) }
}

pub(crate) fn name(item: &str) -> String {
    item.split(' ').next().unwrap_or_default().to_owned()
}

pub(crate) fn names(count: usize) -> Vec<String> {
    (0..count).map(|at| format!("item{at}")).collect()
}

/// What [`ChunkBench::run_all`] gives when all are done but this one.
pub(crate) fn all_done_but(items: &[String], at: usize, word: &str) -> Vec<Result<String, String>> {
    let done = items.iter().map(|item| Ok(result_of(&name(item))));
    let mut all: Vec<_> = done.collect();
    all[at] = Err(word.to_owned());
    all
}
