//! Regions are taken and given back; and the reader beside the writer of the worker library, in two threads.

use std::os::fd::AsFd;
use std::sync::Barrier;

use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::file::{FileUse, Way};
use bulkhead_proto::ids::JobId;
use bulkhead_worker::{ItemWriter, RegisteredContext, TaskContext, TaskFailure};

use super::*;
use crate::chunk_outcome::{ChunkStop, ItemResult};
use crate::output::{JobEnd, ReceivedOutput};

fn store(bytes: usize) -> (Arena, ItemStore) {
    let (arena, _) = Arena::create(1, 4096).unwrap();
    let (store, _) = ItemStore::create(2, &arena, bytes).unwrap();
    (arena, store)
}

#[test]
fn a_region_is_free_when_neither_the_job_nor_the_reader_has_it() {
    let (_, store) = store(4096);
    let make = || store.chunk(b"", &["a", "b"], 3900);
    let (input, chunk) = make().unwrap();
    assert_eq!(make().unwrap_err(), NotChunked::StoreFull);
    let again = input.clone();
    drop(chunk);
    drop(input);
    assert_eq!(make().unwrap_err(), NotChunked::StoreFull, "the session has a clone of the job");
    drop(again);
    let (input, chunk) = make().unwrap();
    drop(input);
    assert_eq!(make().unwrap_err(), NotChunked::StoreFull, "it was not read");
    let outcome = chunk.read(&SessionEnd::Withdrawn);
    assert_eq!((outcome.delivered().len(), outcome.rest()), (0, 0..2));
    assert!(make().is_ok());
}

#[test]
fn what_has_no_room_is_refused_and_leaves_nothing_taken() {
    let (arena, store) = store(8192);
    let long = [vec![7; 5000]];
    let refused = store.chunk(b"", &long, 10).unwrap_err();
    assert!(matches!(refused, NotChunked::ArenaTooSmall { arena_bytes: 4096, .. }), "{refused}");
    let refused = store.chunk(b"", &["a"], 8192).unwrap_err();
    assert!(!refused.is_for_now() && refused.to_string().contains("8192 bytes of the item store"));
    let refused = store.chunk(b"", &vec![b""; CHUNK_ITEMS_MAX + 1], 0).unwrap_err();
    assert!(!refused.is_for_now());
    let whole = arena.block(&[0; 4096]).unwrap();
    assert_eq!(store.chunk(b"", &["a"], 10).unwrap_err(), NotChunked::ArenaFull);
    drop(whole);
    assert!(store.chunk(b"", &["a"], 8192 - 64 - 64).is_ok(), "all of both is free");
}

#[test]
fn its_spec_names_the_store_last_and_lets_nothing_run_twice() {
    let (_, store) = store(4096);
    let spec = Spec { contexts: vec![ContextNumber(9)], flavour: 3, ..Spec::new("squares") };
    let spec = store.spec(spec);
    assert_eq!((spec.kind.as_str(), spec.flavour), ("squares", 3));
    assert_eq!(spec.contexts, [ContextNumber(9), ContextNumber(2)]);
    assert_eq!((spec.policy.crash_budget(), spec.policy.retry_budget()), (1, 0));
}

/// The task of a chunk whose store is this file.
struct ChunkTask {
    context: Arc<RegisteredContext>,
    output: Vec<u8>,
}

impl io::Write for ChunkTask {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TaskContext for ChunkTask {
    fn progress(&mut self, _done: u64, _total: u64) {}
    fn say(&mut self, _words: &str) {}
    fn last_breath(&mut self) {}

