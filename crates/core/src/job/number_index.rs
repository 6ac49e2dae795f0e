//! The index from a job's number to its place in the slab, in pages of 512 numbers.
//!
//! Numbers only grow, and jobs end in any order. A job that does not end keeps its own page in memory and no other.

use std::collections::BTreeMap;

use crate::job::list::{Key, NONE};

const PAGE: u64 = 512;

#[derive(Debug)]
struct IndexPage {
    keys: Box<[Key; PAGE as usize]>,
    live: u32,
}

/// The index.
#[derive(Debug, Default)]
pub(crate) struct NumberIndex {
    pages: BTreeMap<u64, IndexPage>,
}

impl NumberIndex {
    /// The place of the job of this number.
    pub(crate) fn find(&self, number: u64) -> Option<Key> {
        let page = self.pages.get(&(number / PAGE))?;
        let key = page.keys[(number % PAGE) as usize];
        (key != NONE).then_some(key)
    }

    /// Adds a number.
    ///
    /// # Panics
    /// If it is in the index.
    pub(crate) fn insert(&mut self, number: u64, key: Key) {
        let place = number / PAGE;
        // Mostly it is on the newest page, which needs no search.
        let newest = self.pages.last_entry().filter(|newest| *newest.key() == place);
        let page = match newest {
            Some(newest) => newest.into_mut(),
            None => self
                .pages
                .entry(place)
                .or_insert_with(|| IndexPage { keys: Box::new([NONE; PAGE as usize]), live: 0 }),
        };
        let entry = &mut page.keys[(number % PAGE) as usize];
        assert!(*entry == NONE, "number {number} is given to one job");
        *entry = key;
        page.live += 1;
    }

    /// Removes a number.
    ///
    /// # Panics
    /// If it is not in the index.
    pub(crate) fn remove(&mut self, number: u64) {
        let page = self.pages.get_mut(&(number / PAGE));
        let key = page.map(|page| {
            page.live -= 1;
            (page.live, std::mem::replace(&mut page.keys[(number % PAGE) as usize], NONE))
        });
        assert!(key.is_some_and(|(_, key)| key != NONE), "number {number} is forgotten once");
        if key.is_some_and(|(live, _)| live == 0) {
            self.pages.remove(&(number / PAGE));
        }
    }

    /// The last number at or before `from` in the index, with its place.
    pub(crate) fn last_to(&self, from: u64) -> Option<(u64, Key)> {
        for (&number, page) in self.pages.range(..=from / PAGE).rev() {
            let end = if number == from / PAGE { (from % PAGE) as usize + 1 } else { PAGE as usize };
            if let Some(at) = page.keys[..end].iter().rposition(|&key| key != NONE) {
                return Some((number * PAGE + at as u64, page.keys[at]));
            }
        }
        None
    }

    /// The first number at or after `from` in the index, with its place.
    pub(crate) fn next_from(&self, from: u64) -> Option<(u64, Key)> {
        for (&number, page) in self.pages.range(from / PAGE..) {
            let start = if number == from / PAGE { (from % PAGE) as usize } else { 0 };
            if let Some(at) = page.keys[start..].iter().position(|&key| key != NONE) {
                let at = start + at;
                return Some((number * PAGE + at as u64, page.keys[at]));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_stays_pins_its_own_page_alone() {
        let mut ids = NumberIndex::default();
        for number in 1..=10_000 {
            ids.insert(number, number as Key);
        }
        for number in (1..=10_000).filter(|number| *number != 700) {
            ids.remove(number);
        }
        assert_eq!(ids.pages.len(), 1);
        assert_eq!((ids.find(700), ids.find(701), ids.find(0)), (Some(700), None, None));
    }

    #[test]
    fn numbers_are_walked_in_order_across_gaps() {
        let mut ids = NumberIndex::default();
        for number in [3, 511, 512, 5000] {
            ids.insert(number, number as Key);
        }
        let mut seen = Vec::new();
        let mut from = 0;
        while let Some((number, key)) = ids.next_from(from) {
            assert_eq!(u64::from(key), number);
            seen.push(number);
            from = number + 1;
        }
        assert_eq!(seen, [3, 511, 512, 5000]);
    }
}
