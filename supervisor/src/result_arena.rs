//! The arenas of workers: who holds which block, and which connections were told of which arena.
//!
//! `crates/link/src/supervisor/arena.rs` has the states of a block. The store holds a block for the core, and each connection
//! that was told of it holds it too; with the last hold it is free. The core hears of that (`Event::OutputFreed`), and the worker
//! finds its offset in the page of freed blocks. The memory is never mapped or read here.
//!
//! | what ends | and |
//! |---|---|
//! | the worker | its arena is over: what is in no block goes back to the system, connections without a block of it are told `ArenaGone`, others once they have freed the last |
//! | a connection, by its client or by the daemon | its holds go when `BLOCK_LEASE_MS` are over: a thread of its client may be about to read what it was told (`unread_descriptors.rs`) |
//! | the hold of the core | the block lives on while a connection has it, also after the death of its worker |
//!
//! Descriptors: one for each worker that was offered a task which may use its arena, until the worker is dead and no block of it
//! is held; it counts as an output file. Driven by `output_store.rs`, `perform.rs` and `connection.rs`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use bulkhead_link::supervisor::FreedBlocks;
use bulkhead_link::unit_runs::runs_of;
use bulkhead_proto::client::outcome::ResultBlock;
use bulkhead_proto::ids::WorkerId;
use bulkhead_proto::limits::{ARENA_BYTES, ARENA_UNIT_BYTES};

use crate::output_store::{IdleRanges, MemoryHold, OutputFile};

/// Units of an arena.
const UNITS: usize = ARENA_BYTES / ARENA_UNIT_BYTES;

/// The arena of one worker.
#[derive(Debug)]
pub(crate) struct WorkerArena {
    /// Its number for clients: that of its worker.
    number: u64,
    /// The arena for reading, for clients.
    file: Rc<OutputFile>,
    freed: RefCell<FreedBlocks>,
    /// A bit for each unit that is in a block. Two blocks at one place, as a hostile worker may report them, share the bits of their
    /// units: the drop of the first clears them, and the memory of the second may go back to the system.
    held: RefCell<[u64; UNITS / 64]>,
    /// Its worker is dead.
    is_over: Cell<bool>,
    /// Memory of it that goes back to the system.
    idle: IdleRanges,
}

impl WorkerArena {
    /// The arena of this worker, without blocks.
    pub(crate) fn new(worker: WorkerId, file: OutputFile, freed: FreedBlocks) -> Rc<Self> {
        let (file, freed) = (Rc::new(file), RefCell::new(freed));
        let held = RefCell::new([0; UNITS / 64]);
        Rc::new(Self {
            number: worker.0,
            file,
            freed,
            held,
            is_over: Cell::new(false),
            idle: IdleRanges::default(),
        })
    }

    /// Its worker is dead, and has reported its last block. Gives its number. What is in no block goes back to the system, in the
    /// thread that closes large outputs.
    pub(crate) fn end(&self) -> u64 {
        self.is_over.set(true);
        let held = self.held.borrow();
        if held.iter().any(|word| *word != 0) {
            self.file.give_back(&self.idle, free_ranges(&held));
        }
        self.number
    }

    /// Notes that these units are in a block, or are not any more.
    fn mark(&self, (offset, bytes): (u64, u64), is_held: bool) {
        let mut held = self.held.borrow_mut();
        for unit in units(offset, bytes) {
            if let Some(word) = held.get_mut(unit / 64) {
                let bit = 1 << (unit % 64);
                *word = if is_held { *word | bit } else { *word & !bit };
            }
        }
    }
}

/// The units of a block.
fn units(offset: u64, bytes: u64) -> Range<usize> {
    let unit = |at: u64| usize::try_from(at).map_or(UNITS, |at| at.div_ceil(ARENA_UNIT_BYTES));
    unit(offset)..unit(offset.saturating_add(bytes))
}

/// The ranges of bytes that are in no block.
fn free_ranges(held: &[u64; UNITS / 64]) -> Vec<Range<u64>> {
    let free = runs_of((0..UNITS).filter(|unit| held[unit / 64] >> (unit % 64) & 1 == 0));
    let at = |unit: usize| (unit * ARENA_UNIT_BYTES) as u64;
    free.into_iter().map(|units| at(units.start)..at(units.end)).collect()
}

