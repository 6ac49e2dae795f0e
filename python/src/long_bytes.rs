//! A result that is longer than inline, as an event holds it until it is read.
//!
//! The results of one list of events are unpickled one after the other. So their bytes become objects of Python one after the other too, each
//! in the memory of the one before it: fresh memory costs more than the copy. What holds them here goes back to the session for the next
//! results, once the list was passed on. Made by `told.rs`, emptied by `deliver.rs`.

use std::sync::Mutex;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::connection::locked;

/// The bytes of a result.
#[pyclass(frozen, module = "bulkhead._native")]
#[derive(Debug)]
pub(crate) struct LongBytes(Mutex<Vec<u8>>);

impl LongBytes {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self(Mutex::new(bytes))
    }

    /// Its memory; it has no bytes from now on.
    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *locked(&self.0))
    }
}

#[pymethods]
impl LongBytes {
    fn bytes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &locked(&self.0))
    }
}
