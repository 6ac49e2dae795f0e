//! Spares on demand, of a pool whose configuration wants no spare: one worker beyond its slots, while something needs it.
//!
//! A job that has to run alone, a worker that is due to be recycled and a user to whom a slot is to be lent need a worker that
//! has run nothing. A pool with spares has one ready; a pool without starts one then:
//!
//! | needed | a slot is vacant | what happens |
//! |---|---|---|
//! | yes | yes | nothing: the worker that comes up for the slot has run nothing |
//! | yes | no | one spare is spawned; it stays until it has a slot, or nothing needs it |
//! | no | any | nothing is spawned; a spare that came up in vain is asked to leave |
//!
//! So such a pool has at most one worker more than slots and lent slots, and the old worker goes on until the new one is up.
//! `machine/spares.rs` says each turn what is needed.

use bulkhead_proto::ids::PoolId;

use crate::config::PoolSize;
use crate::turn::Turn;
use crate::worker::recycle::is_due;
use crate::worker::state::WorkerDuty;
use crate::worker::{Pool, Workers};

impl PoolSize {
    /// The most spares that it has at a time: one is started on demand where it is to have none.
    pub fn spares_most(&self) -> u16 {
        self.spares.max(1)
    }
}

impl Pool {
    /// Whether it has spares only while something needs one.
    pub(crate) fn has_spares_on_demand(&self) -> bool {
        self.spares_usual == 0
    }

    /// The spares that it should have now.
    pub(super) fn spares_wanted(&self) -> usize {
        usize::from(self.spares_usual) + usize::from(self.is_spare_needed)
    }
}

impl<T: Copy> Workers<T> {
    /// Says whether a task or a user needs a spare of a pool that has them on demand. Spares that nothing needs are asked to
    /// leave.
    pub(crate) fn need_spare(&mut self, turn: &mut Turn, id: PoolId, is_waited_for: bool) {
        let is_needed = is_waited_for || self.has_due(turn, id);
        let pool = self.pool_mut(id);
        pool.is_spare_needed = is_needed && pool.vacant == 0;
        while self.pool(id).vacant == 0 && self.pool(id).spares.len() > self.pool(id).spares_wanted() {
            let Some(&spare) = self.pool(id).spares.front() else { return };
            self.retire(turn, spare);
        }
    }

    /// Whether a worker of a pool is due to be recycled.
    fn has_due(&self, turn: &Turn, id: PoolId) -> bool {
        let works = |state: &WorkerDuty| matches!(state, WorkerDuty::Idle { .. } | WorkerDuty::Busy { .. });
        let mut own = self.table.values().filter(|worker| worker.pool == id && works(&worker.state));
        own.any(|worker| is_due(worker, turn))
    }
}
