//! The chunk of calls that a worker runs, as its Python code sees it: where the result of each goes.
//!
//! A result is stored, then counted, before the next call begins. A result without room in the region of the chunk is kept here
//! until the handler in Python has returned, and is then the output of the task (`serve.rs`).

use std::sync::{Mutex, PoisonError};

use bulkhead_task::{TaskFailure, TaskReporter};
use bulkhead_worker::ItemWriter;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use crate::plain_values::PlainPickle;

/// A chunk that runs.
#[derive(Debug)]
pub(crate) struct OpenChunk {
    pub(crate) writer: ItemWriter,
    pub(crate) reporter: TaskReporter,
    /// The result that has no room, and whether its item failed.
    pub(crate) long: Option<(PyBackedBytes, bool)>,
}

/// Where the results of a chunk go.
#[pyclass(frozen, name = "ChunkResults", module = "bulkhead._native")]
#[derive(Debug)]
pub(crate) struct ChunkResults(Mutex<Option<OpenChunk>>);

fn raised(failure: TaskFailure) -> PyErr {
    PyRuntimeError::new_err(failure.to_string())
}

impl OpenChunk {
    /// Begins the next call, if one is to begin.
    fn next(&mut self) -> PyResult<bool> {
        Ok(!self.reporter.is_cancelled() && self.writer.begin().map_err(raised)?.is_some())
    }
}

impl ChunkResults {
    /// Of a chunk that begins.
    pub(crate) fn over(open: OpenChunk) -> Self {
        Self(Mutex::new(Some(open)))
    }

    /// Ends it: Python may keep the object for longer.
    pub(crate) fn end(&self) -> Option<OpenChunk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn with<T>(&self, act: impl FnOnce(&mut OpenChunk) -> PyResult<T>) -> PyResult<T> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        act(open.as_mut().ok_or_else(|| PyRuntimeError::new_err("the chunk has ended"))?)
    }
}

#[pymethods]
impl ChunkResults {
    fn begin(&self) -> PyResult<bool> {
        self.with(|open| Ok(open.writer.begin().map_err(raised)?.is_some()))
    }

    fn store_plain(&self, value: &Bound<'_, PyAny>) -> PyResult<Option<bool>> {
        let Some(pickle) = PlainPickle::write(value) else { return Ok(None) };
        self.with(|open| {
            let is_stored = open.writer.store_inside(pickle.as_bytes(), false).map_err(raised)?;
            // Without room it goes the way of all long results.
            if is_stored { open.next().map(Some) } else { Ok(None) }
        })
    }

    fn store(&self, result: &Bound<'_, PyBytes>, is_failed: bool) -> PyResult<bool> {
        self.with(|open| {
            if !open.writer.store_inside(result.as_bytes(), is_failed).map_err(raised)? {
                open.long = Some((PyBackedBytes::from(result.clone()), is_failed));
                return Ok(false);
            }
            open.next()
        })
    }
}
