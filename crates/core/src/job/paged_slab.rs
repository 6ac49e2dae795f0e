//! A slab in pages: a value keeps its place, and a page without values is given back.
//!
//! One user may have 750,000 jobs in the queue. A slab in one piece keeps the room of its fullest hour for ever, because a
//! value cannot move. Here new values go to the first page that has room, so the last pages run empty. A few empty
//! pages are kept, so that a daemon with short jobs does not make a page anew all the time. Driven by `table.rs`.

use std::collections::BTreeSet;
use std::ops::{Index, IndexMut};

/// Values of a page. A page of jobs is 6 KiB: a kept job that holds a whole page costs no more than that.
const PAGE: usize = 64;
/// Empty pages that are kept.
const EMPTY_KEPT: usize = 64;
/// The end of the list of vacant places of a page.
const NONE: u32 = u32::MAX;

#[derive(Debug)]
enum SlabPlace<T> {
    Held(T),
    /// The next vacant place of the page.
    Vacant(u32),
}

/// Sixteen bytes: finding a value reads one of them, and the place.
#[derive(Debug)]
struct SlabPage<T> {
    /// Made for the first value of the page.
    places: Option<Box<[SlabPlace<T>; PAGE]>>,
    /// The first vacant place of those that were used.
    vacant: u32,
    /// Places that were used since the page was last empty: those behind them are vacant too.
    used: u16,
    held: u16,
}

impl<T> SlabPage<T> {
    fn new() -> Self {
        Self { places: None, vacant: NONE, used: 0, held: 0 }
    }

    /// Its next values lie one behind the other again.
    fn clear(&mut self) {
        self.used = 0;
        self.vacant = NONE;
    }

    fn is_full(&self) -> bool {
        usize::from(self.held) == PAGE
    }

    fn insert(&mut self, value: T) -> usize {
        let places =
            self.places.get_or_insert_with(|| Box::new(std::array::from_fn(|_| SlabPlace::Vacant(NONE))));
        let at = match self.vacant {
            NONE => usize::from(self.used),
            vacant => vacant as usize,
        };
        let SlabPlace::Vacant(next) = std::mem::replace(&mut places[at], SlabPlace::Held(value)) else {
            unreachable!("a place in the list of vacant ones is vacant")
        };
        match self.vacant {
            NONE => self.used += 1,
            _ => self.vacant = next,
        }
        self.held += 1;
        at
    }

    fn remove(&mut self, at: usize) -> Option<T> {
        let place = self.places.as_mut()?.get_mut(at).filter(|place| matches!(place, SlabPlace::Held(_)))?;
        let SlabPlace::Held(value) = std::mem::replace(place, SlabPlace::Vacant(self.vacant)) else {
            return None;
        };
        self.vacant = u32::try_from(at).unwrap_or(NONE);
        self.held -= 1;
        Some(value)
    }
}

/// Values by their places.
#[derive(Debug)]
pub(crate) struct PagedSlab<T> {
    pages: Vec<SlabPage<T>>,
    /// The pages that have room.
    open: BTreeSet<usize>,
    /// Those of them that have no value but places.
    empty: BTreeSet<usize>,
    length: usize,
}

impl<T> Default for PagedSlab<T> {
    fn default() -> Self {
        Self { pages: Vec::new(), open: BTreeSet::new(), empty: BTreeSet::new(), length: 0 }
    }
}

impl<T> PagedSlab<T> {
    /// How many values there are.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// The value at this place, if there is one.
    #[inline]
    pub(crate) fn get(&self, key: usize) -> Option<&T> {
        match &self.pages.get(key / PAGE)?.places.as_ref()?[key % PAGE] {
            SlabPlace::Held(value) => Some(value),
            SlabPlace::Vacant(_) => None,
        }
    }

    #[inline]
    fn get_mut(&mut self, key: usize) -> Option<&mut T> {
        match &mut self.pages.get_mut(key / PAGE)?.places.as_mut()?[key % PAGE] {
            SlabPlace::Held(value) => Some(value),
            SlabPlace::Vacant(_) => None,
        }
    }

