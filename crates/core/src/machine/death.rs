//! A proven death: who is charged with it, and what becomes of what the worker held (rules 8 and 9).
//!
//! | death | first claimed offer | further claimed | offered | none claimed |
//! |---|---|---|---|---|
//! | its own: exited, any signal | charged | given back | given back | the slot is charged |
//! | killed: lie, memory, stopped by a signal, or its lane hung up | charged | given back | given back | the slot is charged |
//! | killed: a limit of time, cancel, stop | has its outcome | given back | given back | nobody is charged |
//! | killed: unresponsive | given back | given back | given back | the slot is charged |
//! | killed or died before it was ready | - | - | - | charged once, as a failed spawn |
//! | left after a panic | - | - | given back | nobody is charged |
//! | retired | given back | given back | given back | nobody is charged |
//!
//! Given back means: to the front of the queue, not charged. The first claimed job keeps the death as evidence in any
//! case; one that is charged may have its outcome already, and then the charge is off.

use bulkhead_proto::client::evidence::Evidence;
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::view::WorkerState;
use bulkhead_proto::death::{Death, KillReason};
use bulkhead_proto::ids::{PoolId, WorkerId};
use bulkhead_proto::worker::message::LEFT_AFTER_PANIC;

use crate::event::{Leftover, Remains};
use crate::job::{Dead, Run};
use crate::machine::settle::held;
use crate::machine::{Core, Offer, Worker};
use crate::turn::Tally;
use crate::worker::Cause;

/// What a death means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The first claimed offer is charged, or else the slot.
    Charge,
    /// No job is charged, but the slot is.
    ChargeSlot,
    /// It never came up: that is a failed spawn.
    NeverUp,
    /// We meant it, or it was counted before.
    Nobody,
}

impl Core {
    /// A worker's death is proven.
    pub(super) fn died(
        &mut self,
        id: WorkerId,
        death: Death,
        noticed_after_us: Option<u64>,
        remains: &[Remains],
        evidence: Evidence,
    ) {
        let Some(worker) = self.workers.remove(&mut self.turn, id) else {
            return self.turn.count(Tally::Stale, 1);
        };
        let (pool, slot, pid, ended) =
            (worker.pool(), worker.slot(), worker.pid().unwrap_or(0), worker.ended());
        let death = named(&worker, death, remains);
        self.turn.count(Tally::Deaths, u64::from(death.is_own()));
        let died = What::Died {
            worker: id,
            pid,
            slot,
            death: death.clone(),
            evidence: evidence.clone(),
            noticed_after_us,
            ended,
        };
        self.turn.record(died, None);
        self.workers.pause_spawns(&self.turn, pool);
        let verdict = verdict(&worker, &death);
        let dead = Dead { worker: id, pid, death: &death, evidence: &evidence };
        self.settle_remains((dead, pool), &worker, verdict, remains);
    }

    /// Charges whom the verdict names and gives back the rest.
    fn settle_remains(
        &mut self,
        (dead, pool): (Dead<'_>, PoolId),
        worker: &Worker,
        verdict: Verdict,
        remains: &[Remains],
    ) {
        let id = dead.worker;
        let is_claimed = |offer: &Offer| remains.iter().any(|left| left.seq == offer.seq() && left.claimed);
        let offers: Vec<(Offer, bool)> =
            worker.ring().iter().map(|offer| (*offer, is_claimed(offer))).collect();
        let first_claimed = offers.iter().find(|(_, claimed)| *claimed).map(|(offer, _)| *offer);
        match (verdict, first_claimed) {
            (Verdict::Charge, Some(offer)) => {
                if let Some(run) = self.current(id, &offer) {
                    self.charge(run, &dead);
                }
            }
            (Verdict::Charge | Verdict::ChargeSlot, _) => self.charge_nobody(&dead, pool),
            (Verdict::NeverUp, _) => {
                self.spawn_fault((id, pool), format!("it died before it was up: {}", dead.death));
            }
            (Verdict::Nobody, _) => {}
        }
        if let Some(offer) = first_claimed {
            self.jobs.note_uncharged(&self.turn, &held(id, &offer), offer.shown(), &dead);
        }
        let mut count = worker.requeued();
        for (offer, claimed) in offers.iter().rev() {
            if let Some(run) = self.current(id, offer) {
                self.requeue(run, *claimed);
                count += 1;
            }
            self.jobs.unload(&mut self.turn, offer.ticket());
        }
        if count > 0 {
            self.turn.record(What::Requeued { worker: id, count }, None);
        }
    }

    fn charge_nobody(&mut self, dead: &Dead<'_>, pool: PoolId) {
        if !self.drain.is_leaving() {
            self.turn.record(What::NobodyBlamed { worker: dead.worker }, None);
            self.fault(pool, &dead.death.to_string());
        }
    }

    /// Charges a death to the task whose attempt it ended: it runs alone from now on, or its job is quarantined.
    fn charge(&mut self, run: Run, dead: &Dead<'_>) {
        if let Some(outcome) = self.jobs.charge(&mut self.turn, run, dead) {
            self.end_task(run, outcome, Leftover::Nothing);
        }
    }
}

/// What leaving by itself means depends on what the worker was doing.
fn named(worker: &Worker, death: Death, remains: &[Remains]) -> Death {
    let in_mid_job = remains.iter().any(|left| left.claimed);
    match death {
        Death::Exited { code: 0 } if worker.shown() == WorkerState::Retiring => Death::Retired,
        Death::Exited { code: 0 } if in_mid_job => Death::LeftInMidJob,
        // Its word alone is not enough: each such leave must have cost a job that failed, so there are never more
        // of these than of those.
        Death::Exited { code }
            if code == i32::from(LEFT_AFTER_PANIC) && !in_mid_job && worker.failed_last() =>
        {
            Death::LeftAfterPanic
        }
        own @ (Death::Exited { .. }
        | Death::LeftInMidJob
        | Death::LeftAfterPanic
        | Death::Signalled { .. }
        | Death::Fault { .. }
        | Death::StackOverflow { .. }
        | Death::AllocationFailed { .. }
        | Death::Sent { .. }) => own,
        ours @ (Death::Killed { .. } | Death::Retired) => ours,
    }
}

fn verdict(worker: &Worker, death: &Death) -> Verdict {
    let why_killed = worker.why_killed();
    if why_killed == Some(Cause::Bootstrap) {
        return Verdict::Nobody;
    }
    match death {
        Death::Retired | Death::LeftAfterPanic => Verdict::Nobody,
        Death::Killed { why } => match why {
            KillReason::Timeout
            | KillReason::NoProgress
            | KillReason::CpuTime
            | KillReason::Cancel
            | KillReason::Stop => Verdict::Nobody,
            KillReason::Lie { .. } | KillReason::Memory { .. } | KillReason::Stopped => Verdict::Charge,
            KillReason::Unresponsive if why_killed == Some(Cause::HungUp) => Verdict::Charge,
            KillReason::Unresponsive => Verdict::ChargeSlot,
        },
        Death::Exited { .. }
        | Death::LeftInMidJob
        | Death::Signalled { .. }
        | Death::Fault { .. }
        | Death::StackOverflow { .. }
        | Death::AllocationFailed { .. }
        | Death::Sent { .. } => match worker.shown() {
            WorkerState::Starting => Verdict::NeverUp,
            WorkerState::Spare
            | WorkerState::Idle
            | WorkerState::Busy
            | WorkerState::Retiring
            | WorkerState::Killed
            | WorkerState::Stuck => Verdict::Charge,
        },
    }
}
