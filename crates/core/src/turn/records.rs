//! The last records, for `events`: a ring of a fixed length that waits for no reader. A reader that is too slow is
//! sent the number of records that it missed. Each record keeps its owner, because the job that it is about may be
//! forgotten before its records are.

use std::collections::VecDeque;

use bulkhead_proto::client::record::Record;

use crate::turn::Owner;

/// The ring of records.
#[derive(Debug)]
pub(crate) struct RecentRecords {
    /// Each record with its owner.
    records: VecDeque<(Record, Owner)>,
    last: u64,
    max: usize,
}

impl RecentRecords {
    /// An empty ring that keeps `max` records, at least one.
    pub(crate) fn new(max: usize) -> Self {
        Self { records: VecDeque::new(), last: 0, max: max.max(1) }
    }

    /// Whether no record was ever made.
    pub(crate) fn is_empty(&self) -> bool {
        self.last == 0
    }

    /// The index of the next record.
    pub(crate) fn next_index(&self) -> u64 {
        self.last + 1
    }

    /// The index of the oldest kept record, or of the next one.
    pub(crate) fn first_index(&self) -> u64 {
        self.next_index() - self.records.len() as u64
    }

    /// Adds a record, and drops the oldest beyond `max`.
    ///
    /// # Panics
    /// If its index is not the next one.
    pub(crate) fn push(&mut self, record: Record, owner: Owner) {
        assert_eq!(record.index, self.next_index(), "records are numbered without a gap");
        self.last = record.index;
        if self.records.len() == self.max {
            self.records.pop_front();
        }
        self.records.push_back((record, owner));
    }

    /// The kept records, newest first.
    pub(crate) fn newest(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().rev().map(|(record, _)| record)
    }

    /// The kept records from this index on.
    pub(crate) fn from(&self, index: u64) -> impl Iterator<Item = &(Record, Owner)> {
        let skipped = index.saturating_sub(self.first_index()).min(self.records.len() as u64);
        self.records.range(usize::try_from(skipped).unwrap_or(0)..)
    }
}
