//! Chunks of items, and the store in which workers leave the result of each.
//!
//! A chunk is one job. Its worker stores the result of an item, then counts it, before the next item begins; after any end of the
//! job, also by a crash or with the daemon, [`Chunk::read`] says what became of each item. The daemon knows one job, and charges one
//! death to it.
//!
//! The store is a file in memory that this process makes and that workers map for writing; it is registered once. Nothing in it is
//! trusted (`chunk_outcome.rs`). A part of it is used again when neither the [`Chunk`] nor the session needs it any more: the
//! session keeps it as long as the block with the items, until no worker can use either (the table at
//! [`crate::Session::register_arena`]).

use std::fmt;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bulkhead_proto::chunk::{ChunkInput, ChunkRegion, STORE_FILE};
use bulkhead_proto::job::{OutputMode, Policy};
use bulkhead_proto::limits::CHUNK_ITEMS_MAX;
use bulkhead_proto::registration::ArenaBlock;
use bulkhead_sys::shared_page::SharedPage;

use crate::arena::Arena;
use crate::batch::{JobInput, Spec};
use crate::block_allocator::BlockAllocator;
use crate::chunk_outcome::{ChunkOutcome, CountedResults, RegionReader};
use crate::file::JobFile;
use crate::new_context::{ContextNumber, NewContext};
use crate::session::SessionEnd;

/// The number of the last chunk.
static LAST_CHUNK: AtomicU64 = AtomicU64::new(0);
/// Spreads the numbers over all bits (the golden ratio), so that the words of one chunk hardly look like those of another.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Memory for the results of chunks. A clone is the same store.
#[derive(Clone, Debug)]
pub struct ItemStore(Arc<StoreMemory>);

#[derive(Debug)]
struct StoreMemory {
    context: ContextNumber,
    arena: Arena,
    page: SharedPage,
    free: Mutex<BlockAllocator>,
}

impl ItemStore {
    /// A new store of at least so many bytes, whose chunks have their items in this arena, and what is to be registered under
    /// this number.
    pub(crate) fn create(number: u32, arena: &Arena, bytes: usize) -> io::Result<(Self, NewContext)> {
        let page_bytes = 4096;
        let bytes = bytes.max(1).checked_next_multiple_of(page_bytes).ok_or(io::ErrorKind::InvalidInput)?;
        let (page, descriptor) = SharedPage::create_for_writers("bulkhead items", bytes)?;
        let free = Mutex::new(BlockAllocator::new(bytes as u64));
        let file = JobFile::written(STORE_FILE, File::from(descriptor));
        let store = StoreMemory { context: ContextNumber(number), arena: arena.clone(), page, free };
        Ok((Self(Arc::new(store)), NewContext::of_files(vec![file])))
    }

    /// The spec for chunks of this store: it names the store behind the spec's own contexts, and lets no attempt follow a death or
    /// a failure (`crashes_max` 1, `retries_max` 0). What is left of a chunk is submitted as another chunk instead. With another policy
    /// no item runs twice either: a worker refuses a chunk of which an item has begun.
    pub fn spec(&self, spec: Spec) -> Spec {
        let Spec { kind, policy, flavour, mut contexts } = spec;
        contexts.push(self.0.context);
        let policy = Policy { crashes_max: Some(1), retries_max: Some(0), ..policy };
        Spec { kind, policy, flavour, contexts }
    }

    /// Makes a chunk: the job for [`crate::Session::submit`], with a spec of [`ItemStore::spec`], and what reads its results. `head` is
    /// what all items share, as its kind reads it. `results_bytes` is room for all results together; one that does not fit ends
    /// the chunk early, and no result is lost by that ([`crate::ChunkStop::LongResult`]).
    ///
    /// # Errors
    /// [`NotChunked`]: the arena or the store has no room now, or never will.
    pub fn chunk(
        &self,
        head: &[u8],
        items: &[impl AsRef<[u8]>],
        results_bytes: usize,
    ) -> Result<(JobInput, Chunk), NotChunked> {
        let wanted = ChunkRegion::bytes_for(items.len(), results_bytes);
        let wanted = wanted.filter(|wanted| *wanted <= self.0.page.length() as u64).ok_or_else(|| {
            NotChunked::StoreTooSmall { items: items.len(), results_bytes, store_bytes: self.0.page.length() }
        })?;
        let region = Arc::new(self.take(wanted).ok_or(NotChunked::StoreFull)?);
        let input = ChunkInput::encode(Some(region.place), head, items)
            .ok_or(NotChunked::TooManyItems { items: items.len() })?;
        let (arena, bytes) = (&self.0.arena, input.len());
        if bytes > arena.length() {
            return Err(NotChunked::ArenaTooSmall { bytes, arena_bytes: arena.length() });
        }
        let block = arena.block_with(&input, Some(Arc::clone(&region))).ok_or(NotChunked::ArenaFull)?;
        let input = JobInput { output: OutputMode::Auto, ..JobInput::from(block) };
        Ok((input, Chunk { region, items: items.len() }))
    }

    /// How long it is, in bytes.
    pub fn length(&self) -> usize {
        self.0.page.length()
    }

