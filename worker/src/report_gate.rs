//! Reports of a running task by handles that outlive it: they pass while the task runs, and not after.
//!
//! The gate is open for one task at a time, from its first handle to its end. A lock decides between a report and the end of
//! the task: no report of a task is ever stored as that of the next, and two reports never mix. Opened and shut by `output.rs`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bulkhead_link::worker::WorkerRing;
use bulkhead_task::ReportSink;

/// The gate of one worker.
#[derive(Debug)]
pub(crate) struct ReportGate {
    ring: Arc<WorkerRing>,
    /// The task whose reports pass.
    open_for: Mutex<Option<u64>>,
}

impl ReportGate {
    /// A gate before this ring, shut.
    pub(crate) fn new(ring: Arc<WorkerRing>) -> Self {
        Self { ring, open_for: Mutex::new(None) }
    }

    /// Reports of this task pass from now on.
    pub(crate) fn open(&self, task: u64) {
        *self.locked() = Some(task);
    }

    /// No report passes any more.
    pub(crate) fn shut(&self) {
        *self.locked() = None;
    }

    /// Reports for the running task itself, between the reports of its handles.
    pub(crate) fn report(&self, report: impl FnOnce(&WorkerRing)) {
        let _between = self.locked();
        report(&self.ring);
    }

    fn locked(&self) -> MutexGuard<'_, Option<u64>> {
        self.open_for.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass<T>(&self, task: u64, report: impl FnOnce(&WorkerRing) -> T) -> Option<T> {
        let open_for = self.locked();
        (*open_for == Some(task)).then(|| report(&self.ring))
    }
}

impl ReportSink for ReportGate {
    fn progress(&self, task: u64, done: u64, total: u64) {
        self.pass(task, |ring| ring.progress(done, total));
    }

    fn say(&self, task: u64, words: &str) {
        self.pass(task, |ring| ring.say(words));
    }

    fn is_cancelled(&self, task: u64) -> bool {
        self.pass(task, WorkerRing::is_cancelled).unwrap_or(false)
    }
}
