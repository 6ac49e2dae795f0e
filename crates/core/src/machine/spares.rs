//! What needs a spare of a pool that has none ready: a job that has to run alone, or a user who waits for a lent slot.
//!
//! Asked after the dispatch of a turn, so that what a worker has run nothing for was offered already. `worker/spares.rs` has the
//! rules, and knows itself which workers are due to be recycled.

use crate::machine::Core;

impl Core {
    /// Says which pools need a spare that they are to have on demand alone.
    pub(super) fn need_spares(&mut self) {
        if self.drain.is_leaving() {
            return;
        }
        for id in self.workers.pool_ids() {
            if self.workers.pool(id).has_spares_on_demand() {
                let waits = self.first_alone(id).is_some() || self.workers.would_lend(&self.turn, id);
                self.workers.need_spare(&mut self.turn, id, waits);
            }
        }
    }
}
