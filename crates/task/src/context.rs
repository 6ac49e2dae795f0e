//! The interface between a handler and its task: output, files, progress, last words, log.
//!
//! Only traits: the worker runtime implements them over real descriptors, a test over memory. Files are read and
//! written by position, so two tasks that share a file never move each other's offset.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_proto::file::Way;
use bulkhead_proto::log::LogStream;

use crate::{RegisteredContext, TaskFailure, TaskReporter};

/// The task that a handler runs. The bytes that are written to it are the task's output. Its progress and its last
/// words stand in shared memory: they survive the worker, however it dies, and are shown with the death.
pub trait TaskContext: io::Write {
    /// Reports that `done` of `total` units are done; `total` is 0 if it is not known. The task chooses the unit. Each
    /// call counts as progress, also with the same numbers, and restarts the limit on time without progress. It costs
    /// less than 0.1 us: no system call, no allocation.
    fn progress(&mut self, done: u64, total: u64);
    /// Sets the last words, which replace the earlier ones: what the task is about to do. They are shown if it dies.
    /// They are cut after `bulkhead_proto::limits::LAST_WORDS_MAX_BYTES`. It is not progress, and costs as little.
    fn say(&mut self, words: &str);
    /// Stores the time right before the task ends its own process, so that the time until the supervisor noticed the
    /// death can be reported.
    fn last_breath(&mut self);

    /// Tells that a signal has stopped the program that this task runs, a process of this id. `bulkhead why` and
    /// `bulkhead workers` show it, it counts as no progress whatever [`Self::progress`] reports, and
    /// `program_stopped_seconds` of the configuration ends the task for it. For handlers that run a program.
    fn program_stopped(&mut self, pid: u32, signal: i32) {
        let _ = (pid, signal);
    }

    /// Tells that the stopped program goes on.
    fn program_continued(&mut self) {}

    /// Adds to the log of the job, which `bulkhead logs` shows while the job runs and after. It makes one or two system
    /// calls. Jobs of kinds without a log (`logs = true` in `[kinds.NAME]`) drop it.
    fn log(&mut self, stream: LogStream, bytes: &[u8]) {
        let _ = (stream, bytes);
    }

    /// The file of this name that came with the job. It is a regular file or a memfd, and can be read or written at any
    /// position. If a file that the job reads has changed when its handler has ended, the task fails and says so,
    /// whatever the handler returned.
    ///
    /// # Errors
    /// [`TaskFailure`] if no such file came with the job, or if it is no regular file, such as a pipe: what it is, and
    /// what to do.
    fn file(&self, name: &str) -> Result<Arc<dyn PositionedFile>, TaskFailure> {
        Err(TaskFailure::new(format!("the job comes without a file {name:?}: give it one")))
    }

    /// All files that came with the job, in the order of its submit. They are unchecked and may be pipes or devices.
    /// For handlers that pass the descriptors on.
    fn files(&self) -> Vec<Arc<dyn PositionedFile>> {
        Vec::new()
    }

    /// The output as one file, which all tasks of the job write in place, each in a range of its own. From this call on
    /// nothing can be written to the task itself, except by a part, whose written bytes are its result.
    ///
    /// # Errors
    /// [`TaskFailure`] if the job was submitted without a file or descriptor for its output.
    fn shared(&self) -> Result<Arc<dyn PositionedFile>, TaskFailure> {
        Err(TaskFailure::new(
            "the job has no place for an output that is written in place: ask for a file (-o)",
        ))
    }

    /// The output as one file that the handler writes in place, for an output of `bytes` bytes, which are more than fit inline: as
    /// [`Self::shared`], and a job whose task asks for room only when it needs it asks for it now. There may be no room for more
    /// than `bytes`. Of a job that is done in parts, the parts and
    /// the merge have none of their own.
    ///
    /// # Errors
    /// [`TaskFailure`]: there is no room, and what bound was met; or the task has written output already.
    fn long_output(&mut self, bytes: u64) -> Result<Arc<dyn PositionedFile>, TaskFailure> {
        let _ = bytes;
        self.shared()
    }

    /// How many contexts the job names.
    fn context_count(&self) -> usize {
        0
    }

    /// One of the contexts that the job names, counted from 0: what its connection registered once for all its jobs. The
    /// loader of the worker program has loaded it before the handler was called.
    ///
    /// # Errors
    /// [`TaskFailure`] if the job names fewer.
    fn context(&self, at: usize) -> Result<Arc<RegisteredContext>, TaskFailure> {
        Err(TaskFailure::new(format!(
            "the job names no context {at}: register one, and submit the job with it"
        )))
    }

    /// A handle of this task for reports, which code may keep that cannot borrow the task, and use from any thread.
    fn reporter(&self) -> TaskReporter {
        TaskReporter::silent()
    }

    /// Whether the task is to end: the job was cancelled, met a limit of time, or the service stops. A handler that calls
    /// this now and then, and returns any failure when it is true, keeps its worker from being killed.
    fn is_cancelled(&self) -> bool {
        false
    }

    /// Reports processes that the task has started and that cannot be ended, because they run as other users. They are told
    /// with the end of the job, and the worker leaves after the task.
    fn leave_behind(&mut self, pids: &[u32]) {
        let _ = pids;
    }

    /// How long the task may take to end from the moment when it is to end (`cancel_grace_ms` of its kind).
    fn grace(&self) -> Duration {
        Duration::ZERO
    }
}

/// A file of a task. Its errors are [`FileError`]s: they name the file and become a [`TaskFailure`] with the same text.
pub trait PositionedFile: FileExt + AsFd + Send + Sync {
    /// Its name for the job.
    fn name(&self) -> &str;
    /// Whether the job reads or writes it.
    fn way(&self) -> Way;
    /// Its length in bytes at the time when the task asked for it by name; 0 if the task did not.
    fn length(&self) -> u64;
    /// Sets the length of a file that the job writes (ftruncate): it is cut, or extended by zeroes that take no space.
    ///
    /// # Errors
    /// The job reads this file and must not write it, there is no space, or the length is above the limit.
    fn set_length(&self, bytes: u64) -> io::Result<()>;
}

/// An error of a file of the task, with a text that names the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError(String);

impl FileError {
    /// An I/O error of this kind with this text.
    pub fn of_kind(kind: io::ErrorKind, text: impl Into<String>) -> io::Error {
        io::Error::new(kind, Self(text.into()))
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for FileError {}
