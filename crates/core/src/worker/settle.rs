//! Offers from their making to their settling: answered, taken back, or refused by a full channel.
//!
//! `machine/settle.rs` and `machine/dispatch.rs` drive it. Every offer is settled exactly once: `settle` gives it once, and
//! nothing for an unknown seq.

use bulkhead_proto::death::KillReason;
use bulkhead_proto::ids::{Seq, WorkerId};

use crate::action::Action;
use crate::turn::{TaskLimits, Turn, WorkerAlarm, ms};
use crate::worker::entry::ChannelState;
use crate::worker::offer::Recall;
use crate::worker::state::WorkerDuty;
use crate::worker::{FollowUp, NewOffer, Settled, Workers};

/// How long an idle worker with a full channel is offered nothing, in milliseconds.
const FULL_MS: u64 = 100;

impl<T: Copy> Workers<T> {
    /// The seq that the next offer to a worker gets.
    pub(crate) fn next_seq(&self, id: WorkerId) -> Option<Seq> {
        self.table.get(&id).map(|worker| worker.ring.next_seq())
    }

    /// Puts an offer into a worker's ring, and watches the task if its limits need that. Gives whether the offer is the
    /// first in the ring.
    ///
    /// # Panics
    /// If the worker has no slot, the ring no room, or a task that is watched would share its ring.
    pub(crate) fn offer_to(
        &mut self,
        turn: &mut Turn,
        id: WorkerId,
        offer: NewOffer<T>,
        limits: TaskLimits,
    ) -> bool {
        let Some(worker) = self.table.get_mut(&id) else { return false };
        let seq = worker.ring.next_seq();
        worker.stats.offered_for = worker.stats.offered_for.and(offer.uid);
        let is_first = worker.ring.push(offer, turn.now_ns());
        let is_shared = worker.watch.is_some() || limits.are_watched() && !is_first;
        assert!(!is_shared, "worker {id} is offered a task beside one whose limits are watched");
        match worker.state {
            WorkerDuty::Idle { slot } => self.enter(id, WorkerDuty::Busy { slot }),
            WorkerDuty::Busy { .. } => {}
            ref state @ (WorkerDuty::Starting
            | WorkerDuty::Spare
            | WorkerDuty::Retiring
            | WorkerDuty::Killed { .. }
            | WorkerDuty::Stuck { .. }) => {
                panic!("worker {id} has no slot, and is offered a task as {state:?}")
            }
        }
        if is_first && let Some(worker) = self.table.get_mut(&id) {
            worker.note_holder(&mut self.pools[usize::from(worker.pool.0)].held);
        }
        self.watch(turn, id, seq, limits);
        is_first
    }

    /// Removes an offer from its ring: it is settled. `None` if it was settled before, or never made.
    pub(crate) fn settle(&mut self, turn: &mut Turn, id: WorkerId, seq: Seq) -> Option<Settled<T>> {
        let worker = self.table.get_mut(&id)?;
        let was_head = worker.ring.head().is_some_and(|head| head.seq() == seq);
        let offer = worker.ring.remove(seq, turn.now_ns())?;
        if was_head {
            worker.note_holder(&mut self.pools[usize::from(worker.pool.0)].held);
        }
        let (is_watched, has_order) = (worker.watch.is_some(), worker.end_order.is_some());
        let is_stopped = worker.program_stop.is_some();
        if is_watched {
            self.unwatch(turn, id, Some(seq));
        }
        if is_stopped {
            self.forget_program_stop(turn, id, seq);
        }
        let met = if has_order { self.forget_order(turn, id, seq) } else { None };
        Some(Settled { offer, was_head, met })
    }

    /// A settled offer came with a report: counts a task that ended. The worker's channel is open again.
    ///
    /// # Panics
    /// If the worker has settled no offer for it.
    pub(crate) fn note_ended(&mut self, turn: &mut Turn, id: WorkerId, is_failed: bool) {
        let Some(worker) = self.table.get_mut(&id) else { return };
        worker.stats.ended += 1;
        worker.stats.failed_last = is_failed;
        worker.check_stats(id);
        worker.channel = ChannelState::Open;
        worker.cancel(turn, id, WorkerAlarm::Resume);
    }

