//! Returns items in the order of their indexes, whatever the order of their arrival.
//!
//! Pure. It keeps the items that arrived before their predecessors. Its size is bounded by the caller (`run.rs`), which
//! never has more than a window of jobs under way.

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

    /// Stores the item with this index.
    pub(crate) fn push(&mut self, index: u64, item: T) {
        self.early.insert(index, item);
    }

    /// The next item in order, if it has arrived.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let item = self.early.remove(&self.next)?;
        self.next += 1;
        Some(item)
    }

    /// The next item that has arrived, whether or not its predecessors have.
    pub(crate) fn pop_early(&mut self) -> Option<T> {
        let (index, item) = self.early.pop_first()?;
        self.next = index + 1;
        Some(item)
    }

    /// The items that have arrived and were not returned, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.early.values()
    }

    /// Whether the next item in order has arrived.
    pub(crate) fn is_ready(&self) -> bool {
        self.early.contains_key(&self.next)
    }

    /// The index of the next item in order.
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
        reorder.push(9, 9);
        reorder.push(7, 7);
        assert_eq!(reorder.pop(), None);
        assert_eq!(reorder.iter().collect::<Vec<_>>(), [&7, &9]);
        assert_eq!(std::iter::from_fn(|| reorder.pop_early()).collect::<Vec<_>>(), [7, 9]);
    }
}
