//! `records`: indices count up from 1 without a gap, and a client that asks for events gets the records that were made.
//!
//! It keeps every record, so that one that is shown differently later is noticed. `verdicts.rs` judges the truth of records
//! about jobs, `pool.rs` of those about workers.

use std::collections::BTreeMap;

use bulkhead_proto::client::record::{Record, What};

use crate::report::{Verdict, broken};

/// Every record that was made.
#[derive(Debug, Default)]
pub struct RecordOracle {
    all: BTreeMap<u64, Record>,
    last: u64,
    /// Workers that were stuck.
    pub stuck: u64,
    /// Deaths that were charged.
    pub charges: u64,
}

impl RecordOracle {
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
    /// They are not those that were made.
    pub fn streamed(&self, records: &[Record]) -> Verdict {
        match records.iter().find(|record| self.all.get(&record.index) != Some(record)) {
            Some(strange) => broken("records", format!("a client is shown {strange:?}, which never was")),
            None => Ok(()),
        }
    }
}
