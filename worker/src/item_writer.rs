//! Stores and counts the results of a chunk's items, each before the next item begins.
//!
//! | an item | the words of the region |
//! |---|---|
//! | begins | `begun` goes from its index to one more, by a compare-and-swap: it fails once the client has closed the chunk |
//! | has a result with room in the region | the result is written, then `counted` goes up (Release) |
//! | has a result without room there | the result becomes the output of the task; the items after it do not begin |
//!
//! It takes no lock, makes no system call and allocates nothing, except for a long result. Nothing is read back from the region: where
//! the next result goes is known here. A chunk of which an item has begun is refused, so that no item runs twice whatever the
//! policy of its job is. Driven by `chunk_run.rs`, or by a worker program that calls its items itself.

use std::sync::atomic::Ordering;

use bulkhead_proto::chunk::{ChunkInput, ChunkRegion, RESULT_HEAD_BYTES, ResultHead};
use bulkhead_task::{TaskContext, TaskFailure};

use crate::item_store::{StoreWriter, store_of_task};

/// Writes the results of one chunk, for a program whose handler calls the items by itself: most use
/// [`crate::Registry::with_items`].
///
/// ```
/// use bulkhead_worker::{ChunkInput, ItemWriter, Registry, TaskContext, TaskFailure};
///
/// fn lengths(input: &[u8], task: &mut dyn TaskContext) -> Result<(), TaskFailure> {
///     let chunk = ChunkInput::read(input).map_err(TaskFailure::new)?;
///     let (mut writer, mut items) = (ItemWriter::open(&chunk, task)?, chunk.items());
///     while writer.begin()?.is_some() {
///         let item = items.next().unwrap_or_default();
///         writer.store(item.len().to_string().as_bytes(), false, task)?;
///     }
///     writer.finish()
/// }
///
/// let registry = Registry::new().with("lengths", lengths);
/// ```
#[derive(Debug)]
pub struct ItemWriter {
    store: StoreWriter,
    region: ChunkRegion,
    items: u64,
    counted: u64,
    /// Where the next result goes, in bytes from the start of the region.
    next: u64,
    state: WriterState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriterState {
    /// The next item can begin.
    Between,
    /// One has begun and has no result.
    Begun,
    /// The result of one is the output of the task: no further one begins.
    Long,
}

impl ItemWriter {
    /// Opens the region of a chunk, in the store that the job of this task names.
    ///
    /// # Errors
    /// [`TaskFailure`]: the job has one item and no region, it names no store, the region is not inside the store or belongs to
    /// another chunk, or an item of the chunk has begun in an earlier attempt.
    pub fn open(chunk: &ChunkInput<'_>, task: &dyn TaskContext) -> Result<Self, TaskFailure> {
        let region = chunk.region.ok_or_else(|| {
            TaskFailure::new("the job has one item and no region: its result is the output of the task")
        })?;
        let store = store_of_task(task)?;
        if let Some(fault) = region.fault(store.page.length() as u64) {
            return Err(TaskFailure::new(fault));
        }
        let store = StoreWriter::new(store, in_memory(region.offset));
        let (next, state) = (ChunkRegion::HEADER_BYTES, WriterState::Between);
        let writer = Self { store, region, items: chunk.len() as u64, counted: 0, next, state };
        let begun = writer.store.page().load(writer.at(ChunkRegion::BEGUN_AT), Ordering::Acquire);
        match region.read_count(begun) {
            Some((0, false)) => Ok(writer),
            Some((_, true)) => Err(closed()),
            Some((begun, false)) => Err(TaskFailure::new(format!(
                "{begun} items of the chunk have begun in an earlier attempt, and none is run twice: submit chunks with \
                 crashes_max = 1 and retries_max = 0"
            ))),
            None => {
                Err(TaskFailure::new("the region of the chunk is that of another one, or was written over"))
            }
        }
    }

