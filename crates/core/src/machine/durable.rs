//! What the journal tells the core.

use bulkhead_facts::fact::FactNo;
use bulkhead_proto::ids::JobId;

use crate::event::ReloadedJobs;
use crate::machine::Core;

impl Core {
    /// All facts up to this one are stored.
    pub(super) fn facts_stored(&mut self, up_to: FactNo) {
        self.turn.facts_stored(up_to);
        self.look_ups_go_on();
    }

    pub(super) fn submits_not_stored(&mut self, (_from, _to): (FactNo, FactNo), _why: &str) {}

    pub(super) fn key_known(&mut self, _fact: FactNo, _known: (JobId, u32), _is_same: bool) {}

    pub(super) fn journal_failed(&mut self, _why: String) {}

    pub(super) fn journal_recovered(&mut self) {}

    pub(super) fn journal_evicted(&mut self, jobs: &[JobId]) {
        jobs.iter().for_each(|job| self.look_ups.changed(*job));
    }

    pub(super) fn reloaded(&mut self, _jobs: Vec<ReloadedJobs>, _is_all: bool) {}

    pub(super) fn jobs_reserved(&mut self, _end: JobId) {}
}
