//! A ring whose items are of several holders: each item has a number that counts up, and what makes room is the oldest
//! item of one holder, whom the caller names.
//!
//! So the numbers that are left have gaps. It has no bound of its own: its owner counts the items of each holder and
//! drops what is too much. Used for records and for deaths.

use std::collections::{BTreeMap, VecDeque};

/// Items that are gone from between others are kept as gaps, at most as many as there are items, and so many more.
const GAPS: usize = 64;

/// One place of the ring.
#[derive(Debug)]
struct RingPlace<H, T> {
    number: u64,
    /// `None`: a gap.
    item: Option<(H, T)>,
}

/// Numbered items, each of one holder `H`.
#[derive(Debug)]
pub(crate) struct FairRing<H, T> {
    /// In the order of their numbers. The first place is no gap.
    places: VecDeque<RingPlace<H, T>>,
    /// The numbers of each holder's items, the oldest first; no line is empty.
    lines: BTreeMap<H, VecDeque<u64>>,
    count: usize,
    last: u64,
}

impl<H, T> Default for FairRing<H, T> {
    fn default() -> Self {
        Self { places: VecDeque::new(), lines: BTreeMap::new(), count: 0, last: 0 }
    }
}

impl<H: Copy + Ord, T> FairRing<H, T> {
    /// No items; numbers begin at `first`, at 1 if that is 0.
    pub(crate) fn new(first: u64) -> Self {
        Self { last: first.saturating_sub(1), ..Self::default() }
    }

    /// The number of the last item that was added; 0 before the first.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// The number of the oldest item that is left.
    pub(crate) fn first(&self) -> Option<u64> {
        self.places.front().map(|place| place.number)
    }

    /// How many items are left.
    pub(crate) fn count(&self) -> u64 {
        self.count as u64
    }

    /// How many items of one holder are left.
    pub(crate) fn count_of(&self, holder: H) -> usize {
        self.lines.get(&holder).map_or(0, VecDeque::len)
    }

    /// Adds an item of this holder under the next number.
    pub(crate) fn push(&mut self, holder: H, item: T) {
        self.last += 1;
        self.count += 1;
        self.places.push_back(RingPlace { number: self.last, item: Some((holder, item)) });
        self.lines.entry(holder).or_default().push_back(self.last);
    }

    /// Drops the oldest item of a holder; returns what `look` makes of its number and the item. `None`: it has none.
    pub(crate) fn drop_oldest<R>(&mut self, holder: H, look: impl FnOnce(u64, &T) -> R) -> Option<R> {
        let line = self.lines.get_mut(&holder)?;
        let number = line.pop_front()?;
        if line.is_empty() {
            self.lines.remove(&holder);
        }
        let at = self.place_of(number);
        let place = self.places.get_mut(at)?;
        // In its place: an item is large, and the oldest ones are in no cache.
        let looked = look(number, &place.item.as_ref()?.1);
        place.item = None;
        self.count -= 1;
        self.close_gaps();
        Some(looked)
    }

    /// The place of a number, or of the next one that has a place.
    fn place_of(&self, number: u64) -> usize {
        // Most often it is one of the last, between which there is no gap, or the oldest of all, which is in no cache.
        let from_last = usize::try_from(self.last.saturating_sub(number)).unwrap_or(usize::MAX);
        let likely = [self.places.len().checked_sub(1).and_then(|last| last.checked_sub(from_last)), Some(0)];
        let is_at = |at: &usize| self.places.get(*at).is_some_and(|place| place.number == number);
        let found = likely.into_iter().flatten().find(is_at);
        found.unwrap_or_else(|| self.places.partition_point(|place| place.number < number))
    }

    fn close_gaps(&mut self) {
        while self.places.front().is_some_and(|place| place.item.is_none()) {
            self.places.pop_front();
        }
        if self.places.len() > 2 * self.count + GAPS {
            self.places.retain(|place| place.item.is_some());
        }
    }

    /// The items from this number on.
    pub(crate) fn from(&self, number: u64) -> impl DoubleEndedIterator<Item = &T> {
        let places = self.places.range(self.place_of(number)..);
        places.filter_map(|place| place.item.as_ref().map(|(_, item)| item))
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
            for number in [line.front(), line.back()].into_iter().flatten() {
                let place = self.places.get(self.place_of(*number)).filter(|place| place.number == *number);
                let item = place.and_then(|place| place.item.as_ref());
                assert!(item.is_some_and(|(of, _)| of == holder), "a line is of its holder");
            }
            count += line.len();
        }
        assert_eq!(count, self.count, "each item is in the line of its holder");
        assert!(self.places.len() <= 2 * self.count + GAPS, "gaps are bounded");
        let first = self.places.front();
        assert!(first.is_none_or(|place| place.item.is_some()), "the first place is no gap");
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
        let both = |number: u64, item: &i32| (number, *item);
        assert_eq!(ring.drop_oldest('b', both), Some((2, 20)));
        ring.audit();
        assert_eq!(ring.from(0).copied().collect::<Vec<_>>(), [10, 30, 40]);
        assert_eq!(ring.from(2).rev().copied().collect::<Vec<_>>(), [40, 30]);
        assert_eq!((ring.first(), ring.last(), ring.count()), (Some(1), 4, 3));
        assert_eq!((ring.drop_oldest('a', both), ring.first()), (Some((1, 10)), Some(3)));
        assert_eq!((ring.count_of('a'), ring.drop_oldest('c', both)), (1, None));
        assert_eq!((ring.drop_oldest('a', both), ring.drop_oldest('a', both)), (Some((3, 30)), None));
        ring.audit();
        ring.push('a', 50);
        assert_eq!(ring.last(), 5, "no number is given twice");
    }

    #[test]
    fn an_old_item_of_a_holder_with_few_costs_no_memory_while_others_come_and_go() {
        let mut ring = FairRing::default();
        ring.push('a', 0);
        for item in 1..10_000 {
            ring.push('b', item);
            if ring.count() > 100 {
                let dropped = ring.drop_oldest('b', |number, item| (number, *item));
                assert_eq!(dropped, Some((item - 98, item - 99)));
            }
            ring.audit();
        }
        assert_eq!((ring.first(), ring.count()), (Some(1), 100));
        assert!(ring.places.len() <= 264, "{} places", ring.places.len());
        assert_eq!(ring.from(2).next(), Some(&9901));
        assert_eq!(
            ring.from(0).copied().collect::<Vec<_>>(),
            [&[0][..], &(9901..10_000).collect::<Vec<_>>()].concat()
        );
    }
}
