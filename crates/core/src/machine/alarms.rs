//! The small alarms: jobs that waited too long, workers that may be tried again.
//!
//! Each looks first whether what it was set for still holds. Nothing here sets an alarm of its own.

use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::ids::{JobId, WorkerId};

use crate::job::entry::{Left, State};
use crate::machine::Core;
use crate::turn::WorkerAlarm;

impl Core {
    /// Jobs of one batch have waited for their first attempt for too long.
    pub(crate) fn expire(&mut self, first: JobId, count: u32) {
        for number in first.0..first.0 + u64::from(count) {
            let Some(key) = self.jobs.find(JobId(number)) else { continue };
            let job = &self.jobs[key];
            let over = self.jobs.batch(key).expiry.at_ns().is_some_and(|at_ns| at_ns <= self.turn.now_ns());
            if over && job.never_began() && matches!(job.state, State::Queued) {
                self.end_job(key, Outcome::Expired, Left::Nothing);
            }
        }
    }

    /// A worker whose channel was full may be offered tasks again.
    pub(crate) fn resume(&mut self, id: WorkerId) {
        let Some(worker) = self.pools.workers.get_mut(&id) else { return };
        worker.cancel(&mut self.turn, id, WorkerAlarm::Resume);
        worker.full = false;
    }

    /// A worker of a degraded pool has lived for a whole period.
    pub(crate) fn survived(&mut self, id: WorkerId) {
        if let Some(worker) = self.pools.workers.get_mut(&id) {
            worker.rang(WorkerAlarm::Survival);
        }
        self.worker_works(id);
    }
}
