//! Jobs of earlier runs that have left the table while the journal still loads such jobs: a chunk that was read before may have them.
//!
//! The journal reads one chunk after the other, the next one once the core has taken the last. So what has left and is stored when
//! a chunk is taken is in no later chunk. `reload.rs` leaves out what is here.

use std::collections::BTreeMap;

use bulkhead_facts::fact::FactNo;
use bulkhead_proto::ids::JobId;

use crate::turn::Turn;

/// The jobs, each with the last fact that there was when it left.
#[derive(Debug)]
pub(super) struct LeftEarly {
    /// Numbers of this run begin here.
    first: JobId,
    is_loading: bool,
    jobs: BTreeMap<JobId, FactNo>,
}

impl LeftEarly {
    /// Nothing has left. What earlier runs have left is loaded first.
    pub(super) fn new(first: JobId) -> Self {
        Self { first, is_loading: first > JobId(1), jobs: BTreeMap::new() }
    }

    /// A job has left the table.
    pub(super) fn note(&mut self, turn: &Turn, job: JobId) {
        if self.is_loading && job < self.first {
            self.jobs.insert(job, turn.facts().awaited().unwrap_or_default());
        }
    }

    /// A job is in the table again, because a client asked for that.
    pub(super) fn is_back(&mut self, job: JobId) {
        self.jobs.remove(&job);
    }

    /// Whether a job of a chunk has left.
    pub(super) fn has(&self, job: JobId) -> bool {
        self.jobs.contains_key(&job)
    }

    /// A chunk was taken; `is_last`: there are no more.
    pub(super) fn chunk_taken(&mut self, turn: &Turn, is_last: bool) {
        self.is_loading &= !is_last;
        self.jobs.retain(|_, after| !is_last && !turn.facts().is_stored(*after));
    }
}
