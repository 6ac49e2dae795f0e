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
use crate::turn::{Turn, ms};
use crate::worker::{Worker, Workers};

/// How often the size of one worker is examined at most, in milliseconds.
const SIZE_EVERY_MS: u64 = 1000;

/// Whether a worker has done its share: it has run something, and what it holds makes it enough.
pub(super) fn is_due<T: Copy>(worker: &Worker<T>, turn: &Turn) -> bool {
    why_due(worker, turn).is_some()
}

/// What is enough of it.
fn why_due<T: Copy>(worker: &Worker<T>, turn: &Turn) -> Option<Enough> {
    let config = turn.config();
    let ended = worker.ended() + worker.ring.len() as u64;
    let over = |limit: Option<u64>, value: u64| limit.is_some_and(|limit| value >= limit);
    let age_ns = turn.now_ns().saturating_sub(worker.process.ready_ns);
    let bytes = worker.stats.resident_bytes;
    match () {
        () if worker.ended() == 0 => None,
        () if over(config.recycle_tasks, ended) => Some(Enough::Tasks { ended }),
        () if over(config.recycle_age_ms.map(ms), age_ns) => Some(Enough::Age { ms: age_ns / ms(1) }),
        () if over(config.recycle_resident_bytes, bytes) => Some(Enough::Resident { bytes }),
        () => None,
    }
}

impl<T: Copy> Workers<T> {
    /// Gives the slots of idle workers that are due to ready spares.
    pub(crate) fn recycle(&mut self, turn: &mut Turn) {
        let config = turn.config();
        let limits = [config.recycle_tasks, config.recycle_age_ms, config.recycle_resident_bytes];
        if limits.iter().all(Option::is_none) {
            return;
        }
        for slot in 0..self.slots.len() {
            let Some(pool) = self.in_slot(slot).map(|(_, worker)| worker.pool) else { continue };
            let Some(&spare) = self.pool(pool).spares.front() else { continue };
            let idle = self.in_slot(slot).filter(|(_, worker)| worker.is_idle());
            if let Some((old, why)) = idle.and_then(|(id, worker)| Some((id, why_due(worker, turn)?))) {
                turn.record(What::Recycled { worker: old, why }, None);
                self.retire(turn, old);
                self.place(turn, spare, slot);
            }
        }
    }

    /// A worker has ended a task: it may have grown.
    pub(crate) fn check_size(&mut self, turn: &mut Turn, id: WorkerId) {
        let Some(worker) = self.table.get_mut(&id) else { return };
        if turn.config().recycle_resident_bytes.is_some() && turn.now_ns() >= worker.stats.check_size_from_ns
        {
            worker.stats.check_size_from_ns = turn.after_ms(SIZE_EVERY_MS);
            turn.act(Action::Examine { worker: id });
        }
    }

    /// A worker was examined, for whatever reason.
    pub(super) fn note_size(&mut self, id: WorkerId, seen: Option<&Seen>) {
        if let (Some(worker), Some(seen)) = (self.table.get_mut(&id), seen) {
            worker.stats.resident_bytes = seen.resident_bytes;
        }
    }
}
