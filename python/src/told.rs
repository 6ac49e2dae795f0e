//! What Python is told of a token, and its form there: the `What` of `_native.pyi`.
//!
//! Plain values; they are made without the GIL, by the thread that reads.

use bulkhead_client::proto::client::outcome::Outcome;
use bulkhead_client::proto::client::view::JobDetail;
use bulkhead_client::proto::limits::INLINE_MAX_BYTES;
use bulkhead_client::{ChunkOutcome, JobEnd, ReceivedOutput};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::chunk_places::ChunkEnd;
use crate::long_bytes::LongBytes;
use crate::memory_file::MemoryFile;

/// What is told of a token.
#[derive(Debug)]
pub(crate) enum Told {
    /// The call is done.
    Bytes(Vec<u8>),
    /// The call is done, and its result is long.
    File(MemoryFile),
    /// The call has no result: the word, the text, and the certificate as JSON.
    End(&'static str, String, String),
    /// A chunk has ended: what became of its items, and of its job.
    Chunk(Box<(ChunkOutcome, Told)>),
    /// How far it is.
    Progress(u64, u64),
    /// A cancel came too late.
    RunsOn,
    /// A text of the daemon.
    Notice(String),
    /// The connection has ended.
    Gone(String),
}

impl Told {
    /// The daemon is gone, and with it the call.
    pub(crate) fn lost() -> Self {
        Self::End("lost", "the daemon is gone; the call may have run".to_owned(), String::new())
    }

    /// It was cancelled before it was sent.
    pub(crate) fn withdrawn() -> Self {
        Self::End("withdrawn", "cancelled before it was sent".to_owned(), String::new())
    }

    /// The daemon did not take it.
    pub(crate) fn refused(why: impl ToString) -> Self {
        Self::End("refused", why.to_string(), String::new())
    }

    /// The end of a job.
    pub(crate) fn end(end: JobEnd) -> Self {
        match (end.outcome, end.output) {
            (Outcome::Done, ReceivedOutput::Inline(bytes)) => Self::Bytes(bytes),
            (Outcome::Done, ReceivedOutput::None) => Self::Bytes(Vec::new()),
            (Outcome::Done, ReceivedOutput::File(file)) => {
                let bytes = file.bytes();
                Self::File(MemoryFile::of_length(file.into_file(), bytes))
            }
            (Outcome::Done, ReceivedOutput::Gone(gone)) => {
                Self::End("unread", gone.to_string(), String::new())
            }
            (outcome, _) => Self::End(outcome.word(), text(&outcome), String::new()),
        }
    }

    /// The same end with what became of the items, if it is that of a chunk.
    pub(crate) fn with_items(self, outcome: Option<ChunkOutcome>) -> Self {
        match outcome {
            Some(outcome) => Self::Chunk(Box::new((outcome, self))),
            None => self,
        }
    }

    /// Whether its worker is killed with it.
    pub(crate) fn ends_by_a_kill(&self) -> bool {
        match self {
            Self::Chunk(chunk) => chunk.1.ends_by_a_kill(),
            other => matches!(other, Self::End("timed-out" | "cancelled", ..)),
        }
    }

    /// The same end with its certificate.
    pub(crate) fn certified(self, detail: &JobDetail) -> Self {
        match self {
            Self::End(word, text, _) => {
                Self::End(word, text, serde_json::to_string(detail).unwrap_or_default())
            }
            Self::Chunk(chunk) => Self::Chunk(Box::new((chunk.0, chunk.1.certified(detail)))),
            other => other,
        }
    }

    /// Adds a long result to `long`.
    fn into_python<'py>(self, py: Python<'py>, long: &mut Vec<Py<LongBytes>>) -> PyResult<Bound<'py, PyAny>> {
        Ok(match self {
            Self::Bytes(bytes) if bytes.len() > INLINE_MAX_BYTES => {
                let made = Bound::new(py, LongBytes::new(bytes))?;
                long.push(made.clone().unbind());
                made.into_any()
            }
            Self::Bytes(bytes) => PyBytes::new(py, &bytes).into_any(),
            Self::File(file) => Bound::new(py, file)?.into_any(),
            Self::End(word, text, certificate) => (word, text, certificate).into_pyobject(py)?.into_any(),
            Self::Chunk(chunk) => {
                let (outcome, end) = *chunk;
                let end = match end {
                    Self::Bytes(bytes) => PyBytes::new(py, &bytes).into_any(),
                    other => other.into_python(py, long)?,
                };
                Bound::new(py, ChunkEnd::new(py, &outcome, end)?)?.into_any()
            }
            Self::Progress(done, total) => ("progress", done, total).into_pyobject(py)?.into_any(),
            Self::RunsOn => ("runs-on",).into_pyobject(py)?.into_any(),
            Self::Notice(text) => ("notice", text).into_pyobject(py)?.into_any(),
            Self::Gone(text) => ("gone", text).into_pyobject(py)?.into_any(),
        })
    }
}

/// The text of an outcome; of a failure its whole message, with its lines.
fn text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Failed { message, .. } => message.clone(),
        other => other.to_string(),
    }
}

/// The list of events for Python. Long results among them are added to `long`.
pub(crate) fn event_list<'py>(
    py: Python<'py>,
    told: Vec<(u64, Told)>,
    long: &mut Vec<Py<LongBytes>>,
) -> PyResult<Bound<'py, PyList>> {
    let events = told.into_iter().map(|(token, what)| Ok((token, what.into_python(py, long)?)));
    PyList::new(py, events.collect::<PyResult<Vec<_>>>()?)
}
