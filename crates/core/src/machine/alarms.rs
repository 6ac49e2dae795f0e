//! Alarms whose time has come: each leads to the file that says what is to be done.
//!
//! Each looks first whether what it was set for still holds.

use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::ids::{JobId, WorkerId};

use crate::action::Action;
use crate::event::Leftover;
use crate::machine::Core;
use crate::turn::{Alarm, WorkerAlarm};

impl Core {
    pub(super) fn ring(&mut self, alarm: Alarm) {
        match alarm {
            Alarm::Worker(alarm, worker) => self.ring_worker(alarm, worker),
            Alarm::Backoff(job) => self.jobs.backoff_over(job),
            Alarm::Progress(job) => self.progress_due(job),
            Alarm::Expiry(first, count) => self.expire(first, count),
            Alarm::Vanished(client) => self.vanish(client),
            Alarm::Shortage => self.shortage.try_again(),
            Alarm::Grace => self.grace_over(),
        }
    }

    fn ring_worker(&mut self, alarm: WorkerAlarm, worker: WorkerId) {
        match alarm {
            WorkerAlarm::Overdue => self.worker_overdue(worker),
            WorkerAlarm::Limit => self.limit_met(worker),
            WorkerAlarm::Watch => self.watch_due(worker),
            WorkerAlarm::Stopped => self.suspended_too_long(worker),
            WorkerAlarm::EndOrder => self.turn.act(Action::Look { worker }),
            WorkerAlarm::Resume => self.resume(worker),
            WorkerAlarm::Survival => self.survived(worker),
        }
    }

    /// Jobs of one batch have waited for their first attempt for too long.
    fn expire(&mut self, first: JobId, count: u32) {
        for run in self.jobs.expired(&self.turn, first, count) {
            self.end_task(run, Outcome::Expired, Leftover::Nothing);
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