    fn context(&self, at: usize) -> Result<Arc<RegisteredContext>, TaskFailure> {
        if at == 0 { Ok(Arc::clone(&self.context)) } else { Err(TaskFailure::new("no more")) }
    }
}

fn ended(outcome: Outcome, output: Vec<u8>) -> SessionEnd {
    let output = ReceivedOutput::Inline(output);
    SessionEnd::Ended(JobEnd { job: JobId(1), outcome, output, attempts: 1, survivors: Vec::new() })
}

/// The result of an item: its length depends on its number, its bytes also on the round. The second is so long that the reader may come
/// while it is written.
fn result_of(round: u64, item: u64) -> Vec<u8> {
    vec![(round + item) as u8; if item == 1 { 40_000 } else { (item * 7 % 90) as usize }]
}

/// Runs the items of a chunk until one draw says that the worker dies, or until the client has closed it. Gives how many items ran, and
/// whether the chunk ended well.
fn work(round: u64, region: ChunkRegion, items: u64, dies_after: u64, task: &mut ChunkTask) -> (u64, bool) {
    let texts: Vec<String> = (0..items).map(|item| item.to_string()).collect();
    let bytes = ChunkInput::encode(Some(region), b"", &texts).unwrap();
    let chunk = ChunkInput::read(&bytes).unwrap();
    let Ok(mut writer) = ItemWriter::open(&chunk, task) else { return (0, false) };
    let mut ran = 0;
    while let Ok(begun) = writer.begin() {
        let Some(item) = begun else { return (ran, writer.finish().is_ok()) };
        ran += 1;
        if ran > dies_after {
            break;
        }
        writer.store(&result_of(round, item as u64), item % 5 == 4, task).unwrap();
    }
    (ran, false)
}

/// Whenever the client reads, also while the worker runs: what ran is delivered or had begun, and what is left never runs.
#[test]
fn however_reader_and_worker_race_nothing_is_lost_and_nothing_could_run_twice() {
    let (arena, _) = Arena::create(1, 64 << 10).unwrap();
    let (store, context) = ItemStore::create(2, &arena, 256 << 10).unwrap();
    let (_, files) = context.into_request(2);
    let (mut state, mut stops) = (5_u64, [0; 4]);
    let mut draw = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % below
    };
    for round in 0..4000 {
        let items = draw(30);
        let room = (draw(2) * 40_000 + draw(2500)) as usize;
        let (input, chunk) = store.chunk(b"", &vec![""; items as usize], room).unwrap();
        let dies_after = if draw(2) == 0 { items } else { draw(items + 1) };
        let (reads_late, waits) = (draw(2) == 0, draw(3000));
        let descriptor = files[0].file.as_fd().try_clone_to_owned().unwrap();
        let named = vec![(FileUse::new(STORE_FILE, Way::Out), descriptor)];
        let context = Arc::new(RegisteredContext::new(Vec::new(), named));
        let mut task = ChunkTask { context, output: Vec::new() };
        let (region, barrier) = (chunk.region.place, Barrier::new(2));
        let (found, ran, ends_well) = std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                barrier.wait();
                work(round, region, items, dies_after, &mut task)
            });
            barrier.wait();
            if reads_late {
                let (ran, ends_well) = worker.join().unwrap();
                let outcome = if ends_well { Outcome::Done } else { Outcome::Cancelled };
                return (chunk.read(&ended(outcome, Vec::new())), ran, ends_well);
            }
            (0..waits).for_each(|_| std::hint::spin_loop());
            let found = chunk.read(&SessionEnd::Lost);
            let (ran, ends_well) = worker.join().unwrap();
            (found, ran, ends_well)
        });
        drop(input);
        let wanted = (0..items).map(|item| (result_of(round, item), item % 5 == 4));
        let is_same = found.delivered().zip(wanted).all(|(result, (bytes, is_failed))| match result {
            ItemResult::Done(found) => !is_failed && found == bytes,
            ItemResult::Failed(found) => is_failed && found == bytes,
        });
        assert!(is_same, "round {round}: {found:?}");
        let began = found.rest().start as u64;
        let delivered = found.delivered().len() as u64;
        match found.stop() {
            ChunkStop::AllDelivered => assert_eq!((delivered, ran), (items, items)),
            ChunkStop::LongResult { .. } => {
                assert!(ends_well && reads_late && task.output == result_of(round, delivered))
            }
            ChunkStop::Begun => assert_eq!(began, delivered + 1),
            ChunkStop::Unbegun => assert_eq!(began, delivered),
            ChunkStop::Fault(fault) => panic!("round {round}: {fault}"),
        }
        assert_eq!(ran, began.min(items), "round {round}: what is left never ran: {found:?}");
        stops[match found.stop() {
            ChunkStop::AllDelivered => 0,
            ChunkStop::LongResult { .. } => 1,
            ChunkStop::Begun => 2,
            _ => 3,
        }] += 1;
    }
    assert!(stops.iter().all(|count| *count > 20), "each of them was seen: {stops:?}");
}
