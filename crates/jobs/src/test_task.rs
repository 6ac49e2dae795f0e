//! A task for tests: it keeps its output and its files in memory, and can refuse writes after a number of bytes.
//!
//! It exists only in test builds. Used by the tests of every kind.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, PoisonError, RwLock};

use bulkhead_proto::file::Way;
use bulkhead_task::{PositionedFile, TaskContext, TaskFailure};

use crate::Handler;

/// The bytes of a file in memory.
#[derive(Default)]
pub(crate) struct TestFile(RwLock<Vec<u8>>);

impl TestFile {
    /// A file with these bytes.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(RwLock::new(bytes.to_vec()))
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn len(&self) -> u64 {
        self.bytes().len() as u64
    }
}

impl FileExt for TestFile {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let bytes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let rest = &bytes[bytes.len().min(at as usize)..];
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, from: &[u8], at: u64) -> io::Result<usize> {
        let mut bytes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let (at, end) = (at as usize, at as usize + from.len());
        let longer = bytes.len().max(end);
        bytes.resize(longer, 0);
        bytes[at..end].copy_from_slice(from);
        Ok(from.len())
    }
}

/// A file of the test task.
pub(crate) struct NamedMemoryFile {
    name: String,
    way: Way,
    memory: TestFile,
}

impl FileExt for NamedMemoryFile {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        self.memory.read_at(into, at)
    }

    fn write_at(&self, from: &[u8], at: u64) -> io::Result<usize> {
        self.memory.write_at(from, at)
    }
}

impl AsFd for NamedMemoryFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        unreachable!("it lies in memory")
    }
}

impl PositionedFile for NamedMemoryFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn way(&self) -> Way {
        self.way
    }

    fn length(&self) -> u64 {
        self.memory.len()
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.memory.0.write().unwrap_or_else(PoisonError::into_inner).resize(bytes as usize, 0);
        Ok(())
    }
}

/// A task without a worker.
#[derive(Default)]
pub(crate) struct TestTask {
    /// What was written.
    pub(crate) output: Vec<u8>,
    /// How often `last_breath` was called.
    pub(crate) breaths: usize,
    /// The last progress that was reported.
    pub(crate) progress: Option<(u64, u64)>,
    /// All last words.
    pub(crate) said: Vec<String>,
    /// Bytes after which writing fails.
    pub(crate) room: Option<usize>,
    pub(crate) files: Vec<Arc<NamedMemoryFile>>,
    pub(crate) shared: Option<Arc<NamedMemoryFile>>,
}

impl TestTask {
    pub(crate) fn with_file(mut self, name: &str, way: Way, memory: TestFile) -> Self {
        self.files.push(Arc::new(NamedMemoryFile { name: name.to_owned(), way, memory }));
        self
    }

    pub(crate) fn with_shared(mut self, memory: TestFile) -> Self {
        self.shared = Some(Arc::new(NamedMemoryFile { name: "out".to_owned(), way: Way::Out, memory }));
        self
    }

    /// What was written in place.
    pub(crate) fn shared_bytes(&self) -> Vec<u8> {
        self.shared.as_ref().map_or_else(Vec::new, |file| file.memory.bytes())
    }
}

/// A task with the default methods of the trait.
struct DefaultTask;

impl io::Write for DefaultTask {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TaskContext for DefaultTask {
    fn progress(&mut self, _: u64, _: u64) {}
    fn say(&mut self, _: &str) {}
    fn last_breath(&mut self) {}
}

impl io::Write for TestTask {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.room {
            Some(room) if self.output.len() + bytes.len() > room => Err(io::Error::other("no room")),
            _ => {
                self.output.extend_from_slice(bytes);
                Ok(bytes.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TaskContext for TestTask {
    fn progress(&mut self, done: u64, total: u64) {
        self.progress = Some((done, total));
    }

    fn say(&mut self, words: &str) {
        self.said.push(words.to_owned());
    }

    fn last_breath(&mut self) {
        self.breaths += 1;
    }

    fn file(&self, name: &str) -> Result<Arc<dyn PositionedFile>, TaskFailure> {
        let found = self.files.iter().find(|file| file.name == name);
        found.map_or_else(|| DefaultTask.file(name), |file| Ok(Arc::clone(file) as Arc<dyn PositionedFile>))
    }

    fn shared(&self) -> Result<Arc<dyn PositionedFile>, TaskFailure> {
        self.shared
            .as_ref()
            .map_or_else(|| DefaultTask.shared(), |file| Ok(Arc::clone(file) as Arc<dyn PositionedFile>))
    }
}

/// Runs a handler on text and gives its output as text.
pub(crate) fn output_of(handler: Handler, input: &str) -> Result<String, TaskFailure> {
    let mut task = TestTask::default();
    handler(input.as_bytes(), &mut task)?;
    Ok(String::from_utf8(task.output).unwrap())
}

/// Runs a handler that must fail and gives what it said.
pub(crate) fn failure_of(handler: Handler, input: &str) -> String {
    output_of(handler, input).unwrap_err().to_string()
}
