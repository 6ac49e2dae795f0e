//! Running tasks that their workers were told to end: the job was cancelled, one of its parts failed, the service stops, or
//! the task met a limit of time.
//!
//! A task has the grace that its job asks for, else the `cancel_grace_ms` of its kind, to end by itself: [`Action::Unwant`]
//! tells the worker, which is killed only if the task still runs [`REPORT_MS`] after the time is over. Until then the worker
//! is offered nothing, and its other offers are taken back. A task without grace has its worker killed at once; some workers
//! write their stack before either kill (`stack_request.rs`). Memory limits, violations and dead lanes never wait for a grace.
//!
//! | why | when its job ends | what its report is for |
//! |---|---|---|
//! | its job ended before: cancelled, a part failed, stop | before the order | dropped as stale |
//! | a limit of time | with the report, the kill or the death, as [`MetLimit`] says | its output is kept |

use bulkhead_proto::client::why::EndingTask;
use bulkhead_proto::death::KillReason;
use bulkhead_proto::ids::{Seq, WorkerId};

use crate::action::Action;
use crate::turn::{TaskLimits, Turn, WorkerAlarm, ms};
use crate::worker::{FollowUp, MetLimit, Offer, Worker, Workers};

/// How long after its grace a task may take to report, in milliseconds. A worker itself kills a program that goes on, and
/// then hands in what the program wrote; killed at the same moment, it could not.
pub(super) const REPORT_MS: u64 = 1000;

/// A task that its worker was told to end. If it ends in time, the worker stays warm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EndOrder {
    seq: Seq,
    /// When the worker was told, nanoseconds on the clock of the turns.
    since_ns: u64,
    grace_ms: u32,
    /// When the worker is killed, nanoseconds on the clock of the turns.
    until_ns: u64,
    /// Why it is killed then.
    why: KillReason,
    /// The limit that decided the outcome of the job.
    met: Option<MetLimit>,
}

impl<T: Copy> Worker<T> {
    /// The limit that its running task met, while the job waits for the end of the task. `seq` says which offer that is.
    pub(crate) fn met_limit(&self) -> Option<(Seq, MetLimit)> {
        let order = self.end_order.as_ref()?;
        Some((order.seq, order.met?))
    }

    /// The task of this offer, if the worker was told to end it and is not killed yet.
    pub(crate) fn ending(&self, now_ns: u64, seq: Seq) -> Option<EndingTask> {
        let order = self.end_order.as_ref().filter(|order| order.seq == seq && !self.is_killed())?;
        let over_ns = order.since_ns.saturating_add(ms(u64::from(order.grace_ms)));
        Some(EndingTask {
            told_ms: now_ns.saturating_sub(order.since_ns) / 1_000_000,
            left_ms: over_ns.saturating_sub(now_ns).div_ceil(1_000_000),
            met: order.met.map(|met| met.limit),
        })
    }

    /// Whether it was told to end a task.
    pub(crate) fn is_ending(&self) -> bool {
        self.end_order.is_some()
    }
}

impl<T: Copy> Workers<T> {
    /// A look found a running task whose job has ended. The worker is told to end it, or is to be killed for `why` if the
    /// time for that is over or its kind gives none.
    ///
    /// # Panics
    /// If the worker does not hold the offer.
    pub(crate) fn end_unwanted(
        &mut self,
        turn: &mut Turn,
        id: WorkerId,
        offer: &Offer<T>,
        why: KillReason,
    ) -> FollowUp {
        let ordered = self.ordered(turn, id, offer);
        ordered.unwrap_or_else(|| self.order_end(turn, id, offer, (why, None)))
    }

    /// The service stops, and the worker holds offers of jobs that have ended: they are taken back, a task that runs is told
    /// to end once a look has shown it, and a worker that gives its tasks no time is to be killed.
    pub(crate) fn end_for_stop(&mut self, turn: &mut Turn, id: WorkerId) -> FollowUp {
        if !self.gives_grace(id) {
            return FollowUp::Kill(KillReason::Stop.into());
        }
        let Some(worker) = self.table.get(&id).filter(|worker| !worker.is_ending()) else {
            return FollowUp::Nothing;
        };
        let Some(seq) = worker.ring.head().map(|head| head.seq()) else { return FollowUp::Nothing };
        self.recall_all(turn, id);
        self.recall_or_look(turn, id, seq);
        FollowUp::Nothing
    }

