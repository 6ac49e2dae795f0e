//! What workers say of their offers, and what looking at them shows.
//!
//! An answer counts only if its offer is the job's current one; an older one is counted and dropped. Every offer
//! is settled exactly once, whatever it brought.

use bulkhead_proto::client::outcome::{Outcome, TimeLimit};
use bulkhead_proto::ids::{Seq, WorkerId};

use crate::action::Action;
use crate::event::{Head, Leftover, Report, TaskResult};
use crate::job::{Held, Run};
use crate::machine::{Core, Offer};
use crate::turn::{Tally, WorkerAlarm, ms};
use crate::worker::entry::{Cause, Duty};

/// How long a worker with a full channel and nothing to do is left alone, in milliseconds.
const FULL_MS: u64 = 100;

impl Core {
    /// The run that an offer is of, while it is that run's current offer.
    pub(crate) fn current(&self, id: WorkerId, offer: &Offer) -> Option<Run> {
        self.jobs.current(&held(id, offer))
    }

    /// An entry is DONE.
    pub(crate) fn finished(&mut self, id: WorkerId, seq: Seq, report: Report) {
        if let TaskResult::Held { .. } = report.result {
            let offer = self.pools.workers.get(&id).and_then(|worker| worker.claims.get(seq));
            if let Some(offer) = offer {
                self.jobs.take_scratch(offer.ticket);
            }
        }
        let Some((offer, was_head)) = self.take_offer(id, seq) else {
            return self.drop_stale(report.result);
        };
        if let Some(worker) = self.pools.workers.get_mut(&id) {
            worker.ended += 1;
            worker.failed_last = matches!(report.result, TaskResult::Failed { .. });
            worker.full_ns = None;
        }
        self.resume(id);
        self.turn.act(Action::Settle { worker: id, seq });
        match self.current(id, &offer) {
            None => self.drop_stale(report.result),
            Some(run) => {
                let kind = self.jobs.batch(run).kind();
                self.paces[usize::from(kind.0)].hear(report.elapsed_ns);
                self.task_done(run, report.result);
            }
        }
        self.worker_works(id);
        self.weigh(id);
        self.after_settling(id, was_head);
    }

    fn drop_stale(&mut self, result: TaskResult) {
        self.turn.count(Tally::Stale, 1);
        if let TaskResult::Held { output, .. }
        | TaskResult::Planned { output, .. }
        | TaskResult::Failed { output: Leftover::Held { output, .. }, .. } = result
        {
            self.turn.act(Action::DropOutput { output });
        }
    }

    /// Removes an offer from its ring, and says whether it was the first.
    fn take_offer(&mut self, id: WorkerId, seq: Seq) -> Option<(Offer, bool)> {
        let worker = self.pools.workers.get_mut(&id)?;
        let was_head = worker.claims.head().is_some_and(|head| head.seq == seq);
        let offer = worker.claims.remove(seq, self.turn.now_ns())?;
        let is_asked = worker.asked.is_some();
        if worker.watch.is_some() {
            self.unwatch(id, Some(seq));
        }
        if is_asked {
            self.forget_asked(id, seq);
        }
        self.jobs.unload(&mut self.turn, offer.ticket);
        Some((offer, was_head))
    }

    /// The ring has changed: another offer may be its first, or none.
    fn after_settling(&mut self, id: WorkerId, was_head: bool) {
        let Some(worker) = self.pools.workers.get(&id) else { return };
        if worker.claims.is_empty() && worker.duty == Duty::Busy {
            self.pools.enter(id, Duty::Idle);
        }
        if was_head {
            self.watch_head(id);
        }
    }

    /// An offer was taken back, or could not be.
    pub(crate) fn took_back(&mut self, id: WorkerId, seq: Seq, won: bool) {
        if won {
            self.turn.count(Tally::TakenBack, 1);
            self.settle_unbegun(id, seq);
        } else {
            self.mark_claimed(id, seq);
        }
    }

