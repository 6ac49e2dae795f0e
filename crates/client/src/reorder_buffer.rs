//! Puts what comes in any order into the order of its places.
//!
//! Pure. Holds what came too early; how much that can be is bounded by whoever feeds it: it never holds a place that
//! is further ahead than the window.

use std::collections::BTreeMap;

/// Items that wait for their predecessors.
#[derive(Debug)]
pub(crate) struct ReorderBuffer<T> {
    early: BTreeMap<u64, T>,
    next: u64,
}

impl<T> ReorderBuffer<T> {
    pub(crate) fn new() -> Self {
        Self { early: BTreeMap::new(), next: 0 }
    }

    /// Takes the item of this place.
    pub(crate) fn push(&mut self, place: u64, item: T) {
        self.early.insert(place, item);
    }

    /// The next item in order, if it has come.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let item = self.early.remove(&self.next)?;
        self.next += 1;
        Some(item)
    }

    /// Whether the next item in order has come.
    pub(crate) fn is_ready(&self) -> bool {
        self.early.contains_key(&self.next)
    }

    /// The place that is due.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_order_of_arrival_the_order_of_places_comes_out() {
        let mut reorder = ReorderBuffer::new();
        let mut out = Vec::new();
        for place in [3, 0, 1, 4, 2] {
            reorder.push(place, place);
            out.extend(std::iter::from_fn(|| reorder.pop()));
        }
        assert_eq!(out, [0, 1, 2, 3, 4]);
        assert_eq!(reorder.next(), 5);
    }
}
