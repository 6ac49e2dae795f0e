//! The call that a worker runs, as its Python code sees it.
//!
//! Python may keep it for longer than the call: its reports then go nowhere. Made by `serve.rs`.

use bulkhead_task::TaskReporter;
use pyo3::prelude::*;

/// The call that a worker runs.
#[pyclass(frozen, name = "Task", module = "bulkhead._native")]
#[derive(Debug)]
pub(crate) struct CallTask(pub(crate) TaskReporter);

#[pymethods]
impl CallTask {
    fn progress(&self, done: u64, total: u64) {
        self.0.progress(done, total);
    }

    fn say(&self, text: &str) {
        self.0.say(text);
    }

    fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}
