//! One file of a task: what it is, what its first `stat` returned, and the first write that failed.
//!
//! It is read and written by position (pread, pwrite) and never mapped: if the file shrinks, a read is short and no
//! signal is raised. A change is noticed by the length and the time of modification (mtime), whose clock ticks every
//! few milliseconds: a change that keeps the length within one tick of the first `stat` is not noticed. A new name or
//! new permissions are no change.

use std::fs::{File, FileType, Metadata};
use std::io::{self, ErrorKind, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::sync::OnceLock;

use bulkhead_proto::file::Way;
use bulkhead_proto::limits::{KIND_OUTPUT_KEY, OUTPUT_MAX_BYTES, OUTPUTS_KEY};
use bulkhead_proto::worker::stage::PlannedFile;
use bulkhead_sys::memfd;
use bulkhead_sys::open_flags::is_appending;
use bulkhead_task::{FileError, PositionedFile, TaskFailure};

/// A file with the results of its checks.
#[derive(Debug)]
pub(crate) struct CheckedFile {
    name: String,
    way: Way,
    file: File,
    /// The longest that it may become, in bytes; `None` if only its disk limits it.
    room: Option<u64>,
    seen: OnceLock<PlannedFile>,
    /// The first write that failed.
    failure: OnceLock<String>,
}

impl CheckedFile {
    pub(crate) fn new(name: &str, way: Way, file: File) -> Self {
        let (seen, failure) = (OnceLock::new(), OnceLock::new());
        Self { name: name.to_owned(), way, file, room: None, seen, failure }
    }

    /// The same with a limit on its length.
    pub(crate) fn with_room(self, bytes: u64) -> Self {
        Self { room: Some(bytes), ..self }
    }

    /// Whether it may become so long.
    pub(crate) fn takes(&self, bytes: u64) -> bool {
        self.room.is_none_or(|room| bytes <= room)
    }

    /// Checks that it is a regular file or memfd, once, and returns what the first `stat` returned.
    ///
    /// # Errors
    /// [`TaskFailure`] if it cannot be read or written at any position: what it is, and what to do.
    pub(crate) fn look(&self) -> Result<&PlannedFile, TaskFailure> {
        if let Some(seen) = self.seen.get() {
            return Ok(seen);
        }
        let seen = self.stat()?;
        if self.way == Way::Out && is_appending(self.file.as_fd()).unwrap_or(false) {
            return Err(self.failed(
                "is open for appending (O_APPEND), so it cannot be written at a position: open it without",
            ));
        }
        Ok(self.seen.get_or_init(|| seen))
    }

    /// Compares the file with what an earlier task of the job saw.
    pub(crate) fn expect(&self, before: &PlannedFile) -> Result<(), TaskFailure> {
        let seen = self.look()?;
        if seen == before { Ok(()) } else { Err(self.changed(before, seen)) }
    }

    /// Its current length in bytes.
    pub(crate) fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Seals it against changes, unless an earlier task did, and returns its length. One that is longer than there is room
    /// for is not sealed: no limit of file size stops code that writes to its descriptor.
    pub(crate) fn seal(&self) -> io::Result<u64> {
        self.has_room(Some(self.size()?))?;
        match memfd::sealed_size(self.as_fd())? {
            Some(bytes) => Ok(bytes),
            None => memfd::seal_output(self.as_fd()),
        }
    }

    /// Whether an earlier task has sealed it.
    pub(crate) fn is_sealed(&self) -> bool {
        memfd::sealed_size(self.as_fd()).is_ok_and(|size| size.is_some())
    }

    /// The first failed write, a length beyond its limit, or a change since the first check.
    pub(crate) fn fault(&self) -> Option<TaskFailure> {
        if self.room.is_some()
            && let Err(error) = self.size().and_then(|bytes| self.has_room(Some(bytes)))
        {
            return Some(TaskFailure::from(error));
        }
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

    fn stat(&self) -> Result<PlannedFile, TaskFailure> {
        let stat = self.file.metadata();
        let stat = stat.map_err(|error| self.failed(&format!("cannot be examined (fstat): {error}")))?;
        if !stat.is_file() {
            return Err(self.failed(&self.no_file(stat.file_type())));
        }
        Ok(self.seen_in(&stat))
    }

    fn seen_in(&self, stat: &Metadata) -> PlannedFile {
        PlannedFile {
            name: self.name.clone(),
            length: stat.len(),
            modified: (stat.mtime(), stat.mtime_nsec()),
        }
    }

    /// What the file is instead of a regular file, and what to do.
    fn no_file(&self, what: FileType) -> String {
        let (what, more) = if what.is_dir() {
            ("directory", "")
        } else if what.is_fifo() {
            ("pipe", ", which cannot be read at a position; copy its data into a file first")
        } else if what.is_socket() {
            ("socket", ", which cannot be read at a position; copy its data into a file first")
        } else if self.file.is_terminal() {
            ("terminal", "; redirect it")
        } else if what.is_block_device() {
            ("block device", "; copy the data that is needed into a file first")
        } else {
            ("device", ", which cannot be read at a position")
        };
        format!("is a {what}{more}: give a regular file")
    }

    fn changed(&self, before: &PlannedFile, now: &PlannedFile) -> TaskFailure {
        let how = match now.length {
            length if length == before.length => "it has the same length, but was modified".to_owned(),
            length => format!("it had {} bytes and has {length}", before.length),
        };
        self.failed(&format!("changed while it was read, {how}: run it again on a file that nobody writes"))
    }

    fn failed(&self, what: &str) -> TaskFailure {
        TaskFailure::new(format!("file {:?} {what}", self.name))
    }

    /// The error of a failed write, in words that name the file. It is kept: the task fails with it even if its handler
    /// ignores the error.
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
                format!("file {name:?} cannot become this long: its file system or RLIMIT_FSIZE forbids it")
            }
            _ => format!("file {name:?} cannot be written: {error}"),
        };
        drop(self.failure.set(text.clone()));
        FileError::of_kind(error.kind(), text)
    }

    /// Checks that the job may write it, and that this length is within its limit.
    fn has_room(&self, bytes: Option<u64>) -> io::Result<()> {
        if self.way == Way::In {
            return Err(FileError::of_kind(
                ErrorKind::PermissionDenied,
                format!("file {:?} cannot be written: it is one that the job reads", self.name),
            ));
        }
        match self.room {
            Some(room) if bytes.is_none_or(|bytes| bytes > room) => {
                let text = if room < OUTPUT_MAX_BYTES {
                    format!(
                        "longer than the {room} bytes that there is room for in memory ({OUTPUTS_KEY}, or \
                         {KIND_OUTPUT_KEY} of the kind, in the daemon's configuration): ask for a file (-o), or fetch \
                         or forget other results first"
                    )
                } else {
                    format!(
                        "longer than the limit of {room} bytes for an output in memory: ask for a file (-o)"
                    )
                };
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
            // An interrupted write is tried again by its caller and is no failure.
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
