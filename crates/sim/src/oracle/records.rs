//! `records`: indices count up from 1 without a gap, and a client that asks for events gets the records that were made, of
//! each death at least that a worker died. Once more were made than are kept, any may be dropped between those that are
//! shown.
//!
//! It keeps every record, so that one that is shown differently later is noticed. `verdicts.rs` judges the truth of records
//! about jobs, `pool.rs` of those about workers.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_proto::client::record::{Record, What};

use crate::report::{Verdict, broken};

/// Every record that was made.
#[derive(Debug, Default)]
pub struct RecordOracle {
    all: BTreeMap<u64, Record>,
    last: u64,
    /// How many are kept.
    max: u64,
    /// Workers that were stuck.
    pub stuck: u64,
    /// Deaths that were charged.
    pub charges: u64,
}

impl RecordOracle {
    /// Before the first record of a daemon that keeps so many.
    pub fn new(max: usize) -> Self {
        Self { max: max as u64, ..Self::default() }
    }

    /// One was made.
    ///
    /// # Errors
    /// Its index does not follow the last one's.
    pub fn made(&mut self, record: &Record) -> Verdict {
        if record.index != self.last + 1 {
            return broken("records", format!("record {} follows record {}", record.index, self.last));
        }
        self.last = record.index;
        match &record.what {
            What::Stuck { .. } => self.stuck += 1,
            What::Blamed { .. } => self.charges += 1,
            _ => {}
        }
        self.all.insert(record.index, record.clone());
        Ok(())
    }

    /// Some were shown to a client.
    ///
    /// # Errors
    /// They are not those that were made, or a death between them is missing.
    pub fn streamed(&self, records: &[Record]) -> Verdict {
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return Ok(()) };
        if let Some(strange) = records.iter().find(|record| !self.was_made(record)) {
            return broken("records", format!("a client is shown {strange:?}, which never was"));
        }
        if self.last > self.max {
            return Ok(());
        }
        let shown: BTreeSet<u64> = records.iter().map(|record| record.index).collect();
        let mut deaths =
            self.all.range(first.index..=last.index).filter(|(_, record)| is_death(&record.what));
        match deaths.find(|(index, _)| !shown.contains(index)) {
            Some((_, hidden)) => broken("records", format!("a client is not shown {hidden:?}")),
            None => Ok(()),
        }
    }

    /// Whether a record was made so, or stands for a death that was.
    fn was_made(&self, shown: &Record) -> bool {
        let Some(made) = self.all.get(&shown.index) else { return false };
        match (&made.what, &shown.what) {
            (What::Died { worker, slot, .. }, What::WorkerGone { worker: gone, slot: left }) => {
                (worker, slot, made.at_us) == (gone, left, shown.at_us)
            }
            _ => made == shown,
        }
    }
}

fn is_death(what: &What) -> bool {
    matches!(what, What::Died { .. })
}
