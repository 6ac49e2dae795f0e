//! The arena of this worker: where it puts results that are longer than inline.
//!
//! The worker alone decides where a block lies. It never writes over a block that is not free: a block is free once the
//! supervisor has put its offset into the page of freed blocks (the states stand in `supervisor/arena.rs`). The first place that
//! is long enough is taken, so that few pages are ever touched and those are warm. Without a place the result goes elsewhere:
//! nothing waits here. What was touched beyond [`KEPT_UNITS`] and is free goes back to the system when the worker has been idle for
//! a while, once in each such pause. Driven by the worker runtime.

use std::cell::{Cell, RefCell};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use bulkhead_proto::limits::{ARENA_BLOCKS_MAX, ARENA_BYTES, ARENA_UNIT_BYTES, BLOCK_MAX_BYTES};
use bulkhead_proto::worker::boxes::{FREED_COUNT_AT, FREED_PAGE_BYTES, freed_at};
use bulkhead_sys::shared_page::SharedPage;

use crate::unit_runs::runs_of;

/// Units of an arena.
const UNITS: usize = ARENA_BYTES / ARENA_UNIT_BYTES;

/// So many units from the beginning stay in memory, free or not: 1 MiB.
const KEPT_UNITS: usize = 256;

/// The arena, mapped for writing.
#[derive(Debug)]
pub struct ResultArena {
    arena: SharedPage,
    freed: SharedPage,
    /// How many freed blocks were taken note of.
    noted: Cell<u64>,
    places: RefCell<ArenaPlaces>,
}

/// Which units of an arena are taken.
#[derive(Debug)]
struct ArenaPlaces {
    /// Of the first unit of each block its units, else 0.
    blocks: Vec<u16>,
    /// A bit for each unit that is taken.
    taken: [u64; UNITS / 64],
    count: usize,
    /// No unit below this one is free.
    first: usize,
    /// No unit from this one on is in memory.
    touched: usize,
    /// Something was taken since memory was last given back.
    was_used: bool,
}

impl ArenaPlaces {
    fn new() -> Self {
        Self {
            blocks: vec![0; UNITS],
            taken: [0; UNITS / 64],
            count: 0,
            first: 0,
            touched: 0,
            was_used: false,
        }
    }

    fn is_taken(&self, unit: usize) -> bool {
        self.taken[unit / 64] >> (unit % 64) & 1 == 1
    }

    /// Takes the first free place of so many units.
    fn take(&mut self, units: usize) -> Option<usize> {
        if self.count == ARENA_BLOCKS_MAX {
            return None;
        }
        let (mut unit, mut free) = (self.first, 0);
        while free < units {
            if unit >= UNITS {
                return None;
            }
            if unit.is_multiple_of(64) && self.taken[unit / 64] == u64::MAX {
                (unit, free) = (unit + 64, 0);
                continue;
            }
            free = if self.is_taken(unit) { 0 } else { free + 1 };
            unit += 1;
        }
        let start = unit - units;
        (start..unit).for_each(|one| self.taken[one / 64] |= 1 << (one % 64));
        self.blocks[start] = u16::try_from(units).ok()?;
        self.count += 1;
        (self.touched, self.was_used) = (self.touched.max(unit), true);
        if start == self.first {
            self.first = unit;
        }
        Some(start)
    }

    /// Ranges of free units beyond the kept ones that may be in memory. None of them is so afterwards.
    fn take_idle(&mut self) -> Vec<Range<usize>> {
        self.was_used = false;
        let idle = runs_of((KEPT_UNITS..self.touched).filter(|unit| !self.is_taken(*unit)));
        self.touched =
            idle.last().filter(|last| last.end == self.touched).map_or(self.touched, |last| last.start);
        idle
    }

    /// Frees the block that begins with this unit, if there is one.
    fn free(&mut self, unit: usize) {
        let units = self.blocks.get_mut(unit).map_or(0, std::mem::take);
        if units > 0 {
            let end = unit + usize::from(units);
            (unit..end).for_each(|one| self.taken[one / 64] &= !(1 << (one % 64)));
            self.count -= 1;
            self.first = self.first.min(unit);
        }
    }
}

impl ResultArena {
    /// Maps the two descriptors that came with the arena.
    ///
    /// # Errors
    /// There are not two; EINVAL: they are not as long as they have to be, or not sealed in size; ENOMEM.
    pub fn map(descriptors: Vec<OwnedFd>) -> io::Result<Self> {
        let [arena, freed]: [OwnedFd; 2] =
            descriptors.try_into().map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let arena = SharedPage::map_shared(arena.as_fd(), ARENA_BYTES)?;
        let freed = SharedPage::map_read_only(freed.as_fd(), FREED_PAGE_BYTES)?;
        Ok(Self { arena, freed, noted: Cell::new(0), places: RefCell::new(ArenaPlaces::new()) })
    }

    /// Writes a result into a free place, and returns its offset; `None` if it is too long or there is no place for it. The
    /// place is taken until the supervisor frees it, so it must be reported.
    pub fn put(&self, bytes: &[u8]) -> Option<u64> {
        if bytes.is_empty() || bytes.len() > BLOCK_MAX_BYTES {
            return None;
        }
        self.note_freed();
        let unit = self.places.borrow_mut().take(bytes.len().div_ceil(ARENA_UNIT_BYTES))?;
        let offset = unit * ARENA_UNIT_BYTES;
        self.arena.write_bytes(offset, bytes);
        Some(offset as u64)
    }

    /// Whether [`Self::give_back`] is due once the worker has been idle for a while.
    pub fn may_give_back(&self) -> bool {
        let places = self.places.borrow();
        places.was_used && places.touched > KEPT_UNITS
    }

