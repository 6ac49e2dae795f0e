//! Which parts of an arena are free: blocks of any length, best fit, and neighbours that are free become one.
//!
//! Numbers only: it touches no memory. `arena.rs` calls it under a lock.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_proto::registration::ArenaBlock;

/// The free parts of an arena.
#[derive(Debug)]
pub(crate) struct BlockAllocator {
    /// By where they begin, their lengths. No two touch.
    by_start: BTreeMap<u64, u64>,
    /// The same as (length, begin).
    by_length: BTreeSet<(u64, u64)>,
}

/// What a block of this length takes: whole units of its alignment, at least one.
fn taken_by(length: u64) -> Option<u64> {
    length.max(1).checked_next_multiple_of(ArenaBlock::ALIGNMENT)
}

impl BlockAllocator {
    /// All of an arena is free; its length is a multiple of the alignment.
    pub(crate) fn new(bytes: u64) -> Self {
        let mut all = Self { by_start: BTreeMap::new(), by_length: BTreeSet::new() };
        all.add(0, bytes);
        all
    }

    /// Takes a block of so many bytes: the shortest free part that has room. `None`: no part has.
    pub(crate) fn take(&mut self, length: u64) -> Option<ArenaBlock> {
        let taken = taken_by(length)?;
        let (free, offset) = self.by_length.range((taken, 0)..).next().copied()?;
        self.remove(offset, free);
        self.add(offset + taken, free - taken);
        Some(ArenaBlock { offset, length })
    }

    /// Gives a block back that was taken.
    ///
    /// # Panics
    /// If a part of it is free already.
    pub(crate) fn give_back(&mut self, block: ArenaBlock) {
        let taken = taken_by(block.length).expect("a block that was taken has a length");
        let (mut start, mut end) = (block.offset, block.offset + taken);
        if let Some((before, length)) = self.by_start.range(..=start).next_back().map(|(at, of)| (*at, *of)) {
            assert!(before + length <= start, "a block is given back once");
            if before + length == start {
                self.remove(before, length);
                start = before;
            }
        }
        if let Some((after, length)) = self.by_start.range(start..).next().map(|(at, of)| (*at, *of)) {
            assert!(after >= end, "a block is given back once");
            if after == end {
                self.remove(after, length);
                end += length;
            }
        }
        self.add(start, end - start);
    }

    fn add(&mut self, start: u64, length: u64) {
        if length > 0 {
            self.by_start.insert(start, length);
            self.by_length.insert((length, start));
        }
    }

    fn remove(&mut self, start: u64, length: u64) {
        self.by_start.remove(&start);
        self.by_length.remove(&(length, start));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_do_not_touch_each_other_and_all_is_free_again_in_the_end() {
        let mut free = BlockAllocator::new(4096);
        let taken: Vec<ArenaBlock> =
            [1, 64, 65, 0, 1000].into_iter().map(|length| free.take(length).unwrap()).collect();
        let places: Vec<u64> = taken.iter().map(|block| block.offset).collect();
        assert_eq!(places, [0, 64, 128, 256, 320]);
        for at in [1, 3, 0, 4, 2] {
            free.give_back(taken[at]);
        }
        assert_eq!(free.take(4096), Some(ArenaBlock { offset: 0, length: 4096 }), "the parts are one again");
        assert_eq!(free.take(0), None);
    }

    #[test]
    fn the_shortest_part_with_room_is_taken() {
        let mut free = BlockAllocator::new(1024);
        let [first, _, third, _] = [256, 64, 64, 64].map(|length| free.take(length).unwrap());
        free.give_back(first);
        free.give_back(third);
        assert_eq!(free.take(10), Some(ArenaBlock { offset: third.offset, length: 10 }));
        assert_eq!(free.take(600), None, "the rest is too short");
        assert_eq!(free.take(u64::MAX), None);
    }

    #[test]
    #[should_panic(expected = "a block is given back once")]
    fn a_block_that_is_given_back_twice_is_noticed() {
        let mut free = BlockAllocator::new(1024);
        let block = free.take(100).unwrap();
        free.give_back(block);
        free.give_back(block);
    }

    /// Any order of takes and returns: no two blocks overlap, and nothing is lost.
    #[test]
    fn nothing_overlaps_and_nothing_is_lost() {
        let (mut free, mut held, mut state) =
            (BlockAllocator::new(64 << 10), Vec::<ArenaBlock>::new(), 7_u64);
        for _ in 0..20_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let draw = state >> 33;
            if draw.is_multiple_of(2) || held.is_empty() {
                held.extend(free.take(draw / 2 % 5000));
            } else {
                free.give_back(held.swap_remove(draw as usize / 2 % held.len()));
            }
            let mut sorted = held.clone();
            sorted.sort_unstable_by_key(|block| block.offset);
            let ends = sorted.iter().map(|block| block.offset + taken_by(block.length).unwrap());
            let starts = sorted.iter().skip(1).map(|block| block.offset).chain([64 << 10]);
            assert!(ends.zip(starts).all(|(end, next)| end <= next));
        }
        held.drain(..).for_each(|block| free.give_back(block));
        assert!(free.take(64 << 10).is_some());
    }
}
