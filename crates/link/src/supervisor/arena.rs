//! The arena of one worker, from the supervisor's side: two memfds that it makes, and the list of freed blocks that it writes.
//!
//! The supervisor never maps or reads the arena. Both files are sealed in size; the list is sealed against any other writer.
//!
//! | a block is | who knows it | leaves it when |
//! |---|---|---|
//! | free | the worker | the worker picks it for a result (`worker/arena.rs`) |
//! | written | the worker | it reports offset and length in its box |
//! | reported | the supervisor's store holds it, for the core | the core drops it, or tells a client of it |
//! | told | each connection that was told holds it too | the client frees it, or its connection ends |
//! | freed | nobody holds it | its offset is in the page of freed blocks: the worker reads that before it picks a block |
//! | orphaned | as reported or told, and the worker is dead | nobody holds it: its memory goes back to the system |
//!
//! The rest of an arena goes back when its worker dies, and the file with the last block.
//! The list is a ring of as many entries as a worker may have blocks, so no offset is lost. Driven by `output_store.rs`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use bulkhead_proto::limits::ARENA_BYTES;
use bulkhead_proto::worker::boxes::{FREED_COUNT_AT, FREED_PAGE_BYTES, freed_at};
use bulkhead_sys::memfd;
use bulkhead_sys::shared_page::SharedPage;

/// The list of freed blocks of one arena.
#[derive(Debug)]
pub struct FreedBlocks {
    page: SharedPage,
    count: u64,
}

/// The descriptors of a new arena.
#[derive(Debug)]
pub struct ArenaDescriptors {
    /// The arena, for the worker; to be closed once it is sent.
    pub arena: OwnedFd,
    /// The arena for reading, for clients.
    pub reader: OwnedFd,
    /// The page of freed blocks, for the worker alone; to be closed once it is sent.
    pub freed_page: OwnedFd,
}

impl FreedBlocks {
    /// Makes an arena without blocks.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM: retry later. EINVAL: a kernel before 5.1.
    pub fn create() -> io::Result<(Self, ArenaDescriptors)> {
        let (arena, reader) = memfd::log_file("bulkhead-arena", ARENA_BYTES as u64)?;
        let (page, freed_page) = SharedPage::create("bulkhead-freed", FREED_PAGE_BYTES)?;
        SharedPage::seal_future_writes(freed_page.as_fd())?;
        Ok((Self { page, count: 0 }, ArenaDescriptors { arena, reader, freed_page }))
    }

    /// Tells the worker that it may write over the block at this offset.
    pub fn free(&mut self, offset: u64) {
        self.page.store(freed_at(self.count), offset, Ordering::Relaxed);
        self.count += 1;
        self.page.store(FREED_COUNT_AT, self.count, Ordering::Release);
    }
}
