//! How many workers of a pool each user holds.
//!
//! A worker with a slot is held by the user of the first task in its ring: it has claimed that task, or claims it next. The
//! offers behind that task do not count. A stuck worker is held by nobody: it counts as stuck for that user, and without a task for the only user whom it
//! served, if it had too many files to close. `offer_to`,
//! `settle`, `note_stuck` and `remove` keep the counts, in constant time for each task; `machine/dispatch.rs` passes changed
//! counts on to the queue. `held_max.rs` says how
//! many a user may hold.

use std::collections::BTreeMap;

use bulkhead_proto::ids::PoolId;

use crate::turn::Owner;
use crate::worker::state::WorkerDuty;
use crate::worker::{Worker, Workers};

/// The user for whom a worker counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HolderClaim {
    uid: u32,
    is_stuck: bool,
}

impl HolderClaim {
    /// The user.
    pub(super) fn uid(self) -> u32 {
        self.uid
    }
}

/// What one user holds of a pool. Not both are 0.
#[derive(Debug)]
struct HeldRow {
    uid: u32,
    held: u32,
    stuck: u32,
}

/// The users who hold workers of one pool, or for whose tasks workers of it are stuck. Sorted by user; no longer than the pool
/// has workers.
#[derive(Debug, Default)]
pub(super) struct HeldWorkers {
    rows: Vec<HeldRow>,
    /// Users whose row has changed since it was last passed on.
    changed: Vec<u32>,
}

impl HeldWorkers {
    /// The number of workers that this user holds.
    pub(super) fn of(&self, uid: u32) -> u32 {
        self.place(uid).map_or(0, |at| self.rows[at].held)
    }

    /// The number of stuck workers whose task is this user's.
    pub(super) fn stuck_of(&self, uid: u32) -> u32 {
        self.place(uid).map_or(0, |at| self.rows[at].stuck)
    }

    fn place(&self, uid: u32) -> Result<usize, usize> {
        self.rows.binary_search_by_key(&uid, |row| row.uid)
    }

    /// One more.
    fn add(&mut self, claim: HolderClaim) {
        let at = self.place(claim.uid).unwrap_or_else(|at| {
            self.rows.insert(at, HeldRow { uid: claim.uid, held: 0, stuck: 0 });
            at
        });
        *self.rows[at].count(claim) += 1;
    }

    /// One less.
    ///
    /// # Panics
    /// If this user holds none.
    fn less(&mut self, claim: HolderClaim) {
        let uid = claim.uid;
        let at = self.place(uid).unwrap_or_else(|_| panic!("user {uid} gives back a worker and holds none"));
        let count = self.rows[at].count(claim);
        *count =
            count.checked_sub(1).unwrap_or_else(|| panic!("user {uid} gives back a worker and holds none"));
        if self.rows[at].is_empty() {
            self.rows.remove(at);
        }
    }

    /// A worker of this pool counts for `to` and no longer for `from`.
    pub(super) fn change(&mut self, from: Option<HolderClaim>, to: Option<HolderClaim>) {
        if from != to {
            // The next task of one user's own changes nothing, which is nearly every task.
            from.inspect(|claim| self.less(*claim));
            to.inspect(|claim| self.add(*claim));
            for claim in from.into_iter().chain(to) {
                if self.changed.last() != Some(&claim.uid) {
                    self.changed.push(claim.uid);
                }
            }
        }
    }

    /// The workers held and the stuck ones, over all users, for the audit.
    pub(super) fn totals(&self) -> (u32, u32) {
        (self.rows.iter().map(|row| row.held).sum(), self.rows.iter().map(|row| row.stuck).sum())
    }
}

impl HeldRow {
    fn count(&mut self, claim: HolderClaim) -> &mut u32 {
        if claim.is_stuck { &mut self.stuck } else { &mut self.held }
    }

    fn is_empty(&self) -> bool {
        self.held == 0 && self.stuck == 0
    }
}

