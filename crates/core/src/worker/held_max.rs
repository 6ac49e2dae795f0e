//! How many workers of a pool a user may hold: `running_max`, and what the user's stuck workers leave.
//!
//! A worker gets stuck because of its task, for example one that waits for a file system that never answers. So where a daemon
//! has several users, one user's stuck workers must not take the pool from the others. Of a pool with N slots, in which at most
//! N stuck workers are replaced:
//!
//! | the user's stuck workers | the user may hold, beside `running_max` |
//! |---|---|
//! | none, and fewer than N stuck workers were replaced | all |
//! | none, and N were replaced | half of the slots, at least one |
//! | S | half of the slots, less S |
//!
//! All workers that a user holds may get stuck at once, and the bound of the last row begins with the first of them: one user
//! never has more than N stuck workers, and all of them are replaced. `held.rs` counts; dispatch, balance and loans ask.

use bulkhead_proto::ids::PoolId;

use crate::action::Action;
use crate::config::Users;
use crate::turn::Turn;
use crate::worker::Workers;

impl<T: Copy> Workers<T> {
    /// Whether a user may hold one more worker of a pool.
    pub(crate) fn may_hold_more(&self, pool: PoolId, uid: u32) -> bool {
        let bounds = [self.held_max(pool), self.held_max_beside_stuck(pool, uid)];
        bounds.into_iter().flatten().all(|most| self.held_by(pool, uid) < most)
    }

    /// Whether there is a bound on the workers of a pool that a user may hold.
    pub(crate) fn is_bounded(&self, pool: PoolId, uid: u32) -> bool {
        self.held_max(pool).is_some() || self.stuck_of(pool, uid) > 0
    }

    /// Most workers of a pool that any one user may hold, if that is bounded.
    pub(crate) fn held_max(&self, pool: PoolId) -> Option<u32> {
        let half = self.half_of_exhausted(pool);
        self.running_max(pool).into_iter().chain(half).min()
    }

    /// Most workers of a pool that one user may hold by its configuration, if that is bounded.
    pub(crate) fn running_max(&self, pool: PoolId) -> Option<u32> {
        self.pool(pool).running_max
    }

    /// Most workers of a pool that a user may hold because of stuck workers, the user's own or all of the pool.
    pub(crate) fn stuck_max(&self, pool: PoolId, uid: u32) -> Option<u32> {
        self.half_of_exhausted(pool).into_iter().chain(self.held_max_beside_stuck(pool, uid)).min()
    }

    /// Half of the slots of a pool, if no further stuck worker of it is replaced and it has several users.
    fn half_of_exhausted(&self, pool: PoolId) -> Option<u32> {
        let of_pool = self.pool(pool);
        let is_exhausted = of_pool.stuck_replaced == of_pool.size() && self.users == Users::Several;
        is_exhausted.then(|| half(of_pool.size()).max(1))
    }

    /// Most workers of a pool that a user may hold for whose tasks workers of it are stuck.
    pub(super) fn held_max_beside_stuck(&self, pool: PoolId, uid: u32) -> Option<u32> {
        let stuck = self.stuck_of(pool, uid);
        let is_several = self.users == Users::Several;
        (stuck > 0 && is_several).then(|| half(self.pool(pool).size()).saturating_sub(stuck))
    }

    /// Takes back the offers of a user, whose workers are bounded from now on, that stand behind tasks of others: each would be
    /// one worker more.
    pub(super) fn recall_bounded(&mut self, turn: &mut Turn, pool: PoolId, uid: u32) {
        for id in self.in_slots(pool).map(|(id, _)| id).collect::<Vec<_>>() {
            let Some(worker) = self.table.get_mut(&id) else { continue };
            for seq in worker.ring.recall_of(uid) {
                turn.act(Action::TakeBack { worker: id, seq });
            }
        }
    }
}

fn half(slots: usize) -> u32 {
    u32::try_from(slots / 2).unwrap_or(u32::MAX)
}