/// A block that is not free. Dropping the last hold frees it.
#[derive(Debug)]
pub(crate) struct HeldBlock {
    arena: Rc<WorkerArena>,
    /// Its number.
    block: u64,
    offset: u64,
    bytes: u64,
    /// Tells the core that it is free.
    _hold: Option<Rc<MemoryHold>>,
}

impl HeldBlock {
    /// A block that a worker has reported. That there may be such a block was checked.
    pub(crate) fn new(
        arena: &Rc<WorkerArena>,
        block: u64,
        (offset, bytes): (u64, u64),
        hold: Option<Rc<MemoryHold>>,
    ) -> Rc<Self> {
        arena.mark((offset, bytes), true);
        Rc::new(Self { arena: Rc::clone(arena), block, offset, bytes, _hold: hold })
    }
}

impl Drop for HeldBlock {
    fn drop(&mut self) {
        let Self { arena, offset, bytes, .. } = self;
        arena.mark((*offset, *bytes), false);
        // A dead worker does not read what is freed. If this is the last block, the file is closed with it.
        if !arena.is_over.get() {
            arena.freed.borrow_mut().free(*offset);
        } else if arena.held.borrow().iter().any(|word| *word != 0) {
            let end = *offset + bytes.next_multiple_of(ARENA_UNIT_BYTES as u64);
            arena.file.give_back(&arena.idle, Some(*offset..end));
        }
    }
}

/// What one connection was told of.
#[derive(Debug, Default)]
pub(crate) struct ToldBlocks {
    /// How many blocks of each arena whose descriptor was sent it holds, and whether the arena's worker is dead.
    arenas: BTreeMap<u64, ToldArena>,
    /// The blocks, and how often it was told of each and has not freed it.
    blocks: BTreeMap<u64, (Rc<HeldBlock>, u64)>,
}

#[derive(Debug, Default)]
struct ToldArena {
    blocks: usize,
    is_over: bool,
}

impl ToldBlocks {
    /// Whether it holds no block.
    pub(crate) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Notes that the connection is told of a block. Gives what to tell, and the file to attach if it has none of this arena.
    pub(crate) fn tell(&mut self, block: Rc<HeldBlock>) -> (ResultBlock, Option<Rc<OutputFile>>) {
        let HeldBlock { arena, block: number, offset, bytes, .. } = &*block;
        let file = (!self.arenas.contains_key(&arena.number)).then(|| Rc::clone(&arena.file));
        let told = self.arenas.entry(arena.number).or_default();
        told.blocks += 1;
        told.is_over = arena.is_over.get();
        let told = ResultBlock {
            block: *number,
            arena: arena.number,
            offset: *offset,
            bytes: *bytes,
            is_attached: file.is_some(),
        };
        self.blocks.entry(told.block).or_insert_with(|| (Rc::clone(&block), 0)).1 += 1;
        (told, file)
    }

    /// The client has freed a block. `Ok` has the arena if that is gone with it.
    ///
    /// # Errors
    /// It was not told of this block, or has freed it.
    pub(crate) fn free(&mut self, block: u64) -> Result<Option<u64>, ()> {
        let (held, count) = self.blocks.get_mut(&block).ok_or(())?;
        let arena = held.arena.number;
        *count -= 1;
        if *count == 0 {
            self.blocks.remove(&block);
        }
        let told = self.arenas.get_mut(&arena).ok_or(())?;
        told.blocks -= 1;
        let is_gone = told.blocks == 0 && told.is_over;
        if is_gone {
            self.arenas.remove(&arena);
        }
        Ok(is_gone.then_some(arena))
    }

