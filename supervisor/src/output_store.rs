//! Outputs in descriptors: made for tasks, sealed by their workers, and handed to whoever asks for the job.
//!
//! Only what was sealed is held: a worker that keeps a descriptor cannot change a result behind its client's
//! back. How many are kept, and for how long, the core decides; how many may be open in all, the budget of
//! descriptors. The outputs that the tasks of one job share are kept here as well, and count as they do. What is large
//! is closed by the disposal: to give its memory back takes the kernel tens of milliseconds, which the loop has not.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;

use bulkhead_proto::ids::{LogId, OutputId, ScratchId};
use bulkhead_proto::log::LOG_BYTES;
use bulkhead_proto::worker::stage::COUNT_BYTES;
use bulkhead_sys::memfd;

use crate::background_closer::{BackgroundCloser, CloseOwner};

/// What holds more than this is closed by the disposal, in bytes: giving back a MiB takes the kernel some 65 us.
const LARGE_BYTES: u64 = 4 << 20;

/// An output descriptor, counted wherever it is as long as it is open.
#[derive(Debug)]
pub(crate) struct OutputFile {
    /// The descriptor, and its place among those that may be open, which is free again once it is closed.
    inner: Option<(OwnedFd, Arc<()>)>,
    closer: BackgroundCloser,
}

impl AsFd for OutputFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_ref().expect("only dropping it takes it out").0.as_fd()
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take()
            && memfd::memory_of(inner.0.as_fd()).is_ok_and(|bytes| bytes > LARGE_BYTES)
        {
            self.closer.close(CloseOwner::Outputs, inner);
        }
    }
}

/// All held outputs, and the making of new ones.
#[derive(Debug)]
pub(crate) struct OutputStore {
    outputs: BTreeMap<OutputId, Rc<OutputFile>>,
    scratches: BTreeMap<ScratchId, OutputFile>,
    logs: BTreeMap<LogId, Rc<OutputFile>>,
    last: u64,
    /// Whoever holds an open one holds this as well.
    open: Arc<()>,
    open_max: usize,
    closer: BackgroundCloser,
}

impl OutputStore {
    /// At most `open_max` output descriptors are ever open in this process.
    pub(crate) fn new(open_max: usize, closer: BackgroundCloser) -> Self {
        let (outputs, scratches) = (BTreeMap::new(), BTreeMap::new());
        Self { outputs, scratches, logs: BTreeMap::new(), last: 0, open: Arc::new(()), open_max, closer }
    }

    /// How many are open.
    pub(crate) fn open(&self) -> usize {
        Arc::strong_count(&self.open) - 1
    }

    /// An empty file for a task to write.
    ///
    /// # Errors
    /// As many as may be are open; something is short.
    pub(crate) fn make(&self) -> io::Result<OutputFile> {
        self.count(|| memfd::output_file("bulkhead-output"))
    }

    /// A file that holds these bytes and cannot change.
    ///
    /// # Errors
    /// As [`Self::make`].
    pub(crate) fn fill(&self, bytes: &[u8]) -> io::Result<OutputFile> {
        self.count(|| memfd::filled("bulkhead-results", bytes))
    }

    /// Makes an output for all tasks of a job, unless it is there.
    ///
    /// # Errors
    /// As [`Self::make`].
    pub(crate) fn share(&mut self, scratch: ScratchId) -> io::Result<()> {
        if !self.scratches.contains_key(&scratch) {
            let made = self.make()?;
            self.scratches.insert(scratch, made);
        }
        Ok(())
    }

