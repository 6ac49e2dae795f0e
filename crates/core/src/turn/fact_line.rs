//! The facts that were made, in their order, and which of them the journal has stored.
//!
//! The journal stores them in their order, so the number of the last stored fact says which are stored. The facts that are not have a bound
//! of number and of bytes: from three quarters of it on the core accepts no durable job, and from seven eighths on it offers none, so that
//! the ends of accepted jobs always have room. At most three facts follow an offer, and workers hold few offers beside the last eighth.

use std::collections::{BTreeSet, VecDeque};

use bulkhead_facts::fact::{Fact, FactNo};

use crate::config::JournalUse;
use crate::turn::count_down;

/// Most submits that are not stored, and most bytes of them: three quarters of the journal's bounds.
pub(crate) fn submit_bounds(journal: &JournalUse) -> (u64, u64) {
    match journal {
        JournalUse::None(_) => (0, 0),
        JournalUse::Open(open) => (open.facts_max / 4 * 3, open.fact_bytes_max / 4 * 3),
    }
}

/// The facts of this run.
#[derive(Debug, Default)]
pub(crate) struct FactLine {
    last: FactNo,
    stored: FactNo,
    /// Facts behind that one that never will be: nothing waits for them.
    refused: BTreeSet<FactNo>,
    /// The bytes of each fact that is not stored.
    bytes_of: VecDeque<u64>,
    bytes: u64,
    /// Most facts that are not stored, and most bytes of them.
    bounds: (u64, u64),
}

impl FactLine {
    /// No facts, and the bounds of a journal.
    pub(super) fn new(journal: &JournalUse) -> Self {
        let bounds = match journal {
            JournalUse::None(_) => (0, 0),
            JournalUse::Open(open) => (open.facts_max, open.fact_bytes_max),
        };
        Self { bounds, ..Self::default() }
    }

    /// Adds a fact; its number.
    pub(super) fn add(&mut self, fact: &Fact) -> FactNo {
        let bytes = fact.memory_bytes() as u64;
        self.bytes_of.push_back(bytes);
        self.bytes += bytes;
        self.last.0 += 1;
        self.last
    }

    /// All facts up to this one are stored, or were refused. A number that was told before changes nothing.
    ///
    /// # Panics
    /// If no such fact was made.
    pub(super) fn stored(&mut self, up_to: FactNo) {
        assert!(up_to <= self.last, "fact {up_to} is stored after it was made");
        while self.stored < up_to {
            self.stored.0 += 1;
            let bytes = self.bytes_of.pop_front().expect("each fact that is not stored has its bytes");
            count_down(&mut self.bytes, bytes, "bytes of facts that are not stored");
            self.refused.remove(&self.stored);
        }
    }

    /// This fact never will be stored.
    ///
    /// # Panics
    /// If no such fact was made.
    pub(super) fn refused(&mut self, fact: FactNo) {
        if fact > self.stored {
            self.refused.insert(fact);
        }
        while let Some(next) = self.refused.first().copied().filter(|next| next.0 == self.stored.0 + 1) {
            self.stored(next);
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
    fn unstored(&self) -> (u64, u64) {
        (self.last.0 - self.stored.0, self.bytes)
    }

    /// How many facts are not stored.
    pub(crate) fn count(&self) -> u64 {
        self.unstored().0
    }

    /// Whether a submit with so many bytes of facts has room.
    pub(crate) fn has_room_for_submit(&self, bytes: u64) -> bool {
        let ((count, all), (count_max, bytes_max)) = (self.unstored(), self.bounds);
        count < count_max / 4 * 3 && (all + bytes <= bytes_max / 4 * 3 || all == 0)
    }

    /// Whether the facts of one more offer have room.
    pub(crate) fn has_room_for_offer(&self) -> bool {
        let ((count, bytes), (count_max, bytes_max)) = (self.unstored(), self.bounds);
        count < count_max / 8 * 7 && bytes < bytes_max / 8 * 7
    }

    /// The bounds: of facts, and of their bytes.
    pub(crate) fn bounds(&self) -> (u64, u64) {
        self.bounds
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_proto::ids::JobId;

    use super::*;
    use crate::config::JournalTerms;

    #[test]
    fn what_is_stored_is_not_waited_for() {
        let mut line = FactLine::default();
        assert_eq!((line.awaited(), line.unstored()), (None, (0, 0)));
        let fact = Fact::Forgotten { job: JobId(1) };
        assert_eq!((line.add(&fact), line.add(&fact)), (FactNo(1), FactNo(2)));
        line.stored(FactNo(1));
        assert_eq!((line.awaited(), line.unstored()), (Some(FactNo(2)), (1, fact.memory_bytes() as u64)));
        assert_eq!((line.add(&fact), line.add(&fact)), (FactNo(3), FactNo(4)));
        line.refused(FactNo(4));
        assert_eq!(line.count(), 3);
        line.stored(FactNo(2));
        line.refused(FactNo(3));
        line.stored(FactNo(1));
        line.refused(FactNo(2));
        assert_eq!((line.awaited(), line.unstored()), (None, (0, 0)));
    }

    #[test]
    fn submits_leave_room_for_what_becomes_of_jobs() {
        let open = JournalTerms {
            jobs: (JobId(1), JobId(9)),
            facts_max: 16,
            fact_bytes_max: 1 << 20,
            was_unclean: false,
        };
        let mut line = FactLine::new(&JournalUse::Open(open));
        let fact = Fact::Forgotten { job: JobId(1) };
        let rooms = (0..16).map(|_| {
            let rooms = (line.has_room_for_submit(1), line.has_room_for_offer());
            line.add(&fact);
            rooms
        });
        let rooms: Vec<_> = rooms.collect();
        assert_eq!(rooms.iter().filter(|rooms| rooms.0).count(), 12);
        assert_eq!(rooms.iter().filter(|rooms| rooms.1).count(), 14);
        line.stored(FactNo(16));
        assert!(line.has_room_for_submit(1 << 20), "alone, a large one has room");
        line.add(&fact);
        assert!(!line.has_room_for_submit(1 << 20) && line.has_room_for_submit(1));
    }
}
