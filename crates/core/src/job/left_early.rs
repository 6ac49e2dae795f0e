//! Jobs of earlier runs that have left the table while the journal still loads such jobs: a chunk that was read before may have them.
//!
//! The journal may begin to read a chunk before the core has taken the one before, and none earlier. So a job that had left, and whose facts
//! were stored, when a chunk was taken may be in the next chunk and is in no later one. `reload.rs` leaves out the jobs that stand here.

use std::collections::BTreeMap;

use bulkhead_facts::fact::FactNo;
use bulkhead_proto::ids::JobId;

use crate::turn::Turn;

/// The jobs.
#[derive(Debug)]
pub(super) struct LeftEarly {
    /// Numbers of this run begin here.
    first: JobId,
    is_loading: bool,
    /// With the last fact that there was when the job left; `None`: it was stored when the last chunk was taken.
    jobs: BTreeMap<JobId, Option<FactNo>>,
}

impl LeftEarly {
    /// Nothing has left. What earlier runs have left is loaded first.
    pub(super) fn new(first: JobId) -> Self {
        Self { first, is_loading: first > JobId(1), jobs: BTreeMap::new() }
    }

    /// A job has left the table.
    pub(super) fn note(&mut self, turn: &Turn, job: JobId) {
        if self.is_loading && job < self.first {
            self.jobs.insert(job, Some(turn.facts().awaited().unwrap_or_default()));
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
        self.jobs.retain(|_, after| !is_last && after.is_some());
        for after in self.jobs.values_mut() {
            *after = after.filter(|after| !turn.facts().is_stored(*after));
        }
    }
}