    fn count(&self, make: impl FnOnce() -> io::Result<OwnedFd>) -> io::Result<OutputFile> {
        if self.open() >= self.open_max {
            return Err(io::Error::other(format!(
                "{} are open, the limit; take results, or raise the limit of open files",
                self.open_max
            )));
        }
        let inner = Some((make()?, Arc::clone(&self.open)));
        Ok(OutputFile { inner, closer: self.closer.clone() })
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

    /// As [`Self::take`] of the output that the tasks of a job share; if it is taken, it is shared no more.
    ///
    /// # Errors
    /// The descriptor cannot be asked.
    pub(crate) fn take_scratch(&mut self, scratch: ScratchId, bytes: u64) -> io::Result<Option<OutputId>> {
        let is_sealed = match self.scratches.get(&scratch) {
            Some(file) => memfd::sealed_size(file.as_fd())? == Some(bytes),
            None => false,
        };
        match self.scratches.remove(&scratch) {
            Some(file) if is_sealed => self.take(file, bytes),
            Some(file) => {
                self.scratches.insert(scratch, file);
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// The output that the tasks of a job share, if it was made.
    pub(crate) fn scratch(&self, scratch: ScratchId) -> Option<&OutputFile> {
        self.scratches.get(&scratch)
    }

    /// Lets go of what the tasks of a job shared.
    pub(crate) fn drop_scratch(&mut self, scratch: ScratchId) {
        self.scratches.remove(&scratch);
    }

    /// A held output, to be looked at.
    pub(crate) fn look(&self, output: OutputId) -> Option<&OutputFile> {
        self.outputs.get(&output).map(|store| &**store)
    }

    /// The first bytes of a held output, if it has so many.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn head(&self, output: OutputId) -> io::Result<Option<[u8; COUNT_BYTES]>> {
        let mut head = [0; COUNT_BYTES];
        let Some(file) = self.look(output) else { return Ok(None) };
        let count = memfd::read_at(file.as_fd(), &mut head, 0)?;
        Ok((count == COUNT_BYTES).then_some(head))
    }

    /// Makes the log of an attempt; gives what its worker writes, and keeps what can only be read.
    ///
    /// # Errors
    /// As [`Self::make`].
    pub(crate) fn begin_log(&mut self, log: LogId) -> io::Result<OwnedFd> {
        let mut writer = None;
        let reader = self.count(|| {
            let (ours, reader) = memfd::log_file("bulkhead-log", LOG_BYTES)?;
            writer = Some(ours);
            Ok(reader)
        })?;
        self.logs.insert(log, Rc::new(reader));
        writer.ok_or_else(|| io::Error::other("no log was made"))
    }

    /// A log, to be attached to a reply.
    pub(crate) fn log(&self, log: LogId) -> Option<Rc<OutputFile>> {
        self.logs.get(&log).cloned()
    }

    /// Lets go of a log; replies on their way keep theirs.
    pub(crate) fn drop_log(&mut self, log: LogId) {
        self.logs.remove(&log);
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
    use std::fs::File;
    use std::io::Write;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::{Duration, Instant};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn only_what_is_sealed_and_as_long_as_said_is_taken() {
        let mut store = OutputStore::new(8, BackgroundCloser::default());
        assert_eq!(store.take(store.make().unwrap(), 0).unwrap(), None);
        let sealed = store.make().unwrap();
        memfd::seal_output(sealed.as_fd()).unwrap();
        assert_eq!(store.take(sealed, 1).unwrap(), None);
    }

    #[test]
    fn no_more_are_open_than_may_be_wherever_they_are() {
        let mut store = OutputStore::new(2, BackgroundCloser::default());
        let running = store.make().unwrap();
        let written = store.make().unwrap();
        memfd::seal_output(written.as_fd()).unwrap();
        let output = store.take(written, 0).unwrap().unwrap();
        let on_its_way = store.get(output).unwrap();
        assert!(store.make().unwrap_err().to_string().contains('2'));
        store.drop_output(output);
        assert!(store.make().is_err(), "a reply holds it still");
        drop(on_its_way);
        assert!(store.make().is_ok());
        drop(running);
        assert!(store.make().is_ok());
    }

    #[test]
    fn a_large_output_is_not_closed_by_whoever_lets_go_of_it() {
        let closer = BackgroundCloser::default();
        let mut store = OutputStore::new(4, closer.clone());
        let (told, closed) = channel();
        let (go, waits) = channel::<()>();
        // Whoever closes outputs is kept busy with this one, so that what waits behind it can be counted.
        closer.close(CloseOwner::Outputs, Blocker(told, waits));
        closed.recv_timeout(PATIENCE).unwrap();
        for (bytes, waiting) in [(1, 0), (LARGE_BYTES as usize + 1, 1)] {
            let output = store.make().unwrap();
            let mut file = File::from(output.as_fd().try_clone_to_owned().unwrap());
            file.write_all(&vec![1; bytes]).unwrap();
            drop(file);
            memfd::seal_output(output.as_fd()).unwrap();
            let output = store.take(output, bytes as u64).unwrap().unwrap();
            store.drop_output(output);
            assert_eq!((closer.waiting(CloseOwner::Outputs), store.open()), (waiting, waiting), "{bytes}");
        }
        drop(go);
        let begun = Instant::now();
        while store.open() > 0 {
            assert!(begun.elapsed() < PATIENCE, "it is never closed");
            std::thread::yield_now();
        }
    }

    /// Its drop says so and waits until it is let go.
    struct Blocker(Sender<()>, Receiver<()>);

    impl Drop for Blocker {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
            let _gone = self.1.recv();
        }
    }
}
