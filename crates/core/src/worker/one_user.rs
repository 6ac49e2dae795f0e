//! Pools whose workers serve one user each.
//!
//! The program of such a pool is not ours: what a task leaves in it - modules, open files, memory - is there for the next task. So
//! no task of one user runs in a worker that was offered one of another. Where an idle worker is to have a task of user U:
//!
//! | the worker was offered tasks of | the task goes to |
//! |---|---|
//! | nobody, or of U alone | it |
//! | another user, and a spare is ready | the spare, which takes its slot; it retires, which is no crash |
//! | another user, and no spare is ready | nobody: it waits, and the worker goes on for its own user |
//!
//! A task ahead goes to a worker of its own user alone. While a spare is ready for a user whose turn it is, busy workers of others
//! are not refilled, so that one becomes idle. `machine/dispatch.rs` drives this file.

use bulkhead_proto::ids::{PoolId, WorkerId};

use crate::turn::{Owner, Turn};
use crate::worker::{Worker, Workers};

impl<T: Copy> Worker<T> {
    /// Whether it was offered no task of another user.
    pub(crate) fn has_served_only(&self, uid: u32) -> bool {
        matches!(self.offered_for(), Owner::Service) || self.offered_for() == Owner::User(uid)
    }
}

impl<T: Copy> Workers<T> {
    /// Whether each worker of a pool serves one user.
    pub(crate) fn serves_one(&self, pool: PoolId) -> bool {
        self.pool(pool).one_user
    }

    /// Whether a worker of a pool may run tasks of this user.
    pub(crate) fn may_serve(&self, worker: &Worker<T>, uid: u32) -> bool {
        !self.serves_one(worker.pool) || worker.has_served_only(uid)
    }

    /// Whether an idle worker of a pool, or a spare in its place, may run a task of this user now.
    pub(crate) fn can_serve(&self, pool: PoolId, uid: u32) -> bool {
        let mut idle = self.in_slots(pool).filter(|(_, worker)| worker.is_idle());
        self.pool(pool).has_spare() || idle.any(|(_, worker)| self.may_serve(worker, uid))
    }

    /// The idle worker that runs the next task of this user: of the user, or of nobody, or a spare that takes the slot of
    /// another.
    pub(crate) fn idle_for(&mut self, turn: &mut Turn, pool: PoolId, uid: u32) -> Option<WorkerId> {
        let placed = || self.places(pool).filter_map(|place| Some((place, self.in_slot(place)?)));
        let idle = || placed().filter(|(_, (_, worker))| worker.is_idle());
        let own = idle().find(|(_, (_, worker))| worker.offered_for() == Owner::User(uid));
        let unused = || idle().find(|(_, (_, worker))| worker.offered_for() == Owner::Service);
        if let Some((_, (id, _))) = own.or_else(unused) {
            return Some(id);
        }
        let (slot, old) = placed()
            .filter(|(_, (_, worker))| worker.is_at_rest())
            .map(|(place, (id, _))| (place, id))
            .next()?;
        let spare = *self.pool(pool).spares.front()?;
        self.retire(turn, old);
        self.place(turn, spare, slot);
        Some(spare)
    }

    /// Whether no worker of a pool, busy or not, may run tasks of this user.
    pub(crate) fn serves_others_alone(&self, pool: PoolId, uid: u32) -> bool {
        self.serves_one(pool) && !self.in_slots(pool).any(|(_, worker)| self.may_serve(worker, uid))
    }
}
