//! Lent slots: which tasks their workers are offered, and who is lent one. Nothing here delays a worker of a pool's own.
//!
//! A lent worker is offered tasks of its user alone, one at a time: a task that has to run alone if the worker has run nothing,
//! else the first in the queue. Without one the worker leaves. `dispatch` calls `lend` last in each pool, so that whoever can
//! run in an own slot does. `worker/lending.rs` has the states of a lent slot, and says when one may be lent.

use bulkhead_proto::ids::PoolId;

use crate::job::{TakeChoice, TaskRun};
use crate::machine::Core;
use crate::machine::outputs::has_room;

impl Core {
    /// Offers tasks to lent workers of a pool, and lends slots to users who have waited long enough.
    pub(super) fn lend(&mut self, pool: PoolId) {
        if !self.workers.lends(pool) {
            return;
        }
        self.go_on_lent(pool);
        let waiting = self.jobs.waiting_users(pool).collect();
        self.workers.note_waiting(&mut self.turn, pool, waiting);
        for uid in self.workers.borrowers(&self.turn, pool) {
            if !self.workers.may_lend(pool) {
                return;
            }
            let run = self.take_alone_of(pool, uid).or_else(|| self.take_of(pool, uid));
            match run {
                Some(run) => {
                    let worker = self.workers.lend(&mut self.turn, pool, uid);
                    self.offer_alone(worker, run);
                }
                // Its tasks stand in rings behind those of others, or may not run now.
                None => self.workers.recall_ahead(&mut self.turn, pool, uid),
            }
        }
    }

    /// Offers each idle lent worker a task of its user, or asks it to leave.
    fn go_on_lent(&mut self, pool: PoolId) {
        for (id, uid) in self.workers.lent_idle(pool) {
            if self.workers.recycle_lent(&mut self.turn, id) {
                continue;
            }
            let is_fresh = self.workers.get(id).is_some_and(|worker| worker.is_fresh());
            let waits_alone = self.jobs.first_alone_of(pool, uid).is_some();
            let run = match is_fresh {
                true => self.take_alone_of(pool, uid).or_else(|| self.take_of(pool, uid)),
                // It makes room for a spare, which may run alone what this one may not.
                false if waits_alone && self.workers.pool(pool).has_spare() => None,
                false => self.take_of(pool, uid),
            };
            match run {
                Some(run) => self.offer_alone(id, run),
                None => self.workers.retire(&mut self.turn, id),
            }
        }
    }

    /// Takes a task of a user that has to run alone.
    fn take_alone_of(&mut self, pool: PoolId, uid: u32) -> Option<TaskRun> {
        let first = self.jobs.first_alone_of(pool, uid)?;
        let is_short = self.workers.is_short() && first.needs_any_descriptor();
        if is_short || !has_room(&self.ledger, &self.turn, &first) {
            return None;
        }
        self.jobs.take_alone(pool, uid)
    }

    /// Takes a task of a user from the queue.
    fn take_of(&mut self, pool: PoolId, uid: u32) -> Option<TaskRun> {
        let (slots, short) = (self.workers.pool(pool).size(), self.workers.is_short());
        let (ledger, turn) = (&self.ledger, &self.turn);
        self.jobs.take_of(turn, (pool, uid), |candidate| {
            let is_short = short && candidate.needs_any_descriptor() || !has_room(ledger, turn, candidate);
            match is_short || candidate.plan_waits(slots) || candidate.has_expired(turn) {
                true => TakeChoice::Skip,
                false => TakeChoice::Take,
            }
        })
    }
}
