//! What needs a spare of a pool that has none ready: a job that has to run alone, a user who waits for a lent slot, or
//! one whom no worker of the pool may serve.
//!
//! Asked after the dispatch of a turn, so that what a worker has run nothing for was offered already. `worker/spares.rs` has the
//! rules, and knows itself which workers are due to be recycled.

use bulkhead_proto::ids::PoolId;

use crate::machine::Core;

impl Core {
    /// Says which pools need a spare that they are to have on demand alone.
    pub(super) fn need_spares(&mut self) {
        if self.drain.is_leaving() {
            return;
        }
        for id in self.workers.pool_ids() {
            if self.workers.pool(id).has_spares_on_demand() {
                let waits = self.first_alone(id).is_some()
                    || self.workers.would_lend(&self.turn, id)
                    || self.waits_for_own_worker(id);
                self.workers.need_spare(&mut self.turn, id, waits);
            }
        }
    }

    /// Whether a user has a task in the queue of a pool and may hold a worker, and all workers of it serve others.
    fn waits_for_own_worker(&self, id: PoolId) -> bool {
        let serves_others = |uid| self.workers.serves_others_alone(id, uid);
        let may_have_one = |uid| self.workers.may_hold_more(id, uid);
        self.workers.serves_one(id)
            && self.jobs.waiting_users(id).any(|uid| may_have_one(uid) && serves_others(uid))
    }
}
