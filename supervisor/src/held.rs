//! Outputs in descriptors: made for tasks, sealed by their workers, and handed to whoever asks for the job.
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
            return Err(io::Error::other(format!(
                "{} are open, the limit; take results, or raise the limit of open files",
                self.open_max
            )));
        }
        let descriptor = memfd::output_file("bulkhead-output")?;
        self.open.set(self.open.get() + 1);
        Ok(OutputFile { descriptor, open: Rc::clone(&self.open) })
    }

    /// Takes in what a worker wrote and sealed. `None`: it is not sealed, or not as long as the worker says. Sealing
    /// is not done here: the kernel may wait for whoever uses the file, and nobody else is waited for here.
    ///
    /// # Errors
    /// The descriptor cannot be asked.
    pub(crate) fn take(&mut self, file: OutputFile, bytes: u64) -> io::Result<Option<OutputId>> {
        if memfd::sealed_size(file.as_fd())? != Some(bytes) {
            return Ok(None);
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
    fn only_what_is_sealed_and_as_long_as_said_is_taken() {
        let mut held = Held::new(8);
        assert_eq!(held.take(held.make().unwrap(), 0).unwrap(), None);
        let sealed = held.make().unwrap();
        memfd::seal_output(sealed.as_fd()).unwrap();
        assert_eq!(held.take(sealed, 1).unwrap(), None);
    }

    #[test]
    fn no_more_are_open_than_may_be_wherever_they_are() {
        let mut held = Held::new(2);
        let running = held.make().unwrap();
        let written = held.make().unwrap();
        memfd::seal_output(written.as_fd()).unwrap();
        let output = held.take(written, 0).unwrap().unwrap();
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