    /// The worker of this arena is dead. `true`: the client has it, and holds no block of it.
    pub(crate) fn is_gone(&mut self, arena: u64) -> bool {
        let Some(told) = self.arenas.get_mut(&arena) else { return false };
        told.is_over = true;
        let is_gone = told.blocks == 0;
        if is_gone {
            self.arenas.remove(&arena);
        }
        is_gone
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::time::{Duration, Instant};

    use bulkhead_core::event::Event;
    use bulkhead_proto::ids::OutputId;
    use bulkhead_sys::memfd;
    use bulkhead_sys::shared_page::SharedPage;

    use super::*;
    use crate::background_closer::BackgroundCloser;
    use crate::output_store::OutputStore;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn freed(store: &OutputStore) -> Vec<OutputId> {
        let mut events = Vec::new();
        store.tell_freed(&mut events);
        let found = events.iter().map(|event| {
            let Event::OutputFreed { output } = event else { panic!("{event:?}") };
            *output
        });
        found.collect()
    }

    #[test]
    fn a_block_is_free_when_neither_the_core_nor_a_connection_holds_it() {
        let mut store = OutputStore::new(8, BackgroundCloser::default());
        let (arena, _) = store.make_arena(WorkerId(7)).unwrap();
        let output = store.hold_block(&arena, (0, 5000));
        let (mut one, mut other) = (ToldBlocks::default(), ToldBlocks::default());
        let (told, file) = one.tell(store.block(output).unwrap());
        assert_eq!((told.arena, told.bytes, told.is_attached, file.is_some()), (7, 5000, true, true));
        let (again, file) = one.tell(store.block(output).unwrap());
        assert_eq!((again.is_attached, file.is_some()), (false, false), "it has the arena");
        other.tell(store.block(output).unwrap());
        store.drop_output(output);
        drop(other);
        assert_eq!(one.free(told.block), Ok(None));
        assert_eq!(freed(&store), []);
        assert_eq!(one.free(told.block), Ok(None));
        assert_eq!(freed(&store), [output]);
        assert_eq!(one.free(told.block), Err(()), "it has freed it as often as it was told");
        assert_eq!(one.free(99), Err(()));
    }

    #[test]
    fn an_orphaned_arena_takes_the_memory_of_its_blocks() {
        let mut store = OutputStore::new(8, BackgroundCloser::default());
        let (arena, [writer, _]) = store.make_arena(WorkerId(7)).unwrap();
        let page = SharedPage::map_shared(writer.as_fd(), ARENA_BYTES).unwrap();
        page.write_bytes(0, &vec![7; ARENA_BYTES]);
        let memory = |wanted: u64| {
            let begun = Instant::now();
            while memfd::memory_of(writer.as_fd()).unwrap() != wanted {
                assert!(begun.elapsed() < PATIENCE, "{:?} of {wanted}", memfd::memory_of(writer.as_fd()));
                std::thread::yield_now();
            }
        };
        let [first, second, third] =
            [(0, 5000), (65_536, 4096), (4 << 20, 100_000)].map(|place| store.hold_block(&arena, place));
        memory(ARENA_BYTES as u64);
        arena.end();
        memory(8192 + 4096 + 102_400);
        store.drop_output(third);
        memory(8192 + 4096);
        store.drop_output(first);
        memory(4096);
        let mut read = [0; 8];
        page.read_bytes(65_536, &mut read);
        assert_eq!(read, [7; 8], "what is held stays");
        drop(arena);
        store.drop_output(second);
        assert_eq!(store.open(), 0, "the file goes with the last block");
    }

    #[test]
    fn an_arena_is_gone_after_its_worker_and_its_last_block_whichever_is_later() {
        let mut store = OutputStore::new(8, BackgroundCloser::default());
        let (arena, _) = store.make_arena(WorkerId(7)).unwrap();
        let mut told = ToldBlocks::default();
        let tell = |store: &mut OutputStore, told: &mut ToldBlocks| {
            let output = store.hold_block(&arena, (0, 5000));
            let block = store.block(output).unwrap();
            store.drop_output(output);
            told.tell(block).0
        };
        let first = tell(&mut store, &mut told);
        assert_eq!(told.free(first.block), Ok(None));
        let (second, third) = (tell(&mut store, &mut told), tell(&mut store, &mut told));
        assert!(!told.is_gone(arena.end()), "two blocks of it are held");
        assert_eq!(told.free(third.block), Ok(None));
        assert_eq!(told.free(second.block), Ok(Some(7)));
        assert!(!told.is_gone(7), "it is told once");
        let late = tell(&mut store, &mut told);
        assert!(late.is_attached, "a late block brings the arena again");
        assert_eq!(told.free(late.block), Ok(Some(7)));
        assert_eq!(store.open(), 1);
        drop(arena);
        assert_eq!(store.open(), 0, "its descriptor goes with the last block");
    }
}