    /// Begins the next item, and gives its index; `None`: there is none, or none may begin because the result of the last one was
    /// long.
    ///
    /// # Errors
    /// [`TaskFailure`]: the client has closed the chunk, another process has written its words, or the item before has no result.
    pub fn begin(&mut self) -> Result<Option<usize>, TaskFailure> {
        match self.state {
            WriterState::Long => return Ok(None),
            WriterState::Begun => return Err(self.misused("has no result")),
            WriterState::Between if self.counted == self.items => return Ok(None),
            WriterState::Between => {}
        }
        let (at, begun) = (self.at(ChunkRegion::BEGUN_AT), self.counted);
        let [old, new] = [begun, begun + 1].map(|count| self.region.count_word(count));
        match self.store.page().compare_exchange(at, old, new) {
            Ok(_) => {
                self.state = WriterState::Begun;
                Ok(Some(in_memory(begun)))
            }
            Err(found) if found == old | ChunkRegion::CLOSED => Err(closed()),
            Err(found) => Err(TaskFailure::new(format!(
                "another process has written over the chunk: the word of its begun items is {found:#x} where {begun} had begun"
            ))),
        }
    }

    /// Stores the result of the item that has begun, or why it failed, and counts it. A result without room in the region becomes
    /// the output of `task`, which must have none.
    ///
    /// # Errors
    /// [`TaskFailure`]: no item has begun, or the output cannot be written.
    pub fn store(
        &mut self,
        result: &[u8],
        is_failed: bool,
        task: &mut dyn TaskContext,
    ) -> Result<(), TaskFailure> {
        if !self.store_inside(result, is_failed)? {
            task.write_all(result)?;
            let head = ResultHead { number: self.counted, is_failed };
            self.store.page().store(self.at(ChunkRegion::LONG_AT), head.to_word(), Ordering::Release);
            self.state = WriterState::Long;
        }
        Ok(())
    }

    /// The same for a caller that has no task at hand: `false` if the result has no room in the region. Nothing has happened then, and
    /// the result is to be passed to [`ItemWriter::store`].
    ///
    /// # Errors
    /// [`TaskFailure`]: no item has begun.
    pub fn store_inside(&mut self, result: &[u8], is_failed: bool) -> Result<bool, TaskFailure> {
        if self.state != WriterState::Begun {
            return Err(self.misused("has not begun"));
        }
        let length = result.len() as u64;
        let end = ResultHead::stored_bytes(length).and_then(|bytes| self.next.checked_add(bytes));
        let Some(end) = end.filter(|end| *end <= self.region.length) else { return Ok(false) };
        let at = self.at(self.next);
        self.store.write(at + in_memory(RESULT_HEAD_BYTES), result);
        let page = self.store.page();
        page.store(at + 8, ResultHead { number: length, is_failed }.to_word(), Ordering::Relaxed);
        page.store(at, self.region.mark(self.counted), Ordering::Relaxed);
        self.counted += 1;
        let counted = self.region.count_word(self.counted);
        page.store(self.at(ChunkRegion::COUNTED_AT), counted, Ordering::Release);
        (self.next, self.state) = (end, WriterState::Between);
        Ok(true)
    }

    /// How many items have a result in the region.
    pub fn counted(&self) -> usize {
        in_memory(self.counted)
    }

    /// Whether no further item begins: all have a result, or the last result was too long for the region and is the output of the
    /// task.
    pub fn is_over(&self) -> bool {
        let has_all = self.counted == self.items && self.state == WriterState::Between;
        self.state == WriterState::Long || has_all
    }

    /// The end of the chunk: what its handler returns.
    ///
    /// # Errors
    /// [`TaskFailure`]: items have no result.
    pub fn finish(self) -> Result<(), TaskFailure> {
        if self.is_over() {
            return Ok(());
        }
        let Self { counted, items, .. } = self;
        Err(TaskFailure::new(format!("{counted} of the {items} items of the chunk have a result")))
    }

    fn misused(&self, what: &str) -> TaskFailure {
        TaskFailure::new(format!("item {} of the chunk {what}", self.counted))
    }

    /// Where this byte of the region lies in the store.
    fn at(&self, at: u64) -> usize {
        in_memory(self.region.offset + at)
    }
}

fn closed() -> TaskFailure {
    TaskFailure::new("the client has closed the chunk: no further item of it begins")
}

fn in_memory(number: u64) -> usize {
    usize::try_from(number).expect("a region is inside of a mapping, and an index below a count in memory")
}

#[cfg(test)]
mod tests;
