//! Reports of a task from any thread and at any time: an owned handle, where [`crate::TaskContext`] is borrowed.
//!
//! For programs that run an interpreter: what its code holds cannot be borrowed for the time of a call. The worker runtime
//! implements the trait; once the task has ended, its reporter does nothing.

use std::fmt;
use std::sync::Arc;

/// Where the reports of tasks go. Each call names its task, and one that does not run any more is ignored.
pub trait ReportSink: Send + Sync {
    /// As [`crate::TaskContext::progress`].
    fn progress(&self, task: u64, done: u64, total: u64);
    /// As [`crate::TaskContext::say`].
    fn say(&self, task: u64, words: &str);
    /// As [`crate::TaskContext::is_cancelled`]; `false` for a task that has ended.
    fn is_cancelled(&self, task: u64) -> bool;
}

/// Reports of one task. A clone is of the same task.
#[derive(Clone)]
pub struct TaskReporter {
    sink: Arc<dyn ReportSink>,
    task: u64,
}

impl TaskReporter {
    /// A reporter of the task that the sink knows by this number.
    pub fn new(sink: Arc<dyn ReportSink>, task: u64) -> Self {
        Self { sink, task }
    }

    /// A reporter whose reports go nowhere.
    pub fn silent() -> Self {
        Self { sink: Arc::new(NoSink), task: 0 }
    }

    /// As [`crate::TaskContext::progress`], while the task runs.
    pub fn progress(&self, done: u64, total: u64) {
        self.sink.progress(self.task, done, total);
    }

    /// As [`crate::TaskContext::say`], while the task runs.
    pub fn say(&self, words: &str) {
        self.sink.say(self.task, words);
    }

    /// As [`crate::TaskContext::is_cancelled`]; `false` once the task has ended.
    pub fn is_cancelled(&self) -> bool {
        self.sink.is_cancelled(self.task)
    }
}

impl fmt::Debug for TaskReporter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("TaskReporter").field("task", &self.task).finish_non_exhaustive()
    }
}

struct NoSink;

impl ReportSink for NoSink {
    fn progress(&self, _task: u64, _done: u64, _total: u64) {}
    fn say(&self, _task: u64, _words: &str) {}
    fn is_cancelled(&self, _task: u64) -> bool {
        false
    }
}