    /// Gives the memory of free places back to the system, but for the first MiB.
    ///
    /// # Errors
    /// As [`SharedPage::give_back`]; the rest is not given back then.
    pub fn give_back(&self) -> io::Result<()> {
        self.note_freed();
        let idle = self.places.borrow_mut().take_idle();
        idle.into_iter().try_for_each(|units| {
            self.arena.give_back(units.start * ARENA_UNIT_BYTES, units.len() * ARENA_UNIT_BYTES)
        })
    }

    fn note_freed(&self) {
        let count = self.freed.load(FREED_COUNT_AT, Ordering::Acquire);
        let mut places = self.places.borrow_mut();
        while self.noted.get() < count {
            let offset = self.freed.load(freed_at(self.noted.get()), Ordering::Relaxed);
            self.noted.set(self.noted.get() + 1);
            places.free(usize::try_from(offset).map_or(UNITS, |offset| offset / ARENA_UNIT_BYTES));
        }
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_sys::memfd;

    use super::*;
    use crate::supervisor::FreedBlocks;

    fn arena() -> (FreedBlocks, ResultArena, SharedPage) {
        let (freed, made) = FreedBlocks::create().unwrap();
        let reader = SharedPage::map_read_only(made.reader.as_fd(), ARENA_BYTES).unwrap();
        (freed, ResultArena::map(vec![made.arena, made.freed_page]).unwrap(), reader)
    }

    #[test]
    fn a_block_is_not_written_over_until_it_is_freed() {
        let (mut freed, arena, reader) = arena();
        let first = arena.put(&[1; 5000]).unwrap();
        let second = arena.put(&[2; 5000]).unwrap();
        let third = arena.put(&[3; 5000]).unwrap();
        assert_eq!([first, second, third], [0, 8192, 16384]);
        freed.free(second);
        assert_eq!(arena.put(&[4; 9000]), Some(24576), "it does not fit where the second was");
        assert_eq!(arena.put(&[5; 5000]), Some(second));
        let mut read = [0; 5000];
        reader.read_bytes(usize::try_from(first).unwrap(), &mut read);
        assert_eq!(read, [1; 5000]);
        reader.read_bytes(usize::try_from(second).unwrap(), &mut read);
        assert_eq!(read, [5; 5000]);
    }

    #[test]
    fn a_full_arena_takes_nothing_and_one_that_was_freed_takes_all_again() {
        let (mut freed, arena, _) = arena();
        for round in 0..3 {
            let mut offsets = Vec::new();
            while let Some(offset) = arena.put(&[7; BLOCK_MAX_BYTES]) {
                offsets.push(offset);
            }
            assert_eq!(offsets.len(), ARENA_BYTES / BLOCK_MAX_BYTES, "round {round}");
            offsets.into_iter().for_each(|offset| freed.free(offset));
        }
        let small: Vec<_> = std::iter::from_fn(|| arena.put(&[7; 5])).collect();
        assert_eq!(small.len(), ARENA_BLOCKS_MAX);
        small.into_iter().for_each(|offset| freed.free(offset));
        assert!(arena.put(&[7; BLOCK_MAX_BYTES]).is_some());
        assert!(arena.put(&[7; BLOCK_MAX_BYTES + 1]).is_none() && arena.put(&[]).is_none());
    }

    #[test]
    fn what_is_free_goes_back_to_the_system_and_what_is_held_stays() {
        let (mut freed, made) = FreedBlocks::create().unwrap();
        let reader = made.reader.try_clone().unwrap();
        let page = SharedPage::map_read_only(reader.as_fd(), ARENA_BYTES).unwrap();
        let arena = ResultArena::map(vec![made.arena, made.freed_page]).unwrap();
        let memory = || usize::try_from(memfd::memory_of(reader.as_fd()).unwrap()).unwrap();
        assert!(!arena.may_give_back());
        let offsets: Vec<u64> = std::iter::from_fn(|| arena.put(&[7; BLOCK_MAX_BYTES])).collect();
        assert!(memory() == ARENA_BYTES && arena.may_give_back());
        let held = offsets[50];
        offsets.iter().filter(|offset| **offset != held).for_each(|offset| freed.free(*offset));
        arena.give_back().unwrap();
        assert_eq!(memory(), KEPT_UNITS * ARENA_UNIT_BYTES + BLOCK_MAX_BYTES);
        assert!(!arena.may_give_back(), "once in a pause");
        let mut read = [0; BLOCK_MAX_BYTES];
        page.read_bytes(usize::try_from(held).unwrap(), &mut read);
        assert_eq!(read, [7; BLOCK_MAX_BYTES]);
        freed.free(held);
        assert_eq!(arena.put(&[8; 5000]), Some(0));
        arena.give_back().unwrap();
        assert_eq!(memory(), KEPT_UNITS * ARENA_UNIT_BYTES);
        assert_eq!(arena.put(&[9; 5000]), Some(8192), "it is used on");
        assert!(!arena.may_give_back(), "what is kept stays");
    }

    #[test]
    fn what_is_not_sealed_in_size_is_not_mapped() {
        let (_, made) = FreedBlocks::create().unwrap();
        let loose = std::fs::File::from(memfd::output_file("loose").unwrap());
        loose.set_len(ARENA_BYTES as u64).unwrap();
        let other = OwnedFd::from(loose.try_clone().unwrap());
        assert!(ResultArena::map(vec![OwnedFd::from(loose), made.freed_page]).is_err());
        assert!(ResultArena::map(vec![made.arena, other]).is_err());
        assert!(ResultArena::map(Vec::new()).is_err());
    }
}
