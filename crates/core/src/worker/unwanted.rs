//! Tasks that have begun and that nobody wants any more: their job was cancelled, or went another way.
//!
//! A kind may give its tasks time to end by themselves: then the worker is told, and killed only if the task still runs
//! when that time is over. Whoever cancelled was answered before any of this. Meanwhile the worker is offered nothing, and
//! what it may not have begun goes to others. A limit that is met is no cancel: its task is never asked.

use bulkhead_proto::ids::{Seq, WorkerId};

use crate::action::Action;
use crate::machine::{Core, Offer};
use crate::turn::{WorkerAlarm, ms};
use crate::worker::entry::Cause;

/// A task whose worker was told that nobody wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    seq: Seq,
    /// When its time is over, CLOCK_MONOTONIC nanoseconds.
    pub(crate) until_ns: u64,
}

impl Core {
    /// A look found a task running that nobody wants: it is asked to end, or, if it had its time or gets none, killed.
    pub(crate) fn end_unwanted(&mut self, id: WorkerId, offer: &Offer) {
        let now_ns = self.turn.now_ns();
        let Some(worker) = self.pools.workers.get_mut(&id) else { return };
        if worker.duty.cause().is_some() {
            return;
        }
        match worker.asked {
            Some(asked) if asked.seq == offer.seq && now_ns < asked.until_ns => return,
            None if offer.grace_ms > 0 && worker.suspended.is_none() && !worker.hung_up => {}
            _ => return self.kill(id, Cause::Cancel),
        }
        let until_ns = now_ns.saturating_add(ms(u64::from(offer.grace_ms)));
        worker.asked = Some(Asked { seq: offer.seq, until_ns });
        worker.set(&mut self.turn, id, WorkerAlarm::EndOrder, until_ns);
        self.recall_all(id);
        self.turn.act(Action::Unwant { worker: id, seq: offer.seq });
    }

    /// An offer is settled: if it was the one that was to end, its worker is as any other again.
    pub(crate) fn forget_asked(&mut self, id: WorkerId, seq: Seq) {
        let Some(worker) = self.pools.workers.get_mut(&id) else { return };
        if worker.asked.take_if(|asked| asked.seq == seq).is_some() {
            worker.cancel(&mut self.turn, id, WorkerAlarm::EndOrder);
        }
    }
}
