//! The store of output files: memfds that are created for tasks, sealed by their workers and attached to replies.
//!
//! Only sealed files are stored, so a worker that keeps a descriptor cannot change a result afterwards. The core
//! decides how many results are kept and for how long; the descriptor budget limits how many files are open. Shared
//! outputs of jobs in parts and logs of attempts are stored here too and count against the same budget. The
//! background closer closes large files, because freeing their memory takes the kernel tens of milliseconds. Driven
//! by `perform.rs` and `worker_table.rs`. Results in arenas are held here under numbers of the same row (`result_arena.rs`).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bulkhead_core::event::Event;
use bulkhead_link::supervisor::{ArenaDescriptors, FreedBlocks};
use bulkhead_proto::ids::{LogId, OutputId, ScratchId, WorkerId};
use bulkhead_proto::log::LOG_BYTES;
use bulkhead_proto::worker::stage::COUNT_BYTES;
use bulkhead_sys::{clock, memfd};

use crate::background_closer::{BackgroundCloser, CloseOwner};
use crate::rate_limit::{self, LineAbout};
use crate::result_arena::{HeldBlock, WorkerArena};

/// Files with more memory than this are closed by the background closer, in bytes: to free 1 MiB takes the kernel 65
/// us.
const LARGE_BYTES: u64 = 4 << 20;

/// Outputs and logs that nothing holds any more, until the core is told.
type FreedFiles = Rc<RefCell<Vec<Event>>>;

/// Whoever has one holds the memory of an output or a log: the store, a reply that is not sent, one that is not read.
/// When the last one is dropped, the core is told that the file is freed.
#[derive(Debug)]
pub(crate) struct MemoryHold {
    /// What the core is told.
    freed: Event,
    /// What it is told before that, when the file is closed while its memory is held.
    closed: Event,
    list: FreedFiles,
}

impl Drop for MemoryHold {
    fn drop(&mut self) {
        self.list.borrow_mut().push(self.freed.clone());
    }
}

/// An output descriptor. It counts against the budget until it is closed, in whatever thread.
#[derive(Debug)]
pub(crate) struct OutputFile {
    /// The descriptor, and the count of open files that it holds up.
    inner: Option<(OwnedFd, Arc<()>)>,
    closer: BackgroundCloser,
    /// Set while the core counts it as an output or a log.
    hold: Option<Rc<MemoryHold>>,
}

impl OutputFile {
    /// The hold of its memory, for a copy of its descriptor that outlives it.
    pub(crate) fn hold(&self) -> Option<Rc<MemoryHold>> {
        self.hold.clone()
    }

    /// Gives the memory of these ranges back to the system, in the thread that closes large outputs. `idle` has those of earlier calls
    /// that are not given back yet.
    pub(crate) fn give_back(&self, idle: &IdleRanges, ranges: impl IntoIterator<Item = Range<u64>>) {
        let mut waiting = idle.lock();
        waiting.ranges.extend(ranges);
        if !waiting.is_queued {
            match self.as_fd().try_clone_to_owned() {
                Ok(file) => {
                    waiting.is_queued = true;
                    self.closer.close(CloseOwner::Outputs, IdleMemory { file, idle: idle.clone() });
                }
                Err(error) => note_memory_stays(&error),
            }
        }
    }
}

/// Ranges of a file whose memory is to be given back. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct IdleRanges(Arc<Mutex<WaitingRanges>>);

#[derive(Debug, Default)]
struct WaitingRanges {
    ranges: Vec<Range<u64>>,
    /// The closer has a descriptor of the file for them.
    is_queued: bool,
}

impl IdleRanges {
    /// No code panics while it holds this lock.
    fn lock(&self) -> MutexGuard<'_, WaitingRanges> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Its drop gives back what waits.
struct IdleMemory {
    file: OwnedFd,
    idle: IdleRanges,
}

impl Drop for IdleMemory {
    fn drop(&mut self) {
        let mut waiting = self.idle.lock();
        waiting.is_queued = false;
        let ranges = std::mem::take(&mut waiting.ranges);
        drop(waiting);
        if let Err(error) = memfd::give_back(self.file.as_fd(), &ranges) {
            note_memory_stays(&error);
        }
    }
}

fn note_memory_stays(error: &io::Error) {
    if rate_limit::may_log(LineAbout::Arenas, clock::monotonic_ns()) {
        log::warn!("memory of a dead worker's arena stays until its last block is freed error={error}");
    }
}

impl AsFd for OutputFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_ref().expect("only dropping it takes it out").0.as_fd()
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if let Some(hold) = self.hold.as_ref().filter(|hold| Rc::strong_count(hold) > 1) {
            hold.list.borrow_mut().push(hold.closed.clone());
        }
        if let Some(inner) = self.inner.take()
            && memfd::memory_of(inner.0.as_fd()).is_ok_and(|bytes| bytes > LARGE_BYTES)
        {
            self.closer.close(CloseOwner::Outputs, inner);
        }
    }
}