    /// An offer never began: its job is as before it.
    fn settle_unbegun(&mut self, id: WorkerId, seq: Seq) {
        let Some((offer, was_head)) = self.take_offer(id, seq) else {
            self.turn.count(Tally::Stale, 1);
            return;
        };
        self.turn.act(Action::Settle { worker: id, seq });
        if let Some(run) = self.current(id, &offer) {
            if let Some(worker) = self.pools.workers.get_mut(&id) {
                worker.requeued += u32::from(worker.hung_up || worker.duty.cause().is_some());
            }
            self.requeue(run, false);
        }
        self.after_settling(id, was_head);
    }

    /// A take-back was lost: the worker has begun the task, or ended it already. If nobody wants it any more, look.
    fn mark_claimed(&mut self, id: WorkerId, seq: Seq) {
        let Some(offer) = self.pools.workers.get_mut(&id).and_then(|worker| worker.claims.get_mut(seq))
        else {
            return;
        };
        offer.claimed = true;
        let offer = *offer;
        if self.current(id, &offer).is_none() {
            self.turn.act(Action::Look { worker: id });
        }
    }

    /// Nobody wants this offer any more: take it back, or see whether it runs.
    pub(crate) fn recall_or_look(&mut self, id: WorkerId, seq: Seq) {
        let Some(offer) = self.pools.workers.get_mut(&id).and_then(|worker| worker.claims.get_mut(seq))
        else {
            return;
        };
        if offer.claimed {
            self.turn.act(Action::Look { worker: id });
        } else if !std::mem::replace(&mut offer.recalled, true) {
            self.turn.act(Action::TakeBack { worker: id, seq });
        }
    }

    /// An offer could not be sent.
    pub(crate) fn offer_failed(&mut self, id: WorkerId, seq: Seq, taken: bool, shortage: Option<String>) {
        if !taken {
            return self.mark_claimed(id, seq);
        }
        self.settle_unbegun(id, seq);
        if let Some(what) = shortage {
            return self.fall_short(what);
        }
        let now_ns = self.turn.now_ns();
        let Some(worker) = self.pools.workers.get_mut(&id) else { return };
        worker.full = true;
        let full_ns = *worker.full_ns.get_or_insert(now_ns);
        if !worker.claims.is_empty()
            || worker.alarm_ns(WorkerAlarm::Resume).is_some()
            || worker.duty.cause().is_some()
        {
            return;
        }
        if now_ns - full_ns > ms(self.turn.config().retire_ms) {
            return self.kill(id, Cause::Unresponsive);
        }
        worker.set(&mut self.turn, id, WorkerAlarm::Resume, now_ns + ms(FULL_MS));
    }

    /// Watches the time of the task that is now the first of a ring: its limit, if it has one, and whether it is
    /// begun at all. An alarm that is early enough stays, so that most tasks set none.
    pub(crate) fn watch_head(&mut self, id: WorkerId) {
        let Some(worker) = self.pools.workers.get_mut(&id) else { return };
        let (set, head_ns) = (worker.alarm_ns(WorkerAlarm::Limit), worker.claims.head_ns());
        let head = worker
            .claims
            .head()
            .filter(|head| self.jobs.there(head.ticket, head.number, head.count).is_some());
        let patience_ns = head_ns.saturating_add(ms(self.turn.config().bootstrap_ms));
        let wanted_ns = head.and_then(|head| match head.timeout_ms {
            Some(limit_ms) => {
                let limit_ns = head_ns.saturating_add(ms(limit_ms));
                Some(if head.claimed { limit_ns } else { limit_ns.min(patience_ns) })
            }
            None => (!head.claimed).then(|| set.unwrap_or(patience_ns).min(patience_ns)),
        });
        if wanted_ns != set {
            worker.cancel(&mut self.turn, id, WorkerAlarm::Limit);
            if let Some(at_ns) = wanted_ns {
                worker.set(&mut self.turn, id, WorkerAlarm::Limit, at_ns);
            }
        }
    }

