//! Alarms whose time has come: `ring_due` calls the method for each.
//!
//! That method checks first whether the reason for the alarm still holds.

use crate::machine::Core;
use crate::turn::Alarm;

/// Alarms that one turn rings: of a million jobs, the backoffs or expiries may come at one moment.
const ALARMS: usize = 4096;

impl Core {
    /// Rings the alarms whose time has come, in their order. If more are left, the next turn begins at once.
    pub(super) fn ring_due(&mut self) {
        for _ in 0..ALARMS {
            let Some(alarm) = self.turn.due() else { return };
            self.ring(alarm);
        }
    }

    /// An alarm went off.
    fn ring(&mut self, alarm: Alarm) {
        match alarm {
            Alarm::Worker(alarm, worker) => self.ring_worker(alarm, worker),
            Alarm::Backoff(job) => self.jobs.backoff_over(job),
            Alarm::Progress(job) => self.progress_due(job),
            Alarm::Expiry(first, count) => self.jobs.expire_soon(first, count),
            Alarm::Vanished(client) => self.vanish(client),
            Alarm::Lend(pool, uid) => self.workers.lend_due(pool, uid),
            Alarm::Shortage => self.workers.shortage_over(),
            Alarm::Grace => self.grace_over(),
        }
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_proto::ids::JobId;

    use super::*;
    use crate::config::Config;
    use crate::event::Now;
    use crate::turn::AlarmSlot;

    #[test]
    fn one_turn_rings_a_bounded_number_of_alarms_and_the_next_begins_at_once() {
        const LEFT: usize = 10;
        let mut core = Core::new(Config::default(), Now::default());
        for job in 0..(ALARMS + LEFT) as u64 {
            core.turn.set(&mut AlarmSlot::default(), Alarm::Expiry(JobId(job), 1), 0);
        }
        core.ring_due();
        assert_eq!((core.turn.alarms().count(), core.deadline()), (LEFT, Some(0)));
        core.ring_due();
        assert_eq!(core.turn.alarms().count(), 0);
    }
}
