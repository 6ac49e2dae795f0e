//! How many workers of a pool each user holds.
//!
//! A worker with a slot is held by the user of the first task in its ring: it has claimed that task, or claims it next. The
//! offers behind that task do not count. A stuck worker is held by nobody. `offer_to`, `settle`, `note_stuck` and `remove` keep
//! the count, in constant time for each task; `machine/dispatch.rs` passes changed counts on to the queue.

use std::collections::BTreeMap;

use bulkhead_proto::ids::PoolId;

use crate::worker::state::WorkerDuty;
use crate::worker::{Worker, Workers};

/// The users who hold workers of one pool, and how many each holds: never 0. Sorted by user; no longer than the pool has slots.
#[derive(Debug, Default)]
pub(super) struct HeldWorkers {
    counts: Vec<(u32, u32)>,
    /// Users whose count has changed since it was last passed on.
    changed: Vec<u32>,
}

impl HeldWorkers {
    /// The number of workers that this user holds.
    pub(super) fn of(&self, uid: u32) -> u32 {
        self.place(uid).map_or(0, |at| self.counts[at].1)
    }

    fn place(&self, uid: u32) -> Result<usize, usize> {
        self.counts.binary_search_by_key(&uid, |(user, _)| *user)
    }

    /// One more.
    fn add(&mut self, uid: u32) {
        match self.place(uid) {
            Ok(at) => self.counts[at].1 += 1,
            Err(at) => self.counts.insert(at, (uid, 1)),
        }
    }

    /// One less.
    ///
    /// # Panics
    /// If this user holds none.
    fn less(&mut self, uid: u32) {
        let at = self.place(uid).unwrap_or_else(|_| panic!("user {uid} gives back a worker and holds none"));
        self.counts[at].1 -= 1;
        if self.counts[at].1 == 0 {
            self.counts.remove(at);
        }
    }

    /// A worker of this pool is held by `to` and no longer by `from`.
    pub(super) fn change(&mut self, from: Option<u32>, to: Option<u32>) {
        if from != to {
            // The next task of one user's own changes nothing, which is nearly every task.
            from.inspect(|uid| self.less(*uid));
            to.inspect(|uid| self.add(*uid));
            for uid in from.into_iter().chain(to) {
                if self.changed.last() != Some(&uid) {
                    self.changed.push(uid);
                }
            }
        }
    }

    /// The sum over all users, for the audit.
    pub(super) fn total(&self) -> u32 {
        self.counts.iter().map(|(_, count)| count).sum()
    }
}

impl<T: Copy> Worker<T> {
    /// The user who holds it, if one does.
    pub(super) fn holder(&self) -> Option<u32> {
        let has_slot = self.slot().is_some() && !matches!(self.state, WorkerDuty::Stuck { .. });
        self.ring.head().filter(|_| has_slot).map(|head| head.uid())
    }

    /// Its first task or its slot may have changed: counts it for its holder.
    pub(super) fn note_holder(&mut self, held: &mut HeldWorkers) {
        let holder = self.holder();
        held.change(std::mem::replace(&mut self.counted_for, holder), holder);
    }
}

impl<T: Copy> Workers<T> {
    /// How many workers of a pool this user holds: those whose first task is of the user.
    pub(crate) fn held_by(&self, pool: PoolId, uid: u32) -> u32 {
        self.pool(pool).held.of(uid)
    }

    /// Whether a user may hold one more worker of a pool.
    pub(crate) fn may_hold_more(&self, pool: PoolId, uid: u32) -> bool {
        self.running_max(pool).is_none_or(|most| self.held_by(pool, uid) < most)
    }

    /// Most workers of a pool that one user may hold, if that is bounded.
    pub(crate) fn running_max(&self, pool: PoolId) -> Option<u32> {
        self.pool(pool).running_max
    }

    /// A user whose count in a pool has changed since this was last asked, and the count.
    pub(crate) fn next_held_change(&mut self, pool: PoolId) -> Option<(u32, u32)> {
        let held = &mut self.pool_mut(pool).held;
        let uid = held.changed.pop()?;
        Some((uid, held.of(uid)))
    }

    /// The users who hold workers of a pool, and how many; `None` while a change is not passed on.
    pub(crate) fn all_held(&self, pool: PoolId) -> Option<BTreeMap<u32, u32>> {
        let held = &self.pool(pool).held;
        held.changed.is_empty().then(|| held.counts.iter().copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_task_of_the_same_user_changes_nothing_and_the_last_one_ends_the_count() {
        let mut held = HeldWorkers::default();
        held.change(None, Some(7));
        held.change(None, Some(3));
        held.change(Some(7), Some(7));
        held.change(None, Some(7));
        assert_eq!((held.of(7), held.of(3), held.of(5), held.total()), (2, 1, 0, 3));
        held.change(Some(7), Some(3));
        held.change(Some(7), None);
        assert_eq!((held.of(7), held.of(3), held.counts.len()), (0, 2, 1));
    }

    #[test]
    #[should_panic(expected = "user 7 gives back a worker and holds none")]
    fn a_worker_is_given_back_once() {
        HeldWorkers::default().change(Some(7), None);
    }
}
