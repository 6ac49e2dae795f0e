//! Chunks of calls under way: one job with many items, whose results lie in an item store that workers write.
//!
//! The memory for them, an arena for the items and the store for their results, is registered when a program first asks for it.
//! It is apart from that of single calls (`input_places.rs`): so room comes with the ends of chunks alone. What a chunk leaves
//! is read once, at the end of its job. Driven by `session.rs` and `deliver.rs`.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use bulkhead_client::proto::job::OutputMode;
use bulkhead_client::{
    Chunk, ChunkOutcome, ChunkStop, CountedResults, Error, ItemResult, ItemStore, JobInput, SessionEnd,
    SessionQuestion, Spec,
};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::connection::{CallConnection, locked};
use crate::input_places::{gone, not_submitted};
use crate::plain_values;

/// Memory for the items of chunks under way. Only touched pages take memory.
const ITEMS_BYTES: usize = 16 << 20;
/// Memory for their results.
const RESULTS_BYTES: usize = 16 << 20;

/// Why chunks are refused before [`CallConnection::open_chunks`].
pub(crate) const NO_CHUNKS: &str = "there is no memory for chunks: call open_chunks first";

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct ChunkPlaces {
    /// There once the daemon has taken it.
    store: OnceLock<ItemStore>,
    under_way: Mutex<HashMap<u64, Chunk>>,
    /// How many are under way.
    count: AtomicUsize,
}

impl ChunkPlaces {
    /// The rules for chunks; `None`: there is no memory for chunks.
    pub(crate) fn spec(&self, spec: Spec) -> Option<Spec> {
        self.store.get().map(|store| store.spec(spec))
    }

