//! Files of a job, passed to the daemon as open descriptors.
//!
//! The daemon hands the descriptors to the worker that runs the job. It never opens a path that a client names and
//! never copies the data. A file that the job reads should be a regular file; pipes and devices are copied into one
//! first ([`crate::input_file`]). A file that the job writes should have no name until it is complete
//! ([`crate::AtomicFile`]).

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use bulkhead_proto::file::{FileUse, Way};

/// An open file for a job, under the name by which the job asks for it.
///
/// A clone shares the open file. This process closes it when the job was accepted and every clone is dropped.
#[derive(Clone, Debug)]
pub struct JobFile {
    /// Its name for the job: 1 to 64 characters of A-Z, a-z, 0-9 and _, not beginning with a digit.
    pub name: String,
    /// Whether the job reads or writes it. The file must be open in that mode.
    pub way: Way,
    /// The file. The built-in kinds ignore its offset: they use pread and pwrite.
    pub file: Arc<File>,
}

impl JobFile {
    /// A file that the job reads.
    pub fn read(name: impl Into<String>, file: impl Into<Arc<File>>) -> Self {
        Self { name: name.into(), way: Way::In, file: file.into() }
    }

    /// A file that the job writes, from its beginning.
    pub fn written(name: impl Into<String>, file: impl Into<Arc<File>>) -> Self {
        Self { name: name.into(), way: Way::Out, file: file.into() }
    }

    /// An empty folder, in which the program of an `exec` job makes a file.
    pub fn folder(name: impl Into<String>, folder: impl Into<Arc<File>>) -> Self {
        Self { name: name.into(), way: Way::Folder, file: folder.into() }
    }

    /// Opens a regular file for the job to read.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(name: impl Into<String>, path: &Path) -> std::io::Result<Self> {
        Ok(Self::read(name, File::open(path)?))
    }

    pub(crate) fn to_use(&self) -> FileUse {
        FileUse::new(&self.name, self.way)
    }
}