    /// Whether a worker holds a task that may end by itself, and could hear of it.
    pub(crate) fn gives_grace(&self, id: WorkerId) -> bool {
        self.table.get(&id).is_some_and(|worker| {
            let has_grace = worker.ring.head().is_some_and(|head| head.grace_ms() > 0);
            has_grace && !worker.is_killed() && worker.stopped_until_ns.is_none() && !worker.is_hung_up()
        })
    }

    /// A look found a running task that met a limit of time. The worker is told to end it, or is to be killed at once;
    /// [`FollowUp::Nothing`] means that the job ends with the task.
    ///
    /// # Panics
    /// If the worker does not hold the offer.
    pub(crate) fn end_for_limit(
        &mut self,
        turn: &mut Turn,
        id: WorkerId,
        offer: &Offer<T>,
        met: MetLimit,
    ) -> FollowUp {
        self.order_end(turn, id, offer, (met.kill_reason(), Some(met)))
    }

    /// What is to be done about a running task that its worker was told to end; `None` if it was not told.
    pub(crate) fn ordered(&self, turn: &Turn, id: WorkerId, offer: &Offer<T>) -> Option<FollowUp> {
        let worker = self.table.get(&id)?;
        if worker.is_killed() {
            return Some(FollowUp::Nothing);
        }
        let order = worker.end_order.as_ref()?;
        Some(match order.seq == offer.seq() && turn.now_ns() < order.until_ns {
            true => FollowUp::Nothing,
            false => FollowUp::Kill(order.why.into()),
        })
    }

    fn order_end(
        &mut self,
        turn: &mut Turn,
        id: WorkerId,
        offer: &Offer<T>,
        (why, met): (KillReason, Option<MetLimit>),
    ) -> FollowUp {
        let Some(worker) = self.table.get_mut(&id) else { return FollowUp::Nothing };
        let seq = offer.seq();
        assert!(worker.ring.holds(seq), "worker {id} is to end offer {seq}, which it does not hold");
        let is_able = worker.stopped_until_ns.is_none() && !worker.is_hung_up();
        if offer.grace_ms() == 0 || !is_able {
            return FollowUp::Kill(why.into());
        }
        let until_ns = turn.now_ns().saturating_add(ms(u64::from(offer.grace_ms()) + REPORT_MS));
        let (since_ns, grace_ms) = (turn.now_ns(), offer.grace_ms());
        worker.end_order = Some(EndOrder { seq, since_ns, grace_ms, until_ns, why, met });
        worker.set(turn, id, WorkerAlarm::EndOrder, until_ns);
        worker.cancel(turn, id, WorkerAlarm::Limit);
        worker.cancel(turn, id, WorkerAlarm::ProgramStop);
        self.watch_memory_alone(turn, id);
        self.recall_all(turn, id);
        turn.act(Action::Unwant { worker: id, seq });
        FollowUp::Nothing
    }

    /// An offer is settled. If its worker was told to end it, the worker may be offered tasks again. Gives the limit that
    /// decided the outcome of its job.
    pub(super) fn forget_order(&mut self, turn: &mut Turn, id: WorkerId, seq: Seq) -> Option<MetLimit> {
        let worker = self.table.get_mut(&id)?;
        let order = worker.end_order.take_if(|order| order.seq == seq)?;
        worker.cancel(turn, id, WorkerAlarm::EndOrder);
        order.met
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

/// The limits that are watched while a task has its grace: its limits of time are over, and what it does to end itself
/// needs no progress.
pub(super) fn limits_in_grace(limits: &TaskLimits) -> TaskLimits {
    TaskLimits { timeout_ms: None, no_progress_ms: None, cpu_ms: None, memory_bytes: limits.memory_bytes }
}
