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
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::view::{DeathRow, JobDeath};
use bulkhead_proto::client::why::Part;
use bulkhead_proto::death::{Death, KillReason};
use bulkhead_proto::ids::{PoolId, WorkerId};
use bulkhead_proto::worker::message::LEFT_AFTER_PANIC;

use crate::event::Remains;
use crate::job::entry::{Aside, Job, Left};
use crate::job::fan::part_of;
use crate::job::list::Key;
use crate::machine::Core;
use crate::turn::{Tally, ms};
use crate::worker::claims::Offer;
use crate::worker::entry::{Cause, Duty, Worker};

/// Deaths that are kept as evidence of one job; the oldest go first.
const EVIDENCE_MAX: usize = 32;

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

/// Who died, of what.
struct Dead<'a> {
    id: WorkerId,
    pool: PoolId,
    pid: u32,
    death: &'a Death,
    evidence: &'a Evidence,
}

impl Core {
    /// A worker's death is proven.
    pub(crate) fn died(
        &mut self,
        id: WorkerId,
        death: Death,
        noticed: Option<u64>,
        remains: &[Remains],
        evidence: Evidence,
    ) {
        let Some(slot) = self.pools.workers.get(&id).map(|worker| worker.slot) else {
            self.turn.count(Tally::Stale, 1);
            return;
        };
        self.unwatch(id, None);
        self.cancel_alarms(id);
        let Some(worker) = self.pools.remove(id, self.turn.now_ns()) else { return };
        let pool = worker.pool;
        self.pools[pool].stuck_replaced -= usize::from(worker.replaced);
        self.replace_stuck(pool);
        let death = named(&worker, death, remains);
        self.turn.count(Tally::Deaths, u64::from(death.is_own()));
        let pid = worker.pid.unwrap_or(0);
        let (ended, noticed_after_us) = (worker.ended, noticed);
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
        let pause_ns = self.turn.now_ns().saturating_add(ms(self.turn.config().respawn_delay_ms));
        self.pools[pool].next_spawn_ns = self.pools[pool].next_spawn_ns.max(pause_ns);
        let verdict = verdict(&worker, &death);
        self.settle_remains(
            Dead { id, pool, pid, death: &death, evidence: &evidence },
            worker,
            verdict,
            remains,
        );
    }

    /// Nothing that a worker has set off rings any more.
    pub(crate) fn cancel_alarms(&mut self, id: WorkerId) {
        let Some(worker) = self.pools.workers.get_mut(&id) else { return };
        worker.cancel_all(&mut self.turn, id);
        worker.asked = None;
        worker.suspended = None;
    }

    /// Charges whom the verdict names and gives back the rest.
    fn settle_remains(&mut self, dead: Dead<'_>, worker: Worker, verdict: Verdict, remains: &[Remains]) {
        let offers: Vec<(Offer, bool)> = worker
            .claims
            .into_offers()
            .into_iter()
            .map(|offer| (offer, remains.iter().any(|left| left.seq == offer.seq && left.claimed)))
            .collect();
        let first_claimed = offers.iter().find(|(_, claimed)| *claimed).map(|(offer, _)| *offer);
        match (verdict, first_claimed) {
            (Verdict::Charge, Some(offer)) => {
                if self.is_current(dead.id, &offer) {
                    self.charge(offer.key, &dead);
                }
            }
            (Verdict::Charge | Verdict::ChargeSlot, _) => self.charge_nobody(&dead),
            (Verdict::NeverUp, _) => {
                self.spawn_fault((dead.id, dead.pool), format!("it died before it was up: {}", dead.death))
            }
            (Verdict::Nobody, _) => {}
        }
        if let Some(offer) = first_claimed {
            self.note_uncharged(&offer, &dead);
        }
        let mut count = worker.requeued;
        for (offer, claimed) in offers.iter().rev() {
            if self.is_current(dead.id, offer) {
                self.give_back(offer.key, *claimed);
                count += 1;
            }
            self.unload(offer.freight);
        }
        if count > 0 {
            self.turn.record(What::Requeued { worker: dead.id, count }, None);
        }
    }

    fn charge_nobody(&mut self, dead: &Dead<'_>) {
        if !self.drain.is_leaving() {
            self.turn.record(What::NobodyBlamed { worker: dead.id }, None);
            self.fault(dead.pool, &dead.death.to_string());
        }
    }

