//! Files that go with a job: what is too long to travel inline, as open descriptors.
//!
//! The daemon hands them to the worker that runs the job, and never opens a path that a client names. A file that is to
//! be read should be a plain one: pipes and devices are copied first ([`crate::input_file`]). One that is to be written
//! should have no name until it is whole ([`crate::AtomicFile`]).

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use bulkhead_proto::file::{FileUse, Way};

/// An open file that goes with a job, under the name that the job knows it by.
///
/// A clone is the same open file. It is closed here once the job was accepted and nobody else has a clone of it.
#[derive(Clone, Debug)]
pub struct JobFile {
    /// What the job calls it: 1 to 64 of A-Z, a-z, 0-9 and _, not a digit first.
    pub name: String,
    /// Whether the job reads or writes it. It must be open for that.
    pub way: Way,
    /// The file. Its offset means nothing to built-in kinds: they read and write by position.
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

    /// Opens a plain file for the job to read.
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
