//! Chunks of a hundred items that do nothing beside as many jobs with one item each.
//!
//! The two take turns in this run, on one daemon and one session, with many jobs under way. Items are short texts that come back
//! unchanged, so what is compared is what an item costs beside its own work. Each result is checked.

use std::collections::HashMap;
use std::sync::Arc;

use bulkhead_client::{
    Chunk, ChunkStop, ItemResult, ItemStore, JobInput, ReceivedOutput, Session, SessionEnd, SessionEvent,
    SessionOptions, Spec, discovery, one_item,
};
use bulkhead_tests::daemon::{Setup, binary};

use crate::figures::{Aim, Figures, median, median_ratio, seconds};
use crate::layout;

/// Items of one chunk.
const ITEMS: usize = 100;
const CHUNKS: usize = 20_000;
const SINGLES: usize = 300_000;
const ROUNDS: usize = 7;

pub(crate) fn run(figures: &mut Figures) {
    let worker = binary("bench-worker").display().to_string();
    let config = format!("worker_program = {worker:?}\n[kinds.items]\nring = 64\n");
    let daemon = layout::daemon(&Setup { config, ..Setup::default() });
    let client = discovery::find(Some(&daemon.socket())).expect("the daemon listens");
    let session = Session::over(client, SessionOptions::default()).expect("a new connection");
    let arena = session.register_arena(16 << 20).expect("memory for items");
    let store = session.register_item_store(&arena, 16 << 20).expect("memory for results");
    chunks(&session, &store, CHUNKS / 10);
    singles(&session, SINGLES / 10);
    let (mut by_chunk, mut by_job) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        by_chunk.push((CHUNKS * ITEMS) as f64 / seconds(|| chunks(&session, &store, CHUNKS)));
        by_job.push(SINGLES as f64 / seconds(|| singles(&session, SINGLES)));
    }
    let ratio = median_ratio(&by_chunk, &by_job);
    figures.add("chunk_items_per_s", median(by_chunk), Aim::None);
    figures.add("chunk_single_items_per_s", median(by_job), Aim::None);
    figures.add("chunk_ratio_single", ratio, Aim::None);
}

/// The ends of one turn.
fn turn(session: &Session) -> Vec<(u64, SessionEnd)> {
    let mut events = Vec::new();
    session.lead().turn(None, None, &mut events).expect("the daemon answers");
    let ends = events.into_iter().filter_map(|event| match event {
        SessionEvent::Job { token, end } => Some((token, end)),
        _ => None,
    });
    ends.collect()
}

fn chunks(session: &Session, store: &ItemStore, count: usize) {
    let spec = Arc::new(store.spec(Spec::new("items")));
    let items: Vec<String> = (0..ITEMS).map(|item| format!("item {item}")).collect();
    let (mut under_way, mut made) = (HashMap::<u64, Chunk>::new(), 0);
    while made < count || !under_way.is_empty() {
        let room = ITEMS * 10;
        if made < count
            && under_way.len() < 2000
            && let Ok((input, chunk)) = store.chunk(b"", &items, room)
        {
            session.submit(made as u64, &spec, input).expect("it has room");
            under_way.insert(made as u64, chunk);
            made += 1;
            continue;
        }
        for (token, end) in turn(session) {
            let found = under_way.remove(&token).expect("a chunk").read(&end);
            assert_eq!(found.stop(), ChunkStop::AllDelivered);
            assert!(
                found.delivered().zip(&items).all(|(found, item)| found == ItemResult::Done(item.as_bytes()))
            );
        }
    }
}

fn singles(session: &Session, count: usize) {
    let spec = Arc::new(Spec::new("items"));
    let (mut made, mut seen) = (0, 0);
    while seen < count {
        if made < count {
            let input =
                JobInput::from(one_item(b"", format!("item {}", made % ITEMS).as_bytes()).expect("short"));
            match session.submit(made as u64, &spec, input) {
                Ok(()) => {
                    made += 1;
                    continue;
                }
                Err(refused) if refused.is_full() => {}
                Err(refused) => panic!("{refused}"),
            }
        }
        for (token, end) in turn(session) {
            let SessionEnd::Ended(end) = end else { panic!("{end:?}") };
            let ReceivedOutput::Inline(bytes) = end.output else { panic!("an inline output") };
            assert_eq!(bytes, format!("item {}", token as usize % ITEMS).into_bytes());
            seen += 1;
        }
    }
}
