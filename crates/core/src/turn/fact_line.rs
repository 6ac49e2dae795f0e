//! The facts that were made, in their order, and which of them the journal has stored.
//!
//! They are stored in their order, so one number says which. What is not stored has a bound of number and of bytes: above three
//! quarters of it no durable job is accepted, and above seven eighths none is offered, so that what becomes of accepted jobs always has
//! room (`machine/durable.rs`).

use std::collections::VecDeque;

use bulkhead_facts::fact::{Fact, FactNo};

use crate::turn::count_down;

/// The facts of this run.
#[derive(Debug, Default)]
pub(crate) struct FactLine {
    last: FactNo,
    stored: FactNo,
    /// The bytes of each fact that is not stored.
    bytes_of: VecDeque<u64>,
    bytes: u64,
}

impl FactLine {
    /// Adds a fact; its number.
    pub(super) fn add(&mut self, fact: &Fact) -> FactNo {
        let bytes = fact.memory_bytes() as u64;
        self.bytes_of.push_back(bytes);
        self.bytes += bytes;
        self.last.0 += 1;
        self.last
    }

    /// All facts up to this one are stored. A number that was told before changes nothing.
    ///
    /// # Panics
    /// If no such fact was made.
    pub(super) fn stored(&mut self, up_to: FactNo) {
        assert!(up_to <= self.last, "fact {up_to} is stored after it was made");
        while self.stored < up_to {
            self.stored.0 += 1;
            let bytes = self.bytes_of.pop_front().expect("each fact that is not stored has its bytes");
            count_down(&mut self.bytes, bytes, "bytes of facts that are not stored");
        }
    }

    /// Whether this fact is stored.
    pub(crate) fn is_stored(&self, fact: FactNo) -> bool {
        fact <= self.stored
    }

    /// The last fact, if it is not stored.
    pub(crate) fn awaited(&self) -> Option<FactNo> {
        (self.last > self.stored).then_some(self.last)
    }

    /// How many facts are not stored, and their bytes.
    pub(crate) fn unstored(&self) -> (u64, u64) {
        (self.last.0 - self.stored.0, self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_proto::ids::JobId;

    use super::*;

    #[test]
    fn what_is_stored_is_not_waited_for() {
        let mut line = FactLine::default();
        assert_eq!((line.awaited(), line.unstored()), (None, (0, 0)));
        let fact = Fact::Forgotten { job: JobId(1) };
        assert_eq!((line.add(&fact), line.add(&fact)), (FactNo(1), FactNo(2)));
        line.stored(FactNo(1));
        assert_eq!((line.awaited(), line.unstored()), (Some(FactNo(2)), (1, fact.memory_bytes() as u64)));
        line.stored(FactNo(2));
        line.stored(FactNo(1));
        assert_eq!((line.awaited(), line.unstored()), (None, (0, 0)));
    }
}
