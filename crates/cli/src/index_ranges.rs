//! A set of numbers as ranges: of inputs, by their places, or of jobs.
//!
//! Memory grows with the gaps between the numbers and not with their count. Pure. Used by `written_results.rs` and
//! `unwritten.rs`.

use std::collections::BTreeMap;

/// Numbers as ranges that do not touch: the first of each, and its last.
#[derive(Clone, Debug, Default)]
pub(crate) struct IndexRanges(BTreeMap<u64, u64>);

impl IndexRanges {
    pub(crate) fn insert(&mut self, index: u64) {
        let last = self.0.remove(&(index + 1)).unwrap_or(index);
        match self.0.range_mut(..=index).next_back() {
            Some((_, before)) if *before + 1 >= index => *before = last.max(*before),
            _ => drop(self.0.insert(index, last)),
        }
    }

    pub(crate) fn contains(&self, index: u64) -> bool {
        self.0.range(..=index).next_back().is_some_and(|(_, last)| *last >= index)
    }

    /// How many numbers there are.
    pub(crate) fn count(&self) -> u64 {
        self.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// The ranges in ascending order, with both ends.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().map(|(first, last)| (*first, *last))
    }

    /// The lowest number and the highest.
    pub(crate) fn span(&self) -> Option<(u64, u64)> {
        Some((*self.0.first_key_value()?.0, *self.0.last_key_value()?.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_in_any_order_become_few_ranges() {
        let mut ranges = IndexRanges::default();
        for index in [5, 3, 4, 0, 9, 1, 8, 2, 7, 6] {
            ranges.insert(index);
        }
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [(0, 9)]);
        ranges.insert(12);
        assert_eq!((ranges.count(), ranges.span()), (11, Some((0, 12))));
        assert_eq!([0, 9, 10, 12, 13].map(|index| ranges.contains(index)), [true, true, false, true, false]);
    }
}