    fn set_limit_alarm(&mut self, id: WorkerId, at_ns: u64) {
        let Some(worker) = self.pools.workers.get_mut(&id) else { return };
        worker.set(&mut self.turn, id, WorkerAlarm::Limit, at_ns);
    }

    /// The first task of a ring has had its time, or should have begun: look whether it runs. With a worker that is
    /// killed already there is nothing to see, and a job that met its limit is not kept waiting for the proof.
    pub(crate) fn limit_met(&mut self, id: WorkerId) {
        let Some(worker) = self.pools.workers.get_mut(&id) else { return };
        worker.rang(WorkerAlarm::Limit);
        let (killed, head_ns) = (worker.duty.cause().is_some(), worker.claims.head_ns());
        let Some(head) = worker.claims.head().copied() else { return };
        let limit_ms =
            head.timeout_ms.filter(|_| self.jobs.there(head.ticket, head.number, head.count).is_some());
        let is_early = |span_ms: u64| self.turn.now_ns() < head_ns.saturating_add(ms(span_ms));
        if killed {
            match limit_ms {
                Some(limit_ms) if is_early(limit_ms) => self.set_limit_alarm(id, head_ns + ms(limit_ms)),
                Some(limit_ms) => {
                    if let Some(run) = self.current(id, &head) {
                        self.time_out(run, limit_ms);
                    }
                }
                None => {}
            }
        } else if limit_ms.is_none() && is_early(self.turn.config().bootstrap_ms) {
            // The alarm was that of an earlier task.
            self.watch_head(id);
        } else {
            self.turn.act(Action::Look { worker: id });
        }
    }

    fn time_out(&mut self, run: Run, limit_ms: u64) {
        let outcome = Outcome::TimedOut { limit: TimeLimit::Wall, limit_ms, part: None };
        self.end_task(run, outcome, Leftover::Nothing);
    }

    /// How far a worker is. What is done was said before this.
    pub(crate) fn looked(&mut self, id: WorkerId, head: Option<Head>) {
        let Some(Head { seq, claimed }) = head else { return };
        let Some(worker) = self.pools.workers.get_mut(&id) else { return };
        let head_ns = worker.claims.head_ns();
        let Some(offer) = worker.claims.get_mut(seq) else { return };
        // A claim that was seen is not unseen: a worker that steps back would be looked at again and again.
        offer.claimed |= claimed;
        let (offer, claimed) = (*offer, offer.claimed);
        let Some(run) = self.current(id, &offer) else {
            return if claimed { self.end_unwanted(id, &offer) } else { self.recall_or_look(id, seq) };
        };
        if self.enforce_met(id, run, &offer) {
            return;
        }
        let now_ns = self.turn.now_ns();
        if !claimed && now_ns >= head_ns.saturating_add(ms(self.turn.config().bootstrap_ms)) {
            return self.kill(id, Cause::Unresponsive);
        }
        let Some(limit_ms) = offer.timeout_ms else { return };
        let patience_ns = head_ns.saturating_add(ms(limit_ms.max(self.turn.config().retire_ms)));
        if now_ns < head_ns.saturating_add(ms(limit_ms)) {
            self.watch_head(id);
        } else if claimed {
            self.time_out(run, limit_ms);
            self.kill(id, Cause::Timeout);
        } else if now_ns < patience_ns {
            self.set_limit_alarm(id, patience_ns);
        } else {
            self.kill(id, Cause::Unresponsive);
        }
    }
}

/// An offer, as the room of jobs asks for it.
pub(super) fn held(worker: WorkerId, offer: &Offer) -> Held {
    Held {
        worker,
        seq: offer.seq,
        number: offer.number,
        count: offer.count,
        fence: offer.fence,
        ticket: offer.ticket,
    }
}
