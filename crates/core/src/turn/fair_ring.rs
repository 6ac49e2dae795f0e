//! A ring whose items are of several holders: each item has a number that counts up, and what makes room is the oldest
//! item of one holder, whom the caller names.
//!
//! So the numbers that are left have gaps. It has no bound of its own: its owner counts the items of each holder and
//! drops what is too much. Used for records and for deaths.

use std::collections::{BTreeMap, VecDeque};

/// Numbered items, each of one holder `H`.
#[derive(Debug)]
pub(crate) struct FairRing<H, T> {
    items: BTreeMap<u64, (H, T)>,
    /// The numbers of each holder's items, the oldest first; no line is empty.
    lines: BTreeMap<H, VecDeque<u64>>,
    last: u64,
}

impl<H, T> Default for FairRing<H, T> {
    fn default() -> Self {
        Self { items: BTreeMap::new(), lines: BTreeMap::new(), last: 0 }
    }
}

impl<H: Copy + Ord, T> FairRing<H, T> {
    /// The number of the last item that was added; 0 before the first.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// The number of the oldest item that is left.
    pub(crate) fn first(&self) -> Option<u64> {
        self.items.first_key_value().map(|(number, _)| *number)
    }

    /// How many items are left.
    pub(crate) fn count(&self) -> u64 {
        self.items.len() as u64
    }

    /// How many items of one holder are left.
    pub(crate) fn count_of(&self, holder: H) -> usize {
        self.lines.get(&holder).map_or(0, VecDeque::len)
    }

    /// Adds an item of this holder under the next number.
    pub(crate) fn push(&mut self, holder: H, item: T) {
        self.last += 1;
        self.items.insert(self.last, (holder, item));
        self.lines.entry(holder).or_default().push_back(self.last);
    }

    /// Drops the oldest item of a holder; returns its number and the item. `None`: it has none.
    pub(crate) fn drop_oldest(&mut self, holder: H) -> Option<(u64, T)> {
        let line = self.lines.get_mut(&holder)?;
        let number = line.pop_front()?;
        if line.is_empty() {
            self.lines.remove(&holder);
        }
        self.items.remove(&number).map(|(_, item)| (number, item))
    }

    /// The items from this number on.
    pub(crate) fn from(&self, number: u64) -> impl DoubleEndedIterator<Item = &T> {
        self.items.range(number..).map(|(_, (_, item))| item)
    }

    /// How many items each holder has.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (H, u64)> + '_ {
        self.lines.iter().map(|(holder, line)| (*holder, line.len() as u64))
    }

    /// Checks what must always hold, at both ends of each line: a walk over all items in every turn takes too long.
    pub(crate) fn audit(&self) {
        let mut count = 0;
        for (holder, line) in &self.lines {
            assert!(line.front() <= line.back(), "the oldest item of a line goes first");
            for number in [line.front(), line.back()] {
                let item = number.and_then(|number| self.items.get(number));
                assert!(item.is_some_and(|(of, _)| of == holder), "a line is of its holder");
            }
            count += line.len();
        }
        assert_eq!(count, self.items.len(), "each item is in the line of its holder");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_one_holder_goes_and_leaves_a_gap() {
        let mut ring = FairRing::default();
        for (holder, item) in [('a', 10), ('b', 20), ('a', 30), ('b', 40)] {
            ring.push(holder, item);
        }
        assert_eq!(ring.drop_oldest('b'), Some((2, 20)));
        ring.audit();
        assert_eq!(ring.from(0).copied().collect::<Vec<_>>(), [10, 30, 40]);
        assert_eq!(ring.from(2).rev().copied().collect::<Vec<_>>(), [40, 30]);
        assert_eq!((ring.first(), ring.last(), ring.count()), (Some(1), 4, 3));
        assert_eq!((ring.drop_oldest('a'), ring.first()), (Some((1, 10)), Some(3)));
        assert_eq!((ring.count_of('a'), ring.drop_oldest('c')), (1, None));
        assert_eq!((ring.drop_oldest('a'), ring.drop_oldest('a')), (Some((3, 30)), None));
        ring.audit();
        ring.push('a', 50);
        assert_eq!(ring.last(), 5, "no number is given twice");
    }
}
