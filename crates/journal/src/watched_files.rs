//! The files of the database, watched by their paths: SQLite notices neither that they were removed or replaced, nor that they were
//! truncated, and goes on to write into files that nobody will ever open again.
//!
//! Looks at paths with lstat(2) alone. A second open of these files in this process would drop SQLite's locks on its close. Driven by
//! `writer.rs`: after the first commit of a connection, before and after each further commit, and after each copy of the log.

use std::path::{Path, PathBuf};

use bulkhead_sys::file_system::{FileSeen, look_at_file};

use crate::place::JournalPlace;

/// The files as they were last seen.
#[derive(Debug)]
pub(crate) struct WatchedFiles {
    database: WatchedFile,
    log: WatchedFile,
}

#[derive(Debug)]
struct WatchedFile {
    path: PathBuf,
    seen: FileSeen,
}

impl WatchedFiles {
    /// Watches the files as they are.
    ///
    /// # Errors
    /// What is wrong, as a text for people.
    pub(crate) fn new(place: &JournalPlace) -> Result<Self, String> {
        Ok(Self { database: WatchedFile::new(&place.database)?, log: WatchedFile::new(&place.log)? })
    }

    /// What identifies the database.
    pub(crate) fn database(&self) -> FileSeen {
        self.database.seen
    }

    /// Looks at both files: they are the same ones, have one name each, and are not shorter than before. The log has at least
    /// these bytes.
    ///
    /// # Errors
    /// What is wrong, as a text for people.
    pub(crate) fn check(&mut self, log_bytes: u64) -> Result<(), String> {
        self.database.check(0)?;
        self.log.check(log_bytes)
    }

    /// The log was copied into the database, which may have become shorter by that.
    ///
    /// # Errors
    /// What is wrong, as a text for people.
    pub(crate) fn log_was_copied(&mut self) -> Result<(), String> {
        self.database.may_shrink()
    }

    /// The same, and the log was emptied.
    ///
    /// # Errors
    /// What is wrong, as a text for people.
    pub(crate) fn log_was_emptied(&mut self) -> Result<(), String> {
        self.log.may_shrink()?;
        self.database.may_shrink()
    }
}

impl WatchedFile {
    /// It may have become shorter since the last look.
    fn may_shrink(&mut self) -> Result<(), String> {
        self.seen.bytes = 0;
        self.check(0)
    }

    fn new(path: &Path) -> Result<Self, String> {
        Ok(Self { path: path.to_owned(), seen: look(path)? })
    }

    fn check(&mut self, bytes_min: u64) -> Result<(), String> {
        let (path, now) = (self.path.display(), look(&self.path)?);
        if !is_same(&now, &self.seen) {
            return Err(format!("{path} was replaced by another file"));
        }
        let least = self.seen.bytes.max(bytes_min);
        if now.bytes < least {
            return Err(format!("{path} was cut to {} bytes, it had {least}", now.bytes));
        }
        self.seen = now;
        Ok(())
    }
}

/// Whether two looks saw one file.
pub(crate) fn is_same(one: &FileSeen, other: &FileSeen) -> bool {
    (one.device, one.inode) == (other.device, other.inode)
}

/// Looks at a file that has to be there, under this name alone.
///
/// # Errors
/// What is wrong, as a text for people.
pub(crate) fn look(path: &Path) -> Result<FileSeen, String> {
    match look_at_file(path) {
        Err(error) => Err(format!("cannot look at {}: {error}", path.display())),
        Ok(None) => Err(format!("{} was removed", path.display())),
        Ok(Some(seen)) if seen.links != 1 => Err(format!("{} has {} names", path.display(), seen.links)),
        Ok(Some(seen)) => Ok(seen),
    }
}
