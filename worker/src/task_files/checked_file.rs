//! One file of a task: what it is, what it looked like first, and what went wrong with it.
//!
//! Reads and writes go by position and are never mapped: a file that shrinks under a reader gives a short read, and
//! no signal. That it changed is told by its length and by when it was written last, by a clock that ticks every few
//! milliseconds: a change within a tick of the first look that keeps the length is not seen. A new name or other rights
//! are no change.

use std::fs::{File, FileType, Metadata};
use std::io::{self, ErrorKind, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::sync::OnceLock;

use bulkhead_jobs::{FileError, PositionedFile, TaskFailure};
use bulkhead_proto::file::Way;
use bulkhead_proto::worker::stage::Seen;
use bulkhead_sys::memfd;
use bulkhead_sys::open_flags::is_appending;

/// A file, and what is known of it.
#[derive(Debug)]
pub(crate) struct CheckedFile {
    name: String,
    way: Way,
    file: File,
    /// Longest that it may become, in bytes.
    room: Option<u64>,
    seen: OnceLock<Seen>,
    /// The first write that failed.
    failure: OnceLock<String>,
}

impl CheckedFile {
    pub(crate) fn new(name: &str, way: Way, file: File) -> Self {
        let (seen, failure) = (OnceLock::new(), OnceLock::new());
        Self { name: name.to_owned(), way, file, room: None, seen, failure }
    }

    /// The same with a limit to its length.
    pub(crate) fn with_room(self, bytes: u64) -> Self {
        Self { room: Some(bytes), ..self }
    }

    /// What it looked like at the first look.
    ///
    /// # Errors
    /// [`TaskFailure`] if it is no file that can be read or written at any place: what it is, and what to do.
    pub(crate) fn look(&self) -> Result<&Seen, TaskFailure> {
        if let Some(seen) = self.seen.get() {
            return Ok(seen);
        }
        let seen = self.stat()?;
        if self.way == Way::Out && is_appending(self.file.as_fd()).unwrap_or(false) {
            return Err(self.failed(
                "is open for appending, so that nothing can be written in its place: open it without",
            ));
        }
        Ok(self.seen.get_or_init(|| seen))
    }

    /// Holds it to what an earlier task of the job saw.
    pub(crate) fn expect(&self, before: &Seen) -> Result<(), TaskFailure> {
        let seen = self.look()?;
        if seen == before { Ok(()) } else { Err(self.changed(before, seen)) }
    }

    /// Bytes in it now.
    pub(crate) fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Freezes it for ever, unless an earlier task did, and gives its length.
    pub(crate) fn seal(&self) -> io::Result<u64> {
        match memfd::sealed_size(self.as_fd())? {
            Some(bytes) => Ok(bytes),
            None => memfd::seal_output(self.as_fd()),
        }
    }

    /// Whether an earlier task has sealed it.
    pub(crate) fn is_sealed(&self) -> bool {
        memfd::sealed_size(self.as_fd()).is_ok_and(|size| size.is_some())
    }

    /// What became of it since the first look.
    pub(crate) fn fault(&self) -> Option<TaskFailure> {
        if let Some(failure) = self.failure.get() {
            return Some(TaskFailure::new(failure.clone()));
        }
        let before = self.seen.get().filter(|_| self.way == Way::In)?;
        match self.stat() {
            Ok(now) if now == *before => None,
            Ok(now) => Some(self.changed(before, &now)),
            Err(failure) => Some(failure),
        }
    }

    fn stat(&self) -> Result<Seen, TaskFailure> {
        let stat = self.file.metadata();
        let stat = stat.map_err(|error| self.failed(&format!("cannot be looked at: {error}")))?;
        if !stat.is_file() {
            return Err(self.failed(&self.no_file(stat.file_type())));
        }
        Ok(self.seen_in(&stat))
    }

    fn seen_in(&self, stat: &Metadata) -> Seen {
        Seen { name: self.name.clone(), length: stat.len(), modified: (stat.mtime(), stat.mtime_nsec()) }
    }

    /// What it is instead, and what to do.
    fn no_file(&self, what: FileType) -> String {
        let (what, more) = if what.is_dir() {
            ("directory", "")
        } else if what.is_fifo() {
            ("pipe", ", in which nothing has a place; copy what comes through it into a file first")
        } else if what.is_socket() {
            ("socket", ", in which nothing has a place; copy what comes through it into a file first")
        } else if self.file.is_terminal() {
            ("terminal", "; redirect it")
        } else if what.is_block_device() {
            ("block device", "; copy what is wanted of it into a file first")
        } else {
            ("device", ", in which nothing has a place")
        };
        format!("is a {what}{more}: give a regular file")
    }

    fn changed(&self, before: &Seen, now: &Seen) -> TaskFailure {
        let how = match now.length {
            length if length == before.length => {
                "its bytes or its owner's marks are not those of before".to_owned()
            }
            length => format!("it had {} bytes and has {length}", before.length),
        };
        self.failed(&format!("changed while it was read, {how}: run it again on a file that nobody writes"))
    }

    fn failed(&self, what: &str) -> TaskFailure {
        TaskFailure::new(format!("file {:?} {what}", self.name))
    }

    /// A write that failed, in words that keep its meaning. It is not forgotten: the task fails with it even if its
    /// handler goes on as if nothing had happened.
    fn unwritten(&self, error: &io::Error) -> io::Error {
        let name = &self.name;
        let text = match error.kind() {
            ErrorKind::StorageFull => {
                format!(
                    "no space left where the output goes: file {name:?} has no room, free some or write elsewhere"
                )
            }
            ErrorKind::QuotaExceeded => format!(
                "the quota is used up where the output goes: file {name:?} has no room, free some or write elsewhere"
            ),
            ErrorKind::FileTooLarge => {
                format!("file {name:?} cannot become so long: its file system or RLIMIT_FSIZE forbids it")
            }
            _ => format!("file {name:?} cannot be written: {error}"),
        };
        drop(self.failure.set(text.clone()));
        FileError::of_kind(error.kind(), text)
    }

    /// Whether it may become so long.
    fn has_room(&self, bytes: Option<u64>) -> io::Result<()> {
        if self.way == Way::In {
            return Err(FileError::of_kind(
                ErrorKind::PermissionDenied,
                format!("file {:?} cannot be written: it is one that the job reads", self.name),
            ));
        }
        match self.room {
            Some(room) if bytes.is_none_or(|bytes| bytes > room) => {
                let text = format!(
                    "longer than the limit of {room} bytes for an output in memory: ask for a file (-o)"
                );
                drop(self.failure.set(text.clone()));
                Err(FileError::of_kind(ErrorKind::FileTooLarge, text))
            }
            _ => Ok(()),
        }
    }
}

impl FileExt for CheckedFile {
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        self.file.read_at(bytes, at).map_err(|error| {
            FileError::of_kind(error.kind(), format!("file {:?} cannot be read: {error}", self.name))
        })
    }

    fn read_exact_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        let mut read = 0;
        while read < bytes.len() {
            match self.read_at(&mut bytes[read..], at + read as u64) {
                Ok(0) => {
                    let (end, missing) = (at + read as u64, bytes.len() - read);
                    let text = format!("file {:?} ends at byte {end}, {missing} bytes early", self.name);
                    return Err(FileError::of_kind(ErrorKind::UnexpectedEof, text));
                }
                Ok(count) => read += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        self.has_room(at.checked_add(bytes.len() as u64))?;
        match self.file.write_at(bytes, at) {
            // No failure: it is tried again.
            Err(error) if error.kind() != ErrorKind::Interrupted => Err(self.unwritten(&error)),
            written => written,
        }
    }
}

impl AsFd for CheckedFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl PositionedFile for CheckedFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn way(&self) -> Way {
        self.way
    }

    fn length(&self) -> u64 {
        self.seen.get().map_or(0, |seen| seen.length)
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.has_room(Some(bytes))?;
        self.file.set_len(bytes).map_err(|error| self.unwritten(&error))
    }
}