/// All stored files, and the only place that creates new ones.
#[derive(Debug)]
pub(crate) struct OutputStore {
    outputs: BTreeMap<OutputId, Rc<OutputFile>>,
    blocks: BTreeMap<OutputId, Rc<HeldBlock>>,
    scratches: BTreeMap<ScratchId, OutputFile>,
    logs: BTreeMap<LogId, Rc<OutputFile>>,
    last: u64,
    /// Each open file holds a clone, so the number of clones is the number of open files.
    open: Arc<()>,
    open_max: usize,
    freed: FreedFiles,
    closer: BackgroundCloser,
}

impl OutputStore {
    /// A store of which at most `open_max` descriptors are ever open.
    pub(crate) fn new(open_max: usize, closer: BackgroundCloser) -> Self {
        let (outputs, scratches) = (BTreeMap::new(), BTreeMap::new());
        let (blocks, logs, freed) = (BTreeMap::new(), BTreeMap::new(), FreedFiles::default());
        Self { outputs, blocks, scratches, logs, last: 0, open: Arc::new(()), open_max, freed, closer }
    }

    /// The same store, whose outputs are numbered from this number on.
    pub(crate) fn numbered_from(self, first: u64) -> Self {
        Self { last: first.saturating_sub(1), ..self }
    }

    /// The number that the next output gets.
    pub(crate) fn next_number(&self) -> u64 {
        self.last + 1
    }

    /// The number of open files.
    pub(crate) fn open(&self) -> usize {
        Arc::strong_count(&self.open) - 1
    }

    /// Creates an empty file for a task to write.
    ///
    /// # Errors
    /// As many files are open as are allowed; memory or descriptors are short.
    pub(crate) fn make(&self) -> io::Result<OutputFile> {
        self.count(|| memfd::output_file("bulkhead-output"))
    }

    /// Creates a file that holds these bytes and is sealed.
    ///
    /// # Errors
    /// As [`Self::make`].
    pub(crate) fn fill(&self, bytes: &[u8]) -> io::Result<OutputFile> {
        self.count(|| memfd::filled("bulkhead-results", bytes))
    }