    /// The task of a settled offer never began and is queued again: counts it if the worker is dying, for the record of
    /// its death.
    ///
    /// # Panics
    /// If the worker has settled no offer for it.
    pub(crate) fn note_requeued(&mut self, id: WorkerId) {
        if let Some(worker) = self.table.get_mut(&id) {
            worker.stats.requeued += u32::from(worker.is_hung_up() || worker.is_killed());
            worker.check_stats(id);
        }
    }

    /// A busy worker whose last offer was settled is idle again.
    pub(crate) fn idle_if_empty(&mut self, id: WorkerId) {
        let Some(worker) = self.table.get(&id) else { return };
        if let WorkerDuty::Busy { slot } = worker.state
            && worker.ring.is_empty()
        {
            self.enter(id, WorkerDuty::Idle { slot });
        }
    }

    /// The machine's ticket of an offer has changed.
    pub(crate) fn change_ticket(&mut self, id: WorkerId, seq: Seq, ticket: T) {
        if let Some(worker) = self.table.get_mut(&id) {
            worker.ring.change_ticket(seq, ticket);
        }
    }

    /// A take-back failed, or a look showed a claim: the worker has begun an offer, or ended it. Gives the offer.
    pub(crate) fn note_claimed(&mut self, id: WorkerId, seq: Seq) -> Option<crate::worker::Offer<T>> {
        self.table.get_mut(&id)?.ring.claim(seq)
    }

    /// The job of an offer has ended: takes the offer back, or asks for a look if it has begun.
    pub(crate) fn recall_or_look(&mut self, turn: &mut Turn, id: WorkerId, seq: Seq) {
        match self.table.get_mut(&id).and_then(|worker| worker.ring.recall(seq)) {
            Some(Recall::Claimed) => turn.act(Action::Look { worker: id }),
            Some(Recall::Now) => turn.act(Action::TakeBack { worker: id, seq }),
            Some(Recall::Before) | None => {}
        }
    }

    /// Asks for the take-back of an offer, unless it is known to have begun. Gives whether an answer follows.
    pub(crate) fn ask_back(&mut self, turn: &mut Turn, id: WorkerId, seq: Seq) -> bool {
        match self.table.get_mut(&id).and_then(|worker| worker.ring.recall(seq)) {
            Some(Recall::Now) => turn.act(Action::TakeBack { worker: id, seq }),
            Some(Recall::Before) => {}
            Some(Recall::Claimed) | None => return false,
        }
        true
    }

    /// A worker's channel is full: the worker is offered nothing until one of its tasks ends or [`FULL_MS`] have passed. An
    /// idle worker whose channel is full for `retire_ms` is to be killed.
    pub(crate) fn refused(&mut self, turn: &mut Turn, id: WorkerId) -> FollowUp {
        let now_ns = turn.now_ns();
        let Some(worker) = self.table.get_mut(&id) else { return FollowUp::Nothing };
        let since_ns = match worker.channel {
            ChannelState::Open => now_ns,
            ChannelState::Refusing { since_ns, .. } => since_ns,
        };
        worker.channel = ChannelState::Refusing { since_ns, is_full: true };
        let is_tried_again = worker.alarm_ns(WorkerAlarm::Resume).is_some();
        if !worker.ring.is_empty() || is_tried_again || worker.is_killed() {
            return FollowUp::Nothing;
        }
        if now_ns - since_ns > ms(turn.config().retire_ms) {
            return FollowUp::Kill(KillReason::Unresponsive.into());
        }
        worker.set(turn, id, WorkerAlarm::Resume, now_ns + ms(FULL_MS));
        FollowUp::Nothing
    }

    /// A worker whose channel was full may be offered tasks again.
    pub(crate) fn resume(&mut self, turn: &mut Turn, id: WorkerId) {
        let Some(worker) = self.table.get_mut(&id) else { return };
        worker.cancel(turn, id, WorkerAlarm::Resume);
        if let ChannelState::Refusing { is_full, .. } = &mut worker.channel {
            *is_full = false;
        }
    }
}
