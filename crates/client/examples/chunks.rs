//! Many small calls in few jobs: squares of numbers, a hundred in each chunk.
//!
//! `chunks SOCKET [COUNT]` squares the numbers from 0 on, COUNT of them (1000 by default), with a daemon of one user whose kind
//! `squares` is that of `worker/examples/squares.rs`, which crashes at 13.
//!
//! Shows what a program with many items does: it makes chunks, takes the results that are delivered, fails the item that had begun
//! when a worker died, and submits what never began as another chunk. No item runs twice.

use std::collections::BTreeMap;
use std::error::Error;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use bulkhead_client::{
    Chunk, ChunkStop, ItemResult, ItemStore, NotChunked, ReceivedOutput, Session, SessionEnd, SessionEvent,
    SessionOptions, Spec, connect,
};

/// Items of one chunk.
const ITEMS: u64 = 100;
/// The longest square is that long.
const RESULT_BYTES: usize = 19;

/// What is to be done, under way, and done.
struct Squares {
    session: Session,
    store: ItemStore,
    spec: Arc<Spec>,
    waiting: Vec<Range<u64>>,
    under_way: BTreeMap<u64, (Range<u64>, Chunk)>,
    results: BTreeMap<u64, Result<String, String>>,
}

impl Squares {
    /// Submits a chunk of these numbers. `false`: there is no room for it now.
    fn submit(&mut self, numbers: &Range<u64>) -> Result<bool, Box<dyn Error>> {
        let items: Vec<String> = numbers.clone().map(|number| number.to_string()).collect();
        match self.store.chunk(b"", &items, items.len() * RESULT_BYTES) {
            Ok((input, chunk)) => {
                self.session.submit(numbers.start, &self.spec, input)?;
                self.under_way.insert(numbers.start, (numbers.clone(), chunk));
                Ok(true)
            }
            Err(NotChunked::ArenaFull | NotChunked::StoreFull) => Ok(false),
            Err(refused) => Err(refused.into()),
        }
    }

    /// Takes what a chunk has left.
    fn take(&mut self, token: u64, end: SessionEnd) {
        let Some((numbers, chunk)) = self.under_way.remove(&token) else { return };
        let outcome = chunk.read(&end);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        for (number, result) in numbers.clone().zip(outcome.delivered()) {
            let result = match result {
                ItemResult::Done(bytes) => Ok(text(bytes)),
                ItemResult::Failed(bytes) => Err(text(bytes)),
            };
            self.results.insert(number, result);
        }
        let rest = numbers.start + outcome.rest().start as u64..numbers.end;
        let next = numbers.start + outcome.delivered().len() as u64;
        let reason = match outcome.stop() {
            ChunkStop::AllDelivered => return,
            ChunkStop::LongResult { is_failed } => {
                let SessionEnd::Ended(end) = end else { return };
                let ReceivedOutput::Inline(bytes) = end.output else { return };
                self.results.insert(next, if is_failed { Err(text(&bytes)) } else { Ok(text(&bytes)) });
                return self.waiting.push(rest);
            }
            // Nothing says that another chunk would not end as this one before its first item.
            ChunkStop::Unbegun if outcome.delivered().len() == 0 => {
                self.results.extend(numbers.map(|number| (number, Err(reason(&end)))));
                return;
            }
            ChunkStop::Unbegun => return self.waiting.push(rest),
            ChunkStop::Begun => reason(&end),
            ChunkStop::Fault(fault) => {
                self.results.extend((next..numbers.end).map(|number| (number, Err(fault.to_string()))));
                return;
            }
        };
        self.results.insert(next, Err(reason));
        self.waiting.push(rest);
    }

    /// Submits what waits, and takes what has ended, until nothing is left.
    fn run(&mut self) -> Result<(), Box<dyn Error>> {
        let mut events = Vec::new();
        loop {
            while let Some(numbers) = self.waiting.pop() {
                if !numbers.is_empty() && !self.submit(&numbers)? {
                    self.waiting.push(numbers);
                    break;
                }
            }
            if self.under_way.is_empty() {
                return Ok(());
            }
            self.session.lead().turn(None, None, &mut events)?;
            for event in events.drain(..) {
                match event {
                    SessionEvent::Job { token, end } => self.take(token, end),
                    SessionEvent::NotRegistered { refusal, .. } => return Err(refusal.to_string().into()),
                    _ => {}
                }
            }
        }
    }
}

/// How a job ended, in words.
fn reason(end: &SessionEnd) -> String {
    match end {
        SessionEnd::Ended(end) => end.outcome.to_string(),
        other => format!("{other:?}"),
    }
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let socket = arguments.next().map(PathBuf::from).ok_or("usage: chunks SOCKET [COUNT]")?;
    let count: u64 = arguments.next().map_or(Ok(1000), |text| text.parse())?;
    let session = Session::over(connect::connect(&socket)?, SessionOptions::default())?;
    let arena = session.register_arena(1 << 20)?;
    let store = session.register_item_store(&arena, 1 << 20)?;
    let spec = Arc::new(store.spec(Spec::new("squares")));
    let waiting = (0..count).step_by(ITEMS as usize).map(|first| first..(first + ITEMS).min(count)).collect();
    let (under_way, results) = (BTreeMap::new(), BTreeMap::new());
    let mut squares = Squares { session, store, spec, waiting, under_way, results };
    squares.run()?;
    let done = squares.results.values().filter(|result| result.is_ok()).count();
    println!("{done} of {count} are squared");
    for (number, reason) in
        squares.results.iter().filter_map(|(number, result)| Some((number, result.as_ref().err()?)))
    {
        println!("{number}: {reason}");
    }
    Ok(ExitCode::SUCCESS)
}