    /// Creates the output that all tasks of a job share, unless it exists.
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
                "as many output files are open as allowed ({}): fetch results, or raise the limit of open files",
                self.open_max
            )));
        }
        let inner = Some((make()?, Arc::clone(&self.open)));
        Ok(OutputFile { inner, closer: self.closer.clone(), hold: None })
    }

    /// Adds the events of outputs and logs that were dropped and that no reply holds any more.
    pub(crate) fn tell_freed(&self, events: &mut Vec<Event>) {
        events.append(&mut self.freed.borrow_mut());
    }

    fn hold_of(&self, closed: Event, freed: Event) -> Option<Rc<MemoryHold>> {
        Some(Rc::new(MemoryHold { freed, closed, list: Rc::clone(&self.freed) }))
    }

    /// What a stored output counts, in bytes: its size or its memory, whichever is more. It is sealed, so it stays so.
    pub(crate) fn counted_bytes(&self, output: OutputId) -> u64 {
        let counted = self.look(output).map(|file| memfd::counted_bytes(file.as_fd()));
        counted.and_then(Result::ok).unwrap_or(0)
    }

    /// Stores a file that a worker wrote and sealed. Returns `None` if it is not sealed or its size is not `bytes`.
    /// The worker has to seal it, because F_ADD_SEALS can block while a process uses the file.
    ///
    /// # Errors
    /// fstat(2) or F_GET_SEALS failed.
    pub(crate) fn take(&mut self, mut file: OutputFile, bytes: u64) -> io::Result<Option<OutputId>> {
        if memfd::sealed_size(file.as_fd())? != Some(bytes) {
            return Ok(None);
        }
        self.last += 1;
        let output = OutputId(self.last);
        file.hold = self.hold_of(Event::OutputClosed { output }, Event::OutputFreed { output });
        self.outputs.insert(output, Rc::new(file));
        Ok(Some(output))
    }

    /// Makes an arena for a worker; gives the descriptors for it, which are to be closed once they are sent.
    ///
    /// # Errors
    /// As [`Self::make`].
    pub(crate) fn make_arena(&self, worker: WorkerId) -> io::Result<(Rc<WorkerArena>, [OwnedFd; 2])> {
        // Arenas live on while one of their blocks is read, and nothing evicts them: results go into files then, which are counted.
        if self.open() >= self.open_max / 2 {
            return Err(io::Error::other("half of the files for outputs are open"));
        }
        let mut parts = None;
        let file = self.count(|| {
            let (freed, ArenaDescriptors { arena, reader, freed_page }) = FreedBlocks::create()?;
            parts = Some((freed, [arena, freed_page]));
            Ok(reader)
        })?;
        let (freed, descriptors) = parts.ok_or_else(|| io::Error::other("no arena was made"))?;
        Ok((WorkerArena::new(worker, file, freed), descriptors))
    }

    /// Holds a block that a worker has reported in its arena.
    pub(crate) fn hold_block(&mut self, arena: &Rc<WorkerArena>, place: (u64, u64)) -> OutputId {
        self.last += 1;
        let output = OutputId(self.last);
        let hold = self.hold_of(Event::OutputClosed { output }, Event::OutputFreed { output });
        self.blocks.insert(output, HeldBlock::new(arena, self.last, place, hold));
        output
    }

    /// A block that is held, to be told to a client.
    pub(crate) fn block(&self, output: OutputId) -> Option<Rc<HeldBlock>> {
        self.blocks.get(&output).cloned()
    }

    /// As [`Self::take`], for the output that the tasks of a job share. If it is stored, it is no longer shared.
    ///
    /// # Errors
    /// fstat(2) or F_GET_SEALS failed.
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

    /// The output that the tasks of a job share, if it was created.
    pub(crate) fn scratch(&self, scratch: ScratchId) -> Option<&OutputFile> {
        self.scratches.get(&scratch)
    }

    /// Drops the output that the tasks of a job shared.
    pub(crate) fn drop_scratch(&mut self, scratch: ScratchId) {
        self.scratches.remove(&scratch);
    }

    /// A stored output, to be sent to a worker.
    pub(crate) fn look(&self, output: OutputId) -> Option<&OutputFile> {
        self.outputs.get(&output).map(|store| &**store)
    }

    /// The first bytes of a stored output, or `None` if it is shorter.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn head(&self, output: OutputId) -> io::Result<Option<[u8; COUNT_BYTES]>> {
        let mut head = [0; COUNT_BYTES];
        let Some(file) = self.look(output) else { return Ok(None) };
        let count = memfd::read_at(file.as_fd(), &mut head, 0)?;
        Ok((count == COUNT_BYTES).then_some(head))
    }

    /// Creates the log file of an attempt: a memfd of [`LOG_BYTES`], sealed in its size, with mode 0600. Returns the
    /// descriptor that the worker writes through; keeps a second one, opened read-only, for clients. No other user
    /// can open it for writing. The supervisor neither reads nor writes it: the format (`proto/src/log.rs`) needs no
    /// lock, and readers check every byte. A write to memory wakes nobody, so `logs --follow` polls the file in the
    /// client; the daemon tells it only the job's end.
    ///
    /// # Errors
    /// As [`Self::make`].
    pub(crate) fn begin_log(&mut self, log: LogId) -> io::Result<OwnedFd> {
        let mut writer = None;
        let mut reader = self.count(|| {
            let (ours, reader) = memfd::log_file("bulkhead-log", LOG_BYTES)?;
            writer = Some(ours);
            Ok(reader)
        })?;
        reader.hold = self.hold_of(Event::LogClosed { log }, Event::LogFreed { log });
        self.logs.insert(log, Rc::new(reader));
        writer.ok_or_else(|| io::Error::other("no log was made"))
    }

    /// A log, to be attached to a reply.
    pub(crate) fn log(&self, log: LogId) -> Option<Rc<OutputFile>> {
        self.logs.get(&log).cloned()
    }

    /// Drops a log. Replies that are queued keep their descriptor of it.
    pub(crate) fn drop_log(&mut self, log: LogId) {
        self.logs.remove(&log);
    }

    /// A stored output, to be attached to a reply.
    pub(crate) fn get(&self, output: OutputId) -> Option<Rc<OutputFile>> {
        self.outputs.get(&output).cloned()
    }

    /// Drops an output. Replies that are queued keep their descriptor of it.
    pub(crate) fn drop_output(&mut self, output: OutputId) {
        if self.outputs.remove(&output).is_none() {
            self.blocks.remove(&output);
        }
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
    fn half_of_the_files_may_be_arenas_and_the_rest_is_for_outputs() {
        let mut store = OutputStore::new(8, BackgroundCloser::default());
        let mut arenas: Vec<_> = (0..4).map(|worker| store.make_arena(WorkerId(worker)).unwrap()).collect();
        assert!(store.make_arena(WorkerId(4)).is_err());
        let outputs: Vec<_> = (0..4).map(|_| store.make().unwrap()).collect();
        assert!(store.make().is_err());
        // An arena whose block is read by a client counts on.
        let (arena, _) = arenas.pop().unwrap();
        let output = store.hold_block(&arena, (0, 5000));
        drop((arena, outputs));
        assert!(store.open() == 4 && store.make_arena(WorkerId(5)).is_err());
        store.drop_output(output);
        assert!(store.make_arena(WorkerId(5)).is_ok());
    }

    #[test]
    fn an_output_is_freed_once_neither_the_store_nor_a_reply_holds_it() {
        let mut store = OutputStore::new(8, BackgroundCloser::default());
        let freed = |store: &OutputStore| {
            let mut events = Vec::new();
            store.tell_freed(&mut events);
            events.iter().map(|event| format!("{event:?}")).collect::<Vec<_>>()
        };
        let written = store.make().unwrap();
        File::from(written.as_fd().try_clone_to_owned().unwrap()).write_all(&[1; 5000]).unwrap();
        memfd::seal_output(written.as_fd()).unwrap();
        let output = store.take(written, 5000).unwrap().unwrap();
        assert_eq!(store.counted_bytes(output), 8192, "whole pages");
        let (unsent, other) = (store.get(output).unwrap(), store.get(output).unwrap());
        let unread = unsent.hold();
        store.drop_output(output);
        drop(unsent);
        assert!(freed(&store).is_empty(), "another reply holds it");
        drop(other);
        assert_eq!(freed(&store), ["OutputClosed { output: OutputId(1) }"], "it was sent, and is not read");
        drop(unread);
        assert_eq!(freed(&store), ["OutputFreed { output: OutputId(1) }"]);
        drop(store.begin_log(LogId(3)).unwrap());
        store.drop_log(LogId(3));
        assert_eq!(freed(&store), ["LogFreed { log: LogId(3) }"]);
        drop(store.make().unwrap());
        store.share(ScratchId(1)).unwrap();
        store.drop_scratch(ScratchId(1));
        assert!(freed(&store).is_empty(), "the core knows that by itself");
        assert_eq!(store.counted_bytes(output), 0);
    }

    /// The log of this test program.
    static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

    struct KeptLines;

    impl log::Log for KeptLines {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &log::Record<'_>) {
            LINES.lock().unwrap().push(record.args().to_string());
        }

        fn flush(&self) {}
    }

    #[test]
    fn memory_that_cannot_be_given_back_is_said_in_part_and_then_counted() {
        log::set_logger(&KeptLines).unwrap();
        log::set_max_level(log::LevelFilter::Warn);
        let said = |text: &str| LINES.lock().unwrap().iter().filter(|line| line.starts_with(text)).count();
        let sealed = memfd::output_file("sealed").unwrap();
        File::from(sealed.try_clone().unwrap()).write_all(&[1; 8192]).unwrap();
        memfd::seal_output(sealed.as_fd()).unwrap();
        for _ in 0..25 {
            let idle = IdleRanges::default();
            idle.lock().ranges.push(0..4096);
            drop(IdleMemory { file: sealed.try_clone().unwrap(), idle });
        }
        assert_eq!(memfd::memory_of(sealed.as_fd()).unwrap(), 8192);
        rate_limit::log_counts(clock::monotonic_ns());
        let each = "memory of a dead worker's arena stays until its last block is freed error=";
        let more = "more memory of dead workers' arenas stays count=15";
        assert_eq!((said(each), said(more)), (10, 0));
        rate_limit::log_counts(u64::MAX);
        rate_limit::log_counts(u64::MAX);
        assert_eq!((said(each), said(more)), (10, 1));
    }

    #[test]
    fn a_large_output_is_not_closed_by_whoever_lets_go_of_it() {
        let closer = BackgroundCloser::default();
        let mut store = OutputStore::new(4, closer.clone());
        let (told, closed) = channel();
        let (go, waits) = channel::<()>();
        // This keeps the closer's thread busy, so that the files queued behind it can be counted.
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

    /// Its drop sends a message, then waits until it is released.
    struct Blocker(Sender<()>, Receiver<()>);

    impl Drop for Blocker {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
            let _gone = self.1.recv();
        }
    }
}