    /// What became of the items of the chunk with this token; `None`: it is none.
    pub(crate) fn read(&self, token: u64, end: &SessionEnd) -> Option<ChunkOutcome> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let chunk = locked(&self.under_way).remove(&token)?;
        self.count.fetch_sub(1, Ordering::AcqRel);
        Some(chunk.read(end))
    }

    /// The results that this chunk has so far.
    pub(crate) fn counted(&self, token: u64) -> Option<CountedResults> {
        locked(&self.under_way).get(&token).map(Chunk::counted)
    }

    fn add(&self, token: u64, chunk: Chunk) {
        self.count.fetch_add(1, Ordering::AcqRel);
        locked(&self.under_way).insert(token, chunk);
    }

    fn remove(&self, token: u64) {
        if locked(&self.under_way).remove(&token).is_some() {
            self.count.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl CallConnection {
    /// Registers the memory for chunks, if that was not done, and waits until the daemon has taken it; `false`: there is none.
    ///
    /// # Errors
    /// As [`CallConnection::ask`].
    pub(crate) fn open_chunks(&self, py: Python<'_>) -> PyResult<bool> {
        if self.chunks.store.get().is_some() {
            return Ok(true);
        }
        let made = self.session.register_arena(ITEMS_BYTES).and_then(|arena| {
            let store = self.session.register_item_store(&arena, RESULTS_BYTES);
            store.inspect_err(|_| self.session.drop_arena(&arena)).map(|store| (arena, store))
        });
        let (arena, store) = match made {
            Ok(made) => made,
            Err(Error::Closed { .. }) => return Err(gone().into()),
            Err(_) => return Ok(false),
        };
        // The daemon answers in order: behind this answer both registrations are decided.
        let answered = self.ask(py, SessionQuestion::Status).map(drop);
        let is_taken = answered.is_ok()
            && self.session.has_arena(&arena) == Some(true)
            && self.session.has_item_store(&store) == Some(true)
            && self.chunks.store.set(store.clone()).is_ok();
        if !is_taken {
            self.session.drop_item_store(&store);
            self.session.drop_arena(&arena);
        }
        answered.map(|()| self.chunks.store.get().is_some())
    }

    /// Submits a chunk; `false`: there is no room for it until others have ended.
    ///
    /// # Errors
    /// The connection has ended, the token is in use, or the chunk never has room.
    pub(crate) fn submit_chunk(
        &self,
        token: u64,
        spec: &Arc<Spec>,
        head: &[u8],
        items: &[&[u8]],
        room: usize,
    ) -> io::Result<bool> {
        let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
        let Some(store) = self.chunks.store.get() else {
            return Err(invalid(NO_CHUNKS.to_owned()));
        };
        if self.has_ended() {
            return Err(gone());
        }
        let (job, chunk) = match store.chunk(head, items, room) {
            Ok(made) => made,
            Err(why) if why.is_for_now() => return Ok(false),
            Err(why) => return Err(invalid(why.to_string())),
        };
        // Before the submit: its end may be read by another thread at once.
        self.chunks.add(token, chunk);
        let job = JobInput { output: OutputMode::Arena, ..job };
        self.session.submit(token, spec, job).map(|()| true).map_err(|why| {
            self.chunks.remove(token);
            not_submitted(&why)
        })
    }
}

/// One chunk to be submitted, which is submitted once: a thread that Ctrl-C has interrupted may ask for it again.
#[pyclass(frozen, module = "bulkhead._native")]
#[derive(Debug)]
pub(crate) struct ChunkTicket {
    token: u64,
    is_sent: AtomicBool,
}

impl ChunkTicket {
    /// Submits it unless it is submitted; whether it is.
    pub(crate) fn submit(&self, submit: impl FnOnce(u64) -> io::Result<bool>) -> io::Result<bool> {
        if self.is_sent.load(Ordering::Acquire) {
            return Ok(true);
        }
        let is_sent = submit(self.token)?;
        self.is_sent.store(is_sent, Ordering::Release);
        Ok(is_sent)
    }
}

#[pymethods]
impl ChunkTicket {
    #[new]
    fn new(token: u64) -> Self {
        Self { token, is_sent: AtomicBool::new(false) }
    }

    #[getter]
    fn is_sent(&self) -> bool {
        self.is_sent.load(Ordering::Acquire)
    }
}

/// What became of the items of a chunk, as Python sees it.
#[pyclass(frozen, get_all, module = "bulkhead._native")]
#[derive(Debug)]
pub(crate) struct ChunkEnd {
    results: Py<ChunkValues>,
    stop: &'static str,
    text: String,
    end: Py<PyAny>,
}

/// The results of calls, as Python sees them.
#[pyclass(frozen, get_all, module = "bulkhead._native")]
#[derive(Debug)]
pub(crate) struct ChunkValues {
    values: Py<PyList>,
    pickled: Vec<usize>,
    failed: Vec<usize>,
    length: usize,
}

impl ChunkValues {
    /// From what was read of a chunk.
    pub(crate) fn new<'a>(py: Python<'_>, results: impl Iterator<Item = ItemResult<'a>>) -> PyResult<Self> {
        let (mut pickled, mut failed, mut length) = (Vec::new(), Vec::new(), 0);
        let values = results.enumerate().map(|(index, result)| {
            let (ItemResult::Done(bytes) | ItemResult::Failed(bytes)) = result;
            length += bytes.len();
            if matches!(result, ItemResult::Failed(_)) {
                failed.push(index);
            } else if let Some(value) = plain_values::read(py, bytes) {
                return value;
            } else {
                pickled.push(index);
            }
            PyBytes::new(py, bytes).into_any()
        });
        let values = PyList::new(py, values.collect::<Vec<_>>())?.unbind();
        Ok(Self { values, pickled, failed, length })
    }
}

impl ChunkEnd {
    /// From what was read, and the end of the job.
    pub(crate) fn new(py: Python<'_>, outcome: &ChunkOutcome, end: Bound<'_, PyAny>) -> PyResult<Self> {
        let results = Py::new(py, ChunkValues::new(py, outcome.delivered())?)?;
        let (stop, text) = match outcome.stop() {
            ChunkStop::AllDelivered => ("all", String::new()),
            ChunkStop::LongResult { is_failed: false } => ("long", String::new()),
            ChunkStop::LongResult { is_failed: true } => ("long-failed", String::new()),
            ChunkStop::Begun => ("begun", String::new()),
            ChunkStop::Unbegun => ("unbegun", String::new()),
            ChunkStop::Fault(fault) => ("fault", fault.to_string()),
        };
        Ok(Self { results, stop, text, end: end.unbind() })
    }
}
