//! Recycling: a worker that has run enough tasks, is old enough or has grown is replaced by a spare.
//!
//! Only idle workers are recycled, and only when a spare is ready: no task is lost, no job is charged, and the pool's restart
//! intensity is not. A pool that is to have no spare starts one for it (`spares.rs`). A worker that is due, meanwhile:
//!
//! | | a spare is ready | none is: slow spawns, a degraded pool |
//! |---|---|---|
//! | usually | no short tasks ahead, so that it becomes idle under full load too | it goes on |
//! | `recycle_strict` | it is offered nothing: it is spent | it is offered nothing, and waits for the spare |
//! | `recycle_strict`, in a lent slot | it leaves | it leaves, and its user waits for the next loan |
//!
//! So with `recycle_strict` no worker begins more than `recycle_tasks` tasks; offers that it has not begun count until they are taken back.
//! `Core::step` calls `recycle` each turn; no alarm is set for it, so an idle pool does not age. The size of a worker is
//! examined after one of its tasks has ended, at most once in [`SIZE_EVERY_MS`].

use bulkhead_proto::client::evidence::ProcessSeen;
use bulkhead_proto::client::record::{Enough, What};
use bulkhead_proto::client::view::WorkerState;
use bulkhead_proto::ids::{PoolId, WorkerId};

use crate::action::Action;
use crate::turn::{Turn, ms};
use crate::worker::{Worker, Workers};

/// The least time between two examinations of the size of one worker, in milliseconds.
const SIZE_EVERY_MS: u64 = 1000;

/// Whether a worker is due: it has ended a task, and meets a limit when its offers have ended.
pub(super) fn is_due<T: Copy>(worker: &Worker<T>, turn: &Turn) -> bool {
    why_due(worker, turn).is_some()
}

/// The limit that makes a worker due, if one does.
fn why_due<T: Copy>(worker: &Worker<T>, turn: &Turn) -> Option<Enough> {
    let config = turn.config();
    let ended = worker.ended() + worker.ring.len() as u64;
    let over = |limit: Option<u64>, value: u64| limit.is_some_and(|limit| value >= limit);
    let age_ns = turn.now_ns().saturating_sub(worker.process.ready_ns);
    let bytes = worker.stats.resident_bytes;
    match () {
        () if worker.has_many_unclosed() => Some(Enough::Unclosed { files: worker.stats.unclosed }),
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
        if limits.iter().all(Option::is_none) && !self.has_unclosed {
            return;
        }
        self.note_worn(turn);
        for slot in 0..self.slot_count() {
            let Some(pool) = self.in_slot(slot).map(|(_, worker)| worker.pool) else { continue };
            let Some(&spare) = self.pool(pool).spares.front() else { continue };
            let idle = self.in_slot(slot).filter(|(_, worker)| worker.is_at_rest());
            let due = idle.and_then(|(id, worker)| Some((id, why_due(worker, turn)?, worker.owner())));
            if let Some((old, why, owner)) = due.filter(|(_, why, _)| self.may_leave(pool, why)) {
                turn.record(What::Recycled { worker: old, why }, owner);
                self.retire(turn, old);
                self.place(turn, spare, slot);
            }
        }
    }

    /// Whether a worker that is due may be replaced: one that may not be able to end only while fewer such are there than slots.
    fn may_leave(&self, pool: PoolId, why: &Enough) -> bool {
        let pool = self.pool(pool);
        let leaving = [WorkerState::Retiring, WorkerState::Killed, WorkerState::Stuck];
        let leaving: usize = leaving.into_iter().map(|state| pool.count(state)).sum();
        !matches!(why, Enough::Unclosed { .. }) || leaving < pool.size()
    }

    /// Notes which workers of pools that recycle strictly are too old or too large.
    fn note_worn(&mut self, turn: &Turn) {
        if !self.pools.iter().any(|pool| pool.recycle_strict) {
            return;
        }
        for worker in self.table.values_mut() {
            if self.pools[usize::from(worker.pool.0)].recycle_strict {
                let why = why_due(worker, turn);
                worker.is_worn = matches!(
                    why,
                    Some(Enough::Age { .. } | Enough::Resident { .. } | Enough::Unclosed { .. })
                );
            }
        }
    }

    /// Asks an idle worker in a lent slot that is due to leave, if a spare is ready: the slot is lent again at once. One that is
    /// spent leaves in any case.
    pub(crate) fn recycle_lent(&mut self, turn: &mut Turn, id: WorkerId) -> bool {
        let may_go = |worker: &&Worker<T>| self.pool(worker.pool).has_spare() || worker.is_spent();
        let Some(worker) = self.table.get(&id).filter(may_go) else { return false };
        let Some(why) = why_due(worker, turn) else { return false };
        turn.record(What::Recycled { worker: id, why }, worker.owner());
        self.retire(turn, id);
        true
    }

    /// A worker has ended a task and may have grown: examines its size, if that matters and it is time.
    pub(crate) fn check_size(&mut self, turn: &mut Turn, id: WorkerId) {
        // Asked after each task; most daemons have no such bound.
        if turn.config().recycle_resident_bytes.is_none() {
            return;
        }
        let Some(worker) = self.table.get_mut(&id) else { return };
        if turn.now_ns() >= worker.stats.check_size_from_ns {
            worker.stats.check_size_from_ns = turn.after_ms(SIZE_EVERY_MS);
            turn.act(Action::Examine { worker: id });
        }
    }

    /// A worker says how many files of clients it has to close. With too many (`has_many_unclosed`) their closes hang, and it is due in
    /// every pool, as strictly: what it runs would add to them.
    ///
    /// If its process cannot end because of such files, it is stuck, for the user whom it served (`held.rs`). While as many workers
    /// of the pool are leaving or stuck as it has slots, it keeps its slot, and is offered nothing until its closes go on.
    pub(crate) fn note_unclosed(&mut self, id: WorkerId, files: u64) {
        if let Some(worker) = self.table.get_mut(&id) {
            worker.stats.unclosed = files;
            worker.is_worn = worker.has_many_unclosed();
            self.has_unclosed |= worker.is_worn;
            // One that is stuck counts for its user as long as it has any.
            worker.note_holder(&mut self.pools[usize::from(worker.pool.0)].held);
        }
    }

    /// A worker was examined: notes its size.
    pub(super) fn note_size(&mut self, id: WorkerId, seen: Option<&ProcessSeen>) {
        if let (Some(worker), Some(seen)) = (self.table.get_mut(&id), seen) {
            worker.stats.resident_bytes = seen.resident_bytes;
        }
    }
}