    /// The number of its registration.
    pub(crate) fn context(&self) -> ContextNumber {
        self.0.context
    }

    fn take(&self, bytes: u64) -> Option<TakenRegion> {
        let block = self.0.free.lock().unwrap_or_else(PoisonError::into_inner).take(bytes)?;
        let number = LAST_CHUNK.fetch_add(1, Ordering::Relaxed) + 1;
        let place =
            ChunkRegion { key: number.wrapping_mul(SPREAD), offset: block.offset, length: block.length };
        let region = TakenRegion { store: self.clone(), block, place };
        region.store_word(ChunkRegion::BEGUN_AT, place.count_word(0));
        region.store_word(ChunkRegion::COUNTED_AT, place.count_word(0));
        region.store_word(ChunkRegion::LONG_AT, 0);
        Some(region)
    }
}

/// A region of a store, which nobody else uses until it is dropped.
#[derive(Debug)]
pub(crate) struct TakenRegion {
    store: ItemStore,
    block: ArenaBlock,
    place: ChunkRegion,
}

impl TakenRegion {
    fn store_word(&self, at: u64, word: u64) {
        let at = usize::try_from(self.place.offset + at).expect("a store is in memory");
        self.store.0.page.store(at, word, Ordering::Relaxed);
    }
}

impl Drop for TakenRegion {
    fn drop(&mut self) {
        self.store.0.free.lock().unwrap_or_else(PoisonError::into_inner).give_back(self.block);
    }
}

/// A chunk that was made: what reads its results when its job has ended. Dropping it reads nothing.
#[derive(Debug)]
pub struct Chunk {
    region: Arc<TakenRegion>,
    items: usize,
}

impl Chunk {
    /// Closes the chunk, so that no further item of it can begin, and says what became of each item. `end` is that of its job; if the
    /// job was never submitted, [`SessionEnd::Withdrawn`]. It must not be called before the job has ended.
    ///
    /// A worker may live on after the end of its job was told: for a moment after a cancel or a limit of time, or without its
    /// daemon. The item that it runs then is [`crate::ChunkStop::Begun`], and it begins no other. So what is in
    /// [`ChunkOutcome::rest`] may be submitted at once.
    pub fn read(self, end: &SessionEnd) -> ChunkOutcome {
        RegionReader { page: &self.region.store.0.page, place: self.region.place, items: self.items }
            .read(end)
    }

    /// The results that are counted so far, while its job may still run: from the first item on, in their order. They stay what they
    /// are, and [`Chunk::read`] gives them again. Words that cannot be true give none.
    pub fn counted(&self) -> CountedResults {
        let reader =
            RegionReader { page: &self.region.store.0.page, place: self.region.place, items: self.items };
        CountedResults(reader.counted())
    }

    /// How many items it has.
    pub fn len(&self) -> usize {
        self.items
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.items == 0
    }
}

/// The input of a job with one item, of a kind that takes chunks: the job's output is the result of the item. Such a job names no
/// store. `None`: the item or the head is longer than 4 GiB.
pub fn one_item(head: &[u8], item: &[u8]) -> Option<Vec<u8>> {
    ChunkInput::encode(None, head, &[item])
}

/// Why there is no chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotChunked {
    /// No free part of the arena has room for the items, until blocks are free again.
    ArenaFull,
    /// No free part of the store has room for the results, until chunks were read.
    StoreFull,
    /// The items are longer than the arena.
    ArenaTooSmall {
        /// Bytes of the items, with what stands before them.
        bytes: usize,
        /// How long the arena is.
        arena_bytes: usize,
    },
    /// The room for the results is more than the store has in all.
    StoreTooSmall {
        /// How many items there are.
        items: usize,
        /// The room that was wanted.
        results_bytes: usize,
        /// How long the store is.
        store_bytes: usize,
    },
    /// There are more items than a chunk may have, or one of them is longer than 4 GiB.
    TooManyItems {
        /// How many there are.
        items: usize,
    },
}

impl NotChunked {
    /// Whether there will be room when other jobs have ended and their chunks were read.
    pub fn is_for_now(self) -> bool {
        matches!(self, Self::ArenaFull | Self::StoreFull)
    }
}

impl fmt::Display for NotChunked {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ArenaFull => out.write_str("the arena has no room for the items: wait for ends"),
            Self::StoreFull => out.write_str(
                "the item store has no room for the results: wait for ends, and read their chunks",
            ),
            Self::ArenaTooSmall { bytes, arena_bytes } => write!(
                out,
                "the items take {bytes} bytes and the arena has {arena_bytes}: make smaller chunks, or a larger arena"
            ),
            Self::StoreTooSmall { items, results_bytes, store_bytes } => write!(
                out,
                "{results_bytes} bytes for the results of {items} items are more than the {store_bytes} bytes of the item \
                 store have room for: ask for less, or make a larger store"
            ),
            Self::TooManyItems { items } => write!(
                out,
                "{items} items, of at most {CHUNK_ITEMS_MAX} that a chunk may have and of at most 4 GiB each: make smaller \
                 chunks"
            ),
        }
    }
}

impl std::error::Error for NotChunked {}

#[cfg(test)]
mod tests;