    /// Adds a value; gives its place.
    pub(crate) fn insert(&mut self, value: T) -> usize {
        let number = self.open.first().copied().unwrap_or_else(|| {
            self.pages.push(SlabPage::new());
            self.open.insert(self.pages.len() - 1);
            self.pages.len() - 1
        });
        let page = &mut self.pages[number];
        if page.held == 0 {
            self.empty.remove(&number);
        }
        let at = page.insert(value);
        if page.is_full() {
            self.open.remove(&number);
        }
        self.length += 1;
        number * PAGE + at
    }

    /// Removes the value at a place.
    ///
    /// # Panics
    /// If there is none.
    #[inline]
    pub(crate) fn remove(&mut self, key: usize) -> T {
        let number = key / PAGE;
        let page = &mut self.pages[number];
        let was_full = page.is_full();
        let value = page.remove(key % PAGE).expect("a value that is removed is there");
        let is_empty = page.held == 0;
        if was_full {
            self.open.insert(number);
        }
        self.length -= 1;
        if is_empty {
            self.give_back(number);
        }
        value
    }

    /// A page has become empty: the last one of too many empty ones gives its memory back.
    fn give_back(&mut self, number: usize) {
        self.pages[number].clear();
        self.empty.insert(number);
        if self.empty.len() > EMPTY_KEPT
            && let Some(last) = self.empty.pop_last()
        {
            self.pages[last] = SlabPage::new();
        }
    }

    /// All values with their places.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.pages.iter().enumerate().flat_map(|(number, page)| {
            page.places.iter().flat_map(|places| places.iter()).enumerate().filter_map(move |(at, place)| {
                match place {
                    SlabPlace::Held(value) => Some((number * PAGE + at, value)),
                    SlabPlace::Vacant(_) => None,
                }
            })
        })
    }
}

impl<T> Index<usize> for PagedSlab<T> {
    type Output = T;

    fn index(&self, key: usize) -> &T {
        self.get(key).expect("a place that is used holds a value")
    }
}

impl<T> IndexMut<usize> for PagedSlab<T> {
    fn index_mut(&mut self, key: usize) -> &mut T {
        self.get_mut(key).expect("a place that is used holds a value")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room<T>(slab: &PagedSlab<T>) -> usize {
        slab.pages.iter().filter(|page| page.places.is_some()).count() * PAGE
    }

    #[test]
    fn what_was_full_once_gives_its_pages_back() {
        let mut slab = PagedSlab::default();
        let keys: Vec<usize> = (0..100 * PAGE).map(|value| slab.insert(value)).collect();
        assert_eq!((slab.len(), room(&slab)), (100 * PAGE, 100 * PAGE));
        // Most of them, in an order of their own; one stays in each tenth page.
        for key in keys.iter().rev().filter(|key| **key % (10 * PAGE) != 5) {
            assert_eq!(slab.remove(*key), *key);
        }
        assert_eq!((slab.len(), slab.iter().count()), (10, 10));
        assert!(room(&slab) <= (10 + EMPTY_KEPT) * PAGE, "room for {}", room(&slab));
        assert!(slab.iter().all(|(key, value)| key == *value && slab[key] == key));
        assert_eq!(slab.get(0), None);
    }

    #[test]
    fn new_values_go_to_the_first_page_with_room() {
        let mut slab = PagedSlab::default();
        let keys: Vec<usize> = (0..3 * PAGE).map(|value| slab.insert(value)).collect();
        slab.remove(keys[2 * PAGE + 7]);
        slab.remove(keys[7]);
        assert_eq!((slab.insert(1), slab.insert(2), slab.insert(3)), (7, 2 * PAGE + 7, 3 * PAGE));
    }

    #[test]
    #[should_panic(expected = "a value that is removed is there")]
    fn a_value_is_removed_once() {
        let mut slab = PagedSlab::default();
        let key = slab.insert(1);
        slab.insert(2);
        slab.remove(key);
        slab.remove(key);
    }
}