    /// Keeps a death that ended an attempt of a job and is not charged to it: its outcome says why, or its next attempt.
    fn note_uncharged(&mut self, offer: &Offer, dead: &Dead<'_>) {
        let charged = |aside: &Aside| aside.deaths.iter().any(|death| death.worker == dead.id);
        let is_noted = |job: &Job| job.aside.as_deref().is_some_and(charged);
        if self.jobs.is_there(offer.key, offer.job) {
            let (job, _, part) = self.job_of(offer.key);
            let attempt = self.jobs[offer.key].attempts;
            if self.jobs[offer.key].fence == offer.fence && !is_noted(&self.jobs[job]) {
                self.keep_death((job, part, attempt), dead, false);
            }
        } else if let (Some((_, part)), Some(job)) = (part_of(offer.job), self.jobs.find(offer.shown)) {
            // A part that is gone with its job. That others were ended with it is no news.
            let end = self.jobs[job].end().and_then(|end| end.part);
            if let Some(this) = end.filter(|end| end.number == part + 1 && !is_noted(&self.jobs[job])) {
                self.keep_death((job, Some(this), offer.fence.0), dead, false);
            }
        }
    }

    /// Adds a death to the evidence of a job, and to the list for `deaths`.
    fn keep_death(&mut self, task: (Key, Option<Part>, u32), dead: &Dead<'_>, charged: bool) {
        let (key, part, attempt) = task;
        let at_us = self.turn.wall_us();
        let (kind, uid) = (self.kind_name(key), self.jobs.batch(key).uid);
        let job = &mut self.jobs[key];
        let id = job.id;
        let (death, evidence) = (dead.death.clone(), dead.evidence.clone());
        let death =
            JobDeath { at_us, part, attempt, worker: dead.id, pid: dead.pid, death, charged, evidence };
        let deaths = &mut job.aside_mut().deaths;
        if deaths.len() == EVIDENCE_MAX {
            deaths.remove(0);
        }
        deaths.push(death.clone());
        self.deaths.push(DeathRow { job: id, kind, uid, death });
    }

    /// Charges a death to the job whose attempt it ended: it runs alone from now on, or never again.
    fn charge(&mut self, key: Key, dead: &Dead<'_>) {
        let batch = self.jobs.batch(key);
        let (crashes_max, uid) = (batch.policy.crash_budget(), batch.uid);
        let now_ns = self.turn.now_ns();
        let job = &mut self.jobs[key];
        job.crashes = job.crashes.saturating_add(1);
        job.alone = true;
        let (attempt, crashes) = (job.attempts, job.crashes);
        job.aside_mut().lost_ns = Some(now_ns);
        let (own, id, part) = self.job_of(key);
        self.keep_death((own, part, attempt), dead, true);
        let blamed = What::Blamed { job: id, part, attempt, worker: dead.id, crashes, crashes_max };
        self.turn.record(blamed, Some(uid));
        if crashes >= crashes_max {
            let last = dead.death.to_string();
            self.end_job(key, Outcome::Crashed { crashes, last }, Left::Nothing);
        } else {
            self.await_fresh_worker(key);
        }
    }
}

/// What leaving by itself means depends on what the worker was doing.
fn named(worker: &Worker, death: Death, remains: &[Remains]) -> Death {
    let in_mid_job = remains.iter().any(|left| left.claimed);
    match death {
        Death::Exited { code: 0 } if worker.duty == Duty::Retiring => Death::Retired,
        Death::Exited { code: 0 } if in_mid_job => Death::LeftInMidJob,
        // Its word alone is not enough: each such leave must have cost a job that failed, so there are never more
        // of these than of those.
        Death::Exited { code }
            if code == i32::from(LEFT_AFTER_PANIC) && !in_mid_job && worker.failed_last =>
        {
            Death::LeftAfterPanic
        }
        other => other,
    }
}

fn verdict(worker: &Worker, death: &Death) -> Verdict {
    let cause = worker.duty.cause();
    match death {
        Death::Retired | Death::LeftAfterPanic => Verdict::Nobody,
        _ if cause == Some(Cause::Bootstrap) => Verdict::Nobody,
        Death::Killed {
            why:
                KillReason::Timeout
                | KillReason::NoProgress
                | KillReason::CpuTime
                | KillReason::Cancel
                | KillReason::Stop,
        } => Verdict::Nobody,
        Death::Killed { why: KillReason::Lie { .. } | KillReason::Memory { .. } | KillReason::Stopped } => {
            Verdict::Charge
        }
        Death::Killed { why: KillReason::Unresponsive } if cause == Some(Cause::HungUp) => Verdict::Charge,
        Death::Killed { why: KillReason::Unresponsive } => Verdict::ChargeSlot,
        // All others are its own: see `Death::is_own`.
        _ if worker.duty == Duty::Starting => Verdict::NeverUp,
        _ => Verdict::Charge,
    }
}
