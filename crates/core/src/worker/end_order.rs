//! Running tasks whose job has ended, because it was cancelled or one of its parts failed.
//!
//! A kind with `cancel_grace_ms` gives its tasks that time to end by themselves: [`Action::Unwant`] tells the worker, which
//! is killed only if the task still runs when the time is over. Until then the worker is offered nothing, and its other
//! offers are taken back. The client that cancelled was answered before any of this. A task that meets a limit is killed
//! at once.

use bulkhead_proto::death::KillReason;
use bulkhead_proto::ids::{Seq, WorkerId};

use crate::action::Action;
use crate::turn::{Turn, WorkerAlarm};
use crate::worker::{FollowUp, Offer, Workers};

/// A task that its worker was told to end.
///
/// If the task ends in time, its result is dropped as stale and the worker stays warm. A task that met a limit gets no such
/// time: it has had its time, and what it did then is evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EndOrder {
    seq: Seq,
    /// When its time is over, CLOCK_MONOTONIC nanoseconds.
    until_ns: u64,
}

impl<T: Copy> Workers<T> {
    /// A look found a running task whose job has ended. The worker is told to end it, or is to be killed if the time for
    /// that is over or its kind gives none.
    ///
    /// # Panics
    /// If the worker does not hold the offer.
    pub(crate) fn end_unwanted(&mut self, turn: &mut Turn, id: WorkerId, offer: &Offer<T>) -> FollowUp {
        let now_ns = turn.now_ns();
        let Some(worker) = self.table.get_mut(&id) else { return FollowUp::Nothing };
        assert!(
            worker.ring.holds(offer.seq()),
            "worker {id} is to end offer {}, which it does not hold",
            offer.seq()
        );
        if worker.is_killed() {
            return FollowUp::Nothing;
        }
        let is_able = worker.stopped_until_ns.is_none() && !worker.is_hung_up();
        match worker.end_order {
            Some(order) if order.seq == offer.seq() && now_ns < order.until_ns => return FollowUp::Nothing,
            None if offer.grace_ms() > 0 && is_able => {}
            _ => return FollowUp::Kill(KillReason::Cancel.into()),
        }
        let until_ns = turn.after_ms(u64::from(offer.grace_ms()));
        worker.end_order = Some(EndOrder { seq: offer.seq(), until_ns });
        worker.set(turn, id, WorkerAlarm::EndOrder, until_ns);
        self.recall_all(turn, id);
        turn.act(Action::Unwant { worker: id, seq: offer.seq() });
        FollowUp::Nothing
    }

    /// An offer is settled. If its worker was told to end it, the worker may be offered tasks again.
    pub(super) fn forget_order(&mut self, turn: &mut Turn, id: WorkerId, seq: Seq) {
        let Some(worker) = self.table.get_mut(&id) else { return };
        if worker.end_order.take_if(|order| order.seq == seq).is_some() {
            worker.cancel(turn, id, WorkerAlarm::EndOrder);
        }
    }

    /// The time of a task that was told to end is over: asks for a look whether it still runs.
    ///
    /// # Panics
    /// If its alarm was not set.
    pub(crate) fn order_over(&mut self, turn: &mut Turn, id: WorkerId) {
        if let Some(worker) = self.table.get_mut(&id) {
            worker.rang(WorkerAlarm::EndOrder);
            turn.act(Action::Look { worker: id });
        }
    }
}
