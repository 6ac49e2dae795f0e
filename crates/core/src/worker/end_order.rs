//! Tasks that have begun and that nobody wants any more: their job was cancelled, or went another way.
//!
//! A kind may give its tasks time to end by themselves: then the worker is told, and killed only if the task still runs
//! when that time is over. The client that cancelled was answered before any of this. Meanwhile the worker is offered
//! nothing, and what it may not have begun goes to others. A limit that is met is no cancel: its task is never asked.

use bulkhead_proto::ids::{Seq, WorkerId};

use crate::action::Action;
use crate::turn::{Turn, WorkerAlarm};
use crate::worker::{Cause, FollowUp, Offer, Workers};

/// A task whose worker was told that nobody wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EndOrder {
    seq: Seq,
    /// When its time is over, CLOCK_MONOTONIC nanoseconds.
    until_ns: u64,
}

impl<T: Copy> Workers<T> {
    /// A look found a task running that nobody wants: it is asked to end, or, if it had its time or gets none, its worker
    /// is to be killed.
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
            _ => return FollowUp::Kill(Cause::Cancel),
        }
        let until_ns = turn.after_ms(u64::from(offer.grace_ms()));
        worker.end_order = Some(EndOrder { seq: offer.seq(), until_ns });
        worker.set(turn, id, WorkerAlarm::EndOrder, until_ns);
        self.recall_all(turn, id);
        turn.act(Action::Unwant { worker: id, seq: offer.seq() });
        FollowUp::Nothing
    }

    /// An offer is settled: if it was the one that was to end, its worker is as any other again.
    pub(super) fn forget_order(&mut self, turn: &mut Turn, id: WorkerId, seq: Seq) {
        let Some(worker) = self.table.get_mut(&id) else { return };
        if worker.end_order.take_if(|order| order.seq == seq).is_some() {
            worker.cancel(turn, id, WorkerAlarm::EndOrder);
        }
    }

    /// The time of a task that was to end is over: look whether it still runs.
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