impl<T: Copy> Worker<T> {
    /// The user who holds it, or whose task it is stuck with.
    pub(super) fn claim(&self) -> Option<HolderClaim> {
        let is_stuck = matches!(self.state, WorkerDuty::Stuck { .. });
        match (self.ring.head(), self.offered_for()) {
            (Some(head), _) if is_stuck || self.slot().is_some() => {
                Some(HolderClaim { uid: head.uid(), is_stuck })
            }
            // It was to leave, and files of the only user whom it served keep it.
            (None, Owner::User(uid)) if is_stuck && self.stats.unclosed > 0 => {
                Some(HolderClaim { uid, is_stuck })
            }
            _ => None,
        }
    }

    /// Its first task or its slot may have changed: counts it for its holder.
    pub(super) fn note_holder(&mut self, held: &mut HeldWorkers) {
        let claim = self.claim();
        held.change(std::mem::replace(&mut self.counted_for, claim), claim);
    }
}

impl<T: Copy> Workers<T> {
    /// How many workers of a pool this user holds: those whose first task is of the user.
    pub(crate) fn held_by(&self, pool: PoolId, uid: u32) -> u32 {
        self.pool(pool).held.of(uid)
    }

    /// How many workers of a pool are stuck with a task of this user.
    pub(crate) fn stuck_of(&self, pool: PoolId, uid: u32) -> u32 {
        self.pool(pool).held.stuck_of(uid)
    }

    /// The workers that a user holds; `None`: as many as the user's stuck workers allow.
    fn standing(&self, pool: PoolId, uid: u32) -> Option<u32> {
        let held = self.held_by(pool, uid);
        Some(held).filter(|held| self.held_max_beside_stuck(pool, uid).is_none_or(|most| *held < most))
    }

    /// A user whose count in a pool has changed since this was last asked, and the count; `None`: as many workers as the user's
    /// stuck ones allow.
    pub(crate) fn next_held_change(&mut self, pool: PoolId) -> Option<(u32, Option<u32>)> {
        let uid = self.pool_mut(pool).held.changed.pop()?;
        Some((uid, self.standing(pool, uid)))
    }

    /// The users who hold workers of a pool, and how many, as the queue was told; `None` while a change is not passed on.
    pub(crate) fn all_held(&self, pool: PoolId) -> Option<BTreeMap<u32, Option<u32>>> {
        let held = &self.pool(pool).held;
        let standings = held.rows.iter().map(|row| (row.uid, self.standing(pool, row.uid)));
        held.changed.is_empty().then(|| standings.filter(|(_, standing)| *standing != Some(0)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn works(uid: u32) -> Option<HolderClaim> {
        Some(HolderClaim { uid, is_stuck: false })
    }

    fn stuck(uid: u32) -> Option<HolderClaim> {
        Some(HolderClaim { uid, is_stuck: true })
    }

    #[test]
    fn the_next_task_of_the_same_user_changes_nothing_and_the_last_one_ends_the_count() {
        let mut held = HeldWorkers::default();
        held.change(None, works(7));
        held.change(None, works(3));
        held.change(works(7), works(7));
        held.change(None, works(7));
        assert_eq!((held.of(7), held.of(3), held.of(5), held.totals()), (2, 1, 0, (3, 0)));
        held.change(works(7), works(3));
        held.change(works(7), None);
        assert_eq!((held.of(7), held.of(3), held.rows.len()), (0, 2, 1));
    }

    #[test]
    fn a_stuck_worker_is_held_by_nobody_and_counts_for_its_user() {
        let mut held = HeldWorkers::default();
        held.change(None, works(7));
        held.changed.clear();
        held.change(works(7), stuck(7));
        assert_eq!((held.of(7), held.stuck_of(7), held.totals()), (0, 1, (0, 1)));
        assert_eq!(held.changed, [7], "the queue hears of it");
        held.change(stuck(7), None);
        assert_eq!((held.stuck_of(7), held.rows.len()), (0, 0));
    }

    #[test]
    #[should_panic(expected = "user 7 gives back a worker and holds none")]
    fn a_worker_is_given_back_once() {
        HeldWorkers::default().change(works(7), None);
    }

    #[test]
    #[should_panic(expected = "user 7 gives back a worker and holds none")]
    fn a_stuck_worker_is_not_given_back_as_one_that_works() {
        let mut held = HeldWorkers::default();
        held.change(None, stuck(7));
        held.change(works(7), None);
    }
}
