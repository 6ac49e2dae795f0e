//! Takes offers ahead back when another worker could run them now: a worker is idle and nothing is queued, or the head of
//! a ring takes longer than all work ahead may.
//!
//! `machine/dispatch.rs` calls it at the end of each dispatch; no alarm is set for it.

use bulkhead_proto::ids::{PoolId, Seq, WorkerId};

use crate::action::Action;
use crate::turn::Turn;
use crate::worker::Workers;

impl<T: Copy> Workers<T> {
    /// Takes offers of a pool back that other workers could run.
    pub(crate) fn balance(&mut self, turn: &mut Turn, pool: PoolId) {
        let (mut idle, mut moving, mut holders) = (0, 0, Vec::new());
        for (id, worker) in self.in_slots(pool) {
            let overdue = !worker.ring.is_empty() && worker.ring.is_overdue(turn.now_ns());
            idle += usize::from(worker.is_idle());
            moving += usize::from(worker.is_open() && !overdue);
            if worker.ring.len() > 1 {
                holders.push((id, overdue));
            }
        }
        // If no worker could run them, they would only wait in the queue instead.
        if holders.is_empty() || moving == 0 {
            return;
        }
        for &(id, _) in holders.iter().filter(|(_, overdue)| *overdue) {
            self.recall(turn, id, usize::MAX);
        }
        // For each idle worker, half of what the worker with most offers holds: halves level out in a few turns. A
        // take-back of an offer that has begun meanwhile fails, which changes nothing.
        for _ in 0..idle {
            let spare = |id: &WorkerId| self.table.get(id).map_or(0, |worker| worker.ring.spare_offers());
            let movable = holders.iter().filter(|(id, _)| self.may_move(pool, *id));
            let richest = movable.map(|(id, _)| (spare(id), *id)).max();
            match richest {
                Some((count, id)) if count > 0 => self.recall(turn, id, count.div_ceil(2)),
                _ => return,
            }
        }
    }

    /// Whether an idle worker may be offered what a worker has ahead: its user may hold one more, and an idle worker may serve
    /// the user. Where either is bounded, a ring has offers of one user.
    fn may_move(&self, pool: PoolId, id: WorkerId) -> bool {
        let head = self.table.get(&id).and_then(|worker| worker.ring.head());
        let may_serve = |uid| !self.serves_one(pool) || self.can_serve(pool, uid);
        head.is_none_or(|head| self.may_hold_more(pool, head.uid()) && may_serve(head.uid()))
    }

    fn recall(&mut self, turn: &mut Turn, id: WorkerId, count: usize) {
        let Some(worker) = self.table.get_mut(&id) else { return };
        let seqs: Vec<Seq> = worker.ring.recall_tail(count);
        for seq in seqs {
            turn.act(Action::TakeBack { worker: id, seq });
        }
    }
}
