//! Unfinished jobs of earlier runs come back into the queue.
//!
//! They keep their numbers, their counts and what was accepted. A job whose kind this daemon does not offer stays in the journal: it
//! waits for a daemon that does, and a record says so. While not all are loaded, new jobs take turns with those that are.

use bulkhead_proto::client::record::What;
use bulkhead_proto::ids::KindId;

use crate::event::ReloadedJobs;
use crate::job::Reloading;
use crate::machine::Core;
use crate::turn::{Counter, Owner};

impl Core {
    /// The journal has loaded some, or all that were left.
    pub(super) fn chunk_reloaded(&mut self, loaded: Vec<ReloadedJobs>, is_all: bool) {
        self.reloaded(loaded, is_all);
        self.jobs.chunk_taken(&self.turn, is_all);
    }

    /// Jobs of earlier runs go into the queue.
    pub(super) fn reloaded(&mut self, loaded: Vec<ReloadedJobs>, is_all: bool) {
        if !self.drain.is_open() {
            return;
        }
        for ReloadedJobs { submit, jobs } in loaded {
            let kinds = &self.turn.config().kinds;
            let Some(place) = kinds.iter().position(|kind| kind.name == submit.kind && !kind.plans) else {
                self.journal.kindless += jobs.len() as u64;
                let what = What::Kindless {
                    first: submit.first,
                    count: jobs.len() as u64,
                    kind: submit.kind.clone(),
                };
                self.turn.record(what, Owner::User(submit.uid));
                continue;
            };
            let kind = KindId(u16::try_from(place).expect("the table of kinds is short"));
            self.post_charges();
            let account = self.ledger.open(submit.uid);
            let pool = self.workers.pool_of_kind(kind);
            self.journal.reloaded += jobs.len() as u64;
            let first = self.first_of_this_run();
            let earlier = jobs.iter().filter(|job| job.job < first && self.jobs.find(job.job).is_none());
            self.turn.count(Counter::Accepted, earlier.count() as u64);
            self.jobs.reload(&mut self.turn, Reloading { submit, jobs, account, kind, pool });
        }
        let (jobs, kindless) = (self.journal.reloaded, self.journal.kindless);
        if is_all && jobs + kindless > 0 {
            self.turn.record(What::Reloaded { jobs, kindless }, Owner::Service);
        }
    }
}
