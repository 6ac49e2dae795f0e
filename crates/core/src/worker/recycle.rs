//! Recycling: workers that have run enough tasks, are old or have grown are replaced by spares, one by one.
//!
//! Only a spare that stands ready makes room, so the pool never has fewer workers for it; without one (slow spawns, a
//! degraded pool) the old worker goes on. A due worker that holds short tasks is offered no more of them while a
//! spare is ready, so that it comes to its end under full load too. It leaves idle: no task is lost, no job charged,
//! and a worker that was asked to leave is no fault of the pool.
//!
//! Looked at in turns that happen anyway: an idle pool does not age, and a spare has run nothing. The size of a
//! worker is examined after a task of it ended, at most once in [`SIZE_EVERY_MS`].

use bulkhead_proto::client::evidence::Seen;
use bulkhead_proto::client::record::{Enough, What};
use bulkhead_proto::ids::WorkerId;

use crate::action::Action;
use crate::config::Config;
use crate::machine::{Core, Worker};
use crate::turn::ms;

/// How often the size of one worker is examined at most, in milliseconds.
const SIZE_EVERY_MS: u64 = 1000;

/// Whether a worker has done its share: it has run something, and what it holds makes it enough.
pub(crate) fn is_due(worker: &Worker, config: &Config, now_ns: u64) -> bool {
    why_due(worker, config, now_ns).is_some()
}

/// What is enough of it.
fn why_due(worker: &Worker, config: &Config, now_ns: u64) -> Option<Enough> {
    let ended = worker.ended + worker.claims.len() as u64;
    let over = |limit: Option<u64>, value: u64| limit.is_some_and(|limit| value >= limit);
    let age_ns = now_ns.saturating_sub(worker.ready_ns);
    let bytes = worker.resident_bytes;
    match () {
        () if worker.ended == 0 => None,
        () if over(config.recycle_tasks, ended) => Some(Enough::Tasks { ended }),
        () if over(config.recycle_age_ms.map(ms), age_ns) => Some(Enough::Age { ms: age_ns / ms(1) }),
        () if over(config.recycle_resident_bytes, bytes) => Some(Enough::Resident { bytes }),
        () => None,
    }
}

impl Core {
    /// Gives the slots of idle workers that are due to ready spares.
    pub(crate) fn recycle(&mut self) {
        let config = self.turn.config();
        let limits = [config.recycle_tasks, config.recycle_age_ms, config.recycle_resident_bytes];
        if limits.iter().all(Option::is_none) || self.drain.is_leaving() {
            return;
        }
        for slot in 0..self.pools.slots.len() {
            let Some(pool) = self.pools.in_slot(slot).map(|(_, worker)| worker.pool) else { continue };
            let Some(&spare) = self.pools[pool].spares.front() else { continue };
            let idle = self.pools.in_slot(slot).filter(|(_, worker)| worker.is_idle());
            let due = idle.and_then(|(id, worker)| {
                Some((id, why_due(worker, self.turn.config(), self.turn.now_ns())?))
            });
            if let Some((old, why)) = due {
                self.turn.record(What::Recycled { worker: old, why }, None);
                self.retire(old);
                self.place(spare, slot);
            }
        }
    }

    /// A worker has ended a task: it may have grown.
    pub(crate) fn weigh(&mut self, id: WorkerId) {
        let Some(worker) = self.pools.workers.get_mut(&id) else { return };
        let now_ns = self.turn.now_ns();
        if self.turn.config().recycle_resident_bytes.is_some() && now_ns >= worker.weigh_from_ns {
            worker.weigh_from_ns = now_ns.saturating_add(ms(SIZE_EVERY_MS));
            self.turn.act(Action::Examine { worker: id });
        }
    }

    /// A worker was examined, for whatever reason.
    pub(crate) fn note_size(&mut self, id: WorkerId, seen: Option<&Seen>) {
        if let (Some(worker), Some(seen)) = (self.pools.workers.get_mut(&id), seen) {
            worker.resident_bytes = seen.resident_bytes;
        }
    }
}
