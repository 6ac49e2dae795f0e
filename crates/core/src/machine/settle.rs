//! The four answers to an offer, from top to bottom: finished, taken back, not taken back, not sent.
//!
//! An answer counts only if its offer is the job's current one; an older one is counted as stale and dropped. Every offer
//! is settled exactly once.

use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::ids::{Seq, WorkerId};

use crate::action::Action;
use crate::event::{Leftover, Report, TaskResult};
use crate::job::{OfferRef, TaskRun};
use crate::machine::{Core, JobOffer};
use crate::turn::Counter;
use crate::worker::Settled;

impl Core {
    /// The run of an offer, if this is the run's current offer.
    pub(super) fn current(&self, id: WorkerId, offer: &JobOffer) -> Option<TaskRun> {
        self.jobs.current(&held_by(id, offer))
    }

    /// The run of an offer, if its jobs are still in the table, even if this offer is not the current one.
    pub(super) fn run_in_table(&self, offer: &JobOffer) -> Option<TaskRun> {
        self.jobs.there(offer.ticket(), offer.number(), offer.count())
    }

    /// A worker has finished an offer: its entry is DONE.
    pub(super) fn finished(&mut self, id: WorkerId, seq: Seq, report: Report) {
        self.take_output(id, seq, &report);
        let Some(settled) = self.settle(id, seq) else {
            return self.drop_stale(report.result);
        };
        let is_failed = matches!(report.result, TaskResult::Failed { .. });
        let has_left = !report.survivors.is_empty();
        self.workers.note_ended(&mut self.turn, id, is_failed);
        self.turn.act(Action::Settle { worker: id, seq });
        if has_left {
            self.task_left(id, &settled.offer, report.survivors);
        }
        match (self.current(id, &settled.offer), settled.met) {
            (None, _) => self.drop_stale(report.result),
            (Some(run), Some(met)) => self.timed_out_task_ended(run, met, report.result),
            (Some(run), None) => {
                self.workers.note_elapsed(self.jobs.batch(run).flavour(), report.elapsed_ns);
                self.note_output(run, settled.offer.ticket(), &report.result);
                self.task_done(run, report.result);
            }
        }
        let healthy = self.workers.note_alive(&mut self.turn, id);
        self.tell_healthy(healthy);
        self.workers.check_size(&mut self.turn, id);
        self.after_settling(id, settled.was_head);
    }

    fn drop_stale(&mut self, result: TaskResult) {
        self.turn.count(Counter::Stale, 1);
        if let TaskResult::Held { output, .. }
        | TaskResult::InArena { output, .. }
        | TaskResult::Planned { output, .. }
        | TaskResult::Failed { output: Leftover::Held { output, .. }, .. } = result
        {
            self.jobs.drop_output(&mut self.turn, output);
        }
    }

    /// Removes an offer from its ring, and releases its attachments.
    fn settle(&mut self, id: WorkerId, seq: Seq) -> Option<Settled<crate::job::Ticket>> {
        let settled = self.workers.settle(&mut self.turn, id, seq)?;
        if let Some(named) = self.jobs.named_by(settled.offer.ticket()) {
            self.clients.offer_over(
                &mut self.turn,
                id,
                named.all.iter().map(|(registration, _)| *registration),
            );
        }
        self.jobs.unload(&mut self.turn, settled.offer.ticket());
        Some(settled)
    }

    /// An offer has left its ring: the worker may be idle now, or another offer the first.
    fn after_settling(&mut self, id: WorkerId, was_head: bool) {
        self.workers.idle_if_empty(id);
        if was_head {
            self.watch_head(id);
        }
    }

    /// The answer to a take-back.
    pub(super) fn took_back(&mut self, id: WorkerId, seq: Seq, won: bool) {
        if won {
            self.turn.count(Counter::TakenBack, 1);
            self.settle_unbegun(id, seq);
        } else {
            self.mark_claimed(id, seq);
        }
    }

    /// An offer never began: its task is queued again, uncharged.
    fn settle_unbegun(&mut self, id: WorkerId, seq: Seq) {
        let Some(settled) = self.settle(id, seq) else {
            return self.turn.count(Counter::Stale, 1);
        };
        self.turn.act(Action::Settle { worker: id, seq });
        if let Some(run) = self.current(id, &settled.offer) {
            self.workers.note_requeued(id);
            self.requeue(run, false);
        }
        self.offer_never_began(id, &settled.offer);
        self.after_settling(id, settled.was_head);
    }

    /// Puts an uncharged task back in front of the queue, or ends its job if that has expired meanwhile.
    pub(super) fn requeue(&mut self, run: TaskRun, begun: bool) {
        if !self.jobs.requeue(&mut self.turn, run, begun) {
            self.end_task(run, Outcome::Expired, Leftover::Nothing);
        }
    }

    /// A take-back failed: the worker has begun the task, or ended it. If its job has ended, asks for a look.
    fn mark_claimed(&mut self, id: WorkerId, seq: Seq) {
        self.offer_had_begun(id, seq);
        let Some(offer) = self.workers.note_claimed(id, seq) else { return };
        if self.current(id, &offer).is_none() {
            self.turn.act(Action::Look { worker: id });
        }
    }

    /// An offer could not be sent.
    pub(super) fn offer_failed(&mut self, id: WorkerId, seq: Seq, taken: bool, shortage: Option<String>) {
        if !taken {
            return self.mark_claimed(id, seq);
        }
        self.settle_unbegun(id, seq);
        match shortage {
            Some(what) => self.fall_short(&what),
            None => {
                let need = self.workers.refused(&mut self.turn, id);
                self.follow_up(id, need);
            }
        }
    }
}

/// An offer in a worker's ring, as the room of jobs takes it.
pub(super) fn held_by(worker: WorkerId, offer: &JobOffer) -> OfferRef {
    let (seq, number, count) = (offer.seq(), offer.number(), offer.count());
    OfferRef { worker, seq, number, count, fence: offer.fence(), ticket: offer.ticket() }
}
