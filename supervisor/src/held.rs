//! Outputs in descriptors: made for tasks, sealed when these are done, and handed to whoever asks for the job.
//!
//! Only what was sealed is held: a worker that keeps a descriptor cannot change a result behind its client's
//! back. How many are kept, and for how long, the core decides; how many may be open in all, the budget of
//! descriptors.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use bulkhead_proto::ids::OutputId;
use bulkhead_sys::memfd;

/// An output descriptor, counted wherever it is as long as it is open.
#[derive(Debug)]
pub(crate) struct OutputFile {
    descriptor: OwnedFd,
    open: Rc<Cell<usize>>,
}

impl AsFd for OutputFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        self.open.set(self.open.get() - 1);
    }
}

/// All held outputs, and the making of new ones.
#[derive(Debug)]
pub(crate) struct Held {
    outputs: BTreeMap<OutputId, Rc<OutputFile>>,
    last: u64,
    open: Rc<Cell<usize>>,
    open_max: usize,
}

impl Held {
    /// At most `open_max` output descriptors are ever open in this process.
    pub(crate) fn new(open_max: usize) -> Self {
        Self { outputs: BTreeMap::new(), last: 0, open: Rc::default(), open_max }
    }

    /// An empty file for a task to write.
    ///
    /// # Errors
    /// As many as may be are open; something is short.
    pub(crate) fn make(&self) -> io::Result<OutputFile> {
        if self.open.get() >= self.open_max {
            return Err(io::Error::other(format!("{} are open, the limit", self.open_max)));
        }
        let descriptor = memfd::output_file("bulkhead-output")?;
        self.open.set(self.open.get() + 1);
        Ok(OutputFile { descriptor, open: Rc::clone(&self.open) })
    }

    /// Seals what a worker wrote and takes it in. `None`: it is not as long as the worker says, or cannot be
    /// sealed because the worker still maps it or sealed its seals; it is not what it was said to be.
    ///
    /// # Errors
    /// The descriptor cannot be asked for its size.
    pub(crate) fn take(&mut self, file: OutputFile, bytes: u64) -> io::Result<Option<OutputId>> {
        match memfd::seal_output(file.as_fd()) {
            Ok(size) if size == bytes => {}
            Ok(_) => return Ok(None),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::PermissionDenied) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        }
        self.last += 1;
        let output = OutputId(self.last);
        self.outputs.insert(output, Rc::new(file));
        Ok(Some(output))
    }

    /// A held output, to be attached to a reply.
    pub(crate) fn get(&self, output: OutputId) -> Option<Rc<OutputFile>> {
        self.outputs.get(&output).cloned()
    }

    /// Lets go of one; replies on their way keep theirs.
    pub(crate) fn drop_output(&mut self, output: OutputId) {
        self.outputs.remove(&output);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_open_than_may_be_wherever_they_are() {
        let mut held = Held::new(2);
        let running = held.make().unwrap();
        let output = held.take(held.make().unwrap(), 0).unwrap().unwrap();
        let on_its_way = held.get(output).unwrap();
        assert!(held.make().unwrap_err().to_string().contains('2'));
        held.drop_output(output);
        assert!(held.make().is_err(), "a reply holds it still");
        drop(on_its_way);
        assert!(held.make().is_ok());
        drop(running);
        assert!(held.make().is_ok());
    }
}
