//! Alarms whose time has come: `ring` calls the method for each.
//!
//! That method checks first whether the reason for the alarm still holds.

use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::ids::JobId;

use crate::event::Leftover;
use crate::machine::Core;
use crate::turn::Alarm;

impl Core {
    /// An alarm went off.
    pub(super) fn ring(&mut self, alarm: Alarm) {
        match alarm {
            Alarm::Worker(alarm, worker) => self.ring_worker(alarm, worker),
            Alarm::Backoff(job) => self.jobs.backoff_over(job),
            Alarm::Progress(job) => self.progress_due(job),
            Alarm::Expiry(first, count) => self.expire(first, count),
            Alarm::Vanished(client) => self.vanish(client),
            Alarm::Lend(pool, uid) => self.workers.lend_due(pool, uid),
            Alarm::Shortage => self.workers.shortage_over(),
            Alarm::Grace => self.grace_over(),
        }
    }

    /// Jobs of one batch have waited for their first attempt for too long.
    fn expire(&mut self, first: JobId, count: u32) {
        for run in self.jobs.expired(&self.turn, first, count) {
            self.end_task(run, Outcome::Expired, Leftover::Nothing);
        }
    }
}
