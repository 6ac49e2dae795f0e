//! What the code of a kind sees of the task that it runs: output, files, and ways to tell how it is going.
//!
//! Traits alone: the worker runtime implements them over real descriptors, a test over memory. Files are read and
//! written by position, so that two tasks that share one never move each other's place.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bulkhead_proto::file::Way;
use bulkhead_proto::log::LogStream;

use crate::TaskFailure;

/// The task that a handler runs. What is written to it is its output. What it tells survives its worker, whatever
/// ends that, and is shown with the death.
pub trait TaskContext: io::Write {
    /// "So many parts are done", of `total`, or of 0 when it cannot tell; the unit is the task's own. Each call is
    /// progress, also one with the same numbers, and a limit on time without progress begins anew. Costs less than
    /// 0.1 us: no system call, no allocation.
    fn progress(&mut self, done: u64, total: u64);
    /// Leaves words, in place of those before: what it is about to do, for whoever asks why it died. Cut after
    /// `bulkhead_proto::limits::LAST_WORDS_MAX_BYTES`. It is no progress, and as cheap.
    fn say(&mut self, words: &str);
    /// "About to die": stamps the moment, so that the time until somebody noticed can be told.
    fn last_breath(&mut self);

    /// Adds to the log of the job, which `bulkhead logs` shows while it runs and after; one or two system calls. For jobs of
    /// kinds that keep one (`logs = true` in `[kinds.NAME]`); those of others drop it.
    fn log(&mut self, stream: LogStream, bytes: &[u8]) {
        let _ = (stream, bytes);
    }

    /// The file of this name that came with the job, looked at: it is a regular file or lies in memory, and can be
    /// read or written at any place. If a file that the job reads has changed when its handler has ended, the task
    /// fails and says so, whatever the handler made of it.
    ///
    /// # Errors
    /// [`TaskFailure`] if no such file came, or if it is something else, such as a pipe: what it is, and what to do.
    fn file(&self, name: &str) -> Result<Arc<dyn PositionedFile>, TaskFailure> {
        Err(TaskFailure::new(format!("the job comes without a file {name:?}: give it one")))
    }

    /// All files that came with the job, in the order of its submit, not looked at: they may be anything. For whoever
    /// hands their descriptors on.
    fn files(&self) -> Vec<Arc<dyn PositionedFile>> {
        Vec::new()
    }

    /// The output as one file that is written in place, by all tasks of the job: each writes a range of its own. From
    /// then on nothing can be written to the task itself, except by a part, for which that is its result.
    ///
    /// # Errors
    /// [`TaskFailure`] if the job was submitted without a place for an output of any length.
    fn shared(&self) -> Result<Arc<dyn PositionedFile>, TaskFailure> {
        Err(TaskFailure::new(
            "the job has no place for an output that is written in place: ask for a file (-o)",
        ))
    }

    /// Whether whoever asked for the job does not want it any more. A handler that looks now and then, and ends with
    /// any failure when it sees it, spares its worker from being killed.
    fn is_cancelled(&self) -> bool {
        false
    }
}

/// A file of a task. Its errors are [`FileError`]s: they name it and become a [`TaskFailure`] as they are.
pub trait PositionedFile: FileExt + AsFd + Send + Sync {
    /// What the job calls it.
    fn name(&self) -> &str;
    /// Which way.
    fn way(&self) -> Way;
    /// Its length in bytes when the task asked for it by name; 0 if it did not.
    fn length(&self) -> u64;
    /// Makes a file that the job writes exactly so many bytes long: cut off, or filled up with zeroes that take no room.
    ///
    /// # Errors
    /// It is one that the job reads, there is no room, or the length is above the limit.
    fn set_length(&self, bytes: u64) -> io::Result<()>;
}

/// What went wrong with a file of the task, in words that name the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError(String);

impl FileError {
    /// With this text, as an I/O error of this kind.
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
