//! A proven death, from top to bottom: proof, name, blame, retry or quarantine, slot.
//!
//! `died` takes the worker out of the table, which frees its slot; `named` says how it died; `blame` says who is charged;
//! `charge_for` charges a task, whose job is retried or quarantined, or the pool; `give_back` puts the other offers
//! back in front of the queue. `Workers::place_spares` fills the slot at the end of the same turn.
//!
//! The text of a stack is no part of a record: it goes to the death that the job of the first claimed offer keeps, because it
//! was written for that offer.
//!
//! The table of deaths stands at `blame`. Who is shown the records of a death stands at `owner`.

use bulkhead_proto::client::evidence::Evidence;
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::view::WorkerState;
use bulkhead_proto::death::{Death, KillReason};
use bulkhead_proto::ids::{PoolId, WorkerId};
use bulkhead_proto::worker::message::{LEFT_AFTER_PANIC, LEFT_PROCESSES};

use crate::event::{Leftover, ProcessEnd, Remains};
use crate::job::{ProvenDeath, TaskRun};
use crate::machine::settle::held_by;
use crate::machine::{Core, JobOffer, JobWorker};
use crate::turn::{Counter, Owner};

/// Who is charged with a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blame {
    /// The task of the first claimed offer; the slot if none was claimed.
    FirstClaimed,
    /// The slot, even if an offer was claimed.
    Slot,
    /// The pool, for a spawn that failed: the worker was never ready.
    Spawn,
    /// Nobody: the core meant the death, or has counted it before.
    Nobody,
}

impl Core {
    /// The death of a worker is proven.
    pub(super) fn died(
        &mut self,
        id: WorkerId,
        end: ProcessEnd,
        noticed_after_us: Option<u64>,
        remains: &[Remains],
        evidence: Evidence,
    ) {
        self.end_timed_out(id);
        let Some(worker) = self.workers.remove(&mut self.turn, id) else {
            return self.turn.count(Counter::Stale, 1);
        };
        let (pool, slot, pid, ended) =
            (worker.pool(), worker.slot(), worker.pid().unwrap_or(0), worker.ended());
        let death = named(&worker, end, remains);
        self.turn.count(Counter::Deaths, u64::from(death.is_own()));
        let is_claimed =
            |offer: &JobOffer| remains.iter().any(|left| left.seq == offer.seq() && left.claimed);
        let offers: Vec<(JobOffer, bool)> =
            worker.ring().iter().map(|offer| (*offer, is_claimed(offer))).collect();
        let first_claimed = offers.iter().find(|(_, claimed)| *claimed).map(|(offer, _)| offer);
        let owner = owner(&worker, first_claimed);
        let died = What::Died {
            worker: id,
            pid,
            slot,
            death: death.clone(),
            evidence: evidence.without_stack_text(),
            noticed_after_us,
            ended,
        };
        self.turn.record(died, owner);
        self.workers.pause_spawns(&self.turn, pool);
        let dead = ProvenDeath { worker: id, pid, death: &death, evidence: &evidence };
        self.charge_for(&dead, (pool, owner), blame(&worker, &death), first_claimed);
        self.give_back((id, &worker), &offers, owner);
    }
}

/// Who may see all that is recorded of a death: the user of the first claimed offer, because last words and progress are of
/// that task. Without one, the user of all tasks that the worker was offered.
fn owner(worker: &JobWorker, first_claimed: Option<&JobOffer>) -> Owner {
    first_claimed.map_or(worker.offered_for(), |offer| Owner::User(offer.uid()))
}

/// How a worker died. The shell says how its process ended, and no more: the core knows why it killed a worker, and what
/// exit code 0, or the code for a panic, means depends on what the worker was doing.
fn named(worker: &JobWorker, end: ProcessEnd, remains: &[Remains]) -> Death {
    let in_mid_job = remains.iter().any(|left| left.claimed);
    let own = match end {
        ProcessEnd::ByUs => {
            let kill = worker.meant_kill().expect("the shell kills a worker only when it is asked to");
            return Death::Killed { why: kill.why() };
        }
        ProcessEnd::Itself(own) => own,
    };
    match own {
        Death::Exited { code: 0 } if worker.was_retiring() => Death::Retired,
        Death::Exited { code: 0 } if in_mid_job => Death::LeftInMidJob,
        // The exit code is the worker's word. It counts only after a task that was reported as failed, so every such
        // death has cost a failed job.
        Death::Exited { code }
            if code == i32::from(LEFT_AFTER_PANIC) && !in_mid_job && worker.failed_last() =>
        {
            Death::LeftAfterPanic
        }
        // It has told which processes it left, and ran nothing after that.
        Death::Exited { code }
            if code == i32::from(LEFT_PROCESSES) && !in_mid_job && worker.left_by().is_some() =>
        {
            Death::LeftProcesses
        }
        Death::Exited { .. }
        | Death::LeftInMidJob
        | Death::LeftAfterPanic
        | Death::LeftProcesses
        | Death::Signalled { .. }
        | Death::Fault { .. }
        | Death::StackOverflow { .. }
        | Death::AllocationFailed { .. }
        | Death::Sent { .. }
        | Death::Killed { .. }
        | Death::Retired
        | Death::OfProgram { .. } => own,
    }
}

/// Who is charged with a death, by its name and by why the worker was killed.
///
/// | death | first claimed offer | further claimed | offered | none claimed |
/// |---|---|---|---|---|
/// | its own: exited, any signal | charged | given back | given back | the slot is charged |
/// | killed: protocol violation, memory, stopped by a signal, or its lane hung up | charged | given back | given back | the slot is charged |
/// | killed: a limit of time, cancel, stop | has its outcome | given back | given back | nobody is charged |
/// | killed: unresponsive | given back | given back | given back | the slot is charged |
/// | killed or died before it was ready | - | - | - | charged once, as a failed spawn |
/// | left after a panic, or because of processes that it may not end | - | - | given back | nobody is charged |
/// | retired | given back | given back | given back | nobody is charged |
///
/// Given back means: to the front of the queue, not charged. The job of the first claimed offer keeps the death as
/// evidence in every case. If that job has its outcome already, nothing is charged to it.
fn blame(worker: &JobWorker, death: &Death) -> Blame {
    if worker.kill().is_some_and(|kill| kill.is_counted()) {
        return Blame::Nobody;
    }
    let is_of_hung_up = worker.kill().is_some_and(|kill| kill.is_of_hung_up());
    match death {
        // No process of a worker ends as a program of its task does.
        Death::Retired | Death::LeftAfterPanic | Death::LeftProcesses | Death::OfProgram { .. } => {
            Blame::Nobody
        }
        Death::Killed { why } => match why {
            KillReason::Timeout
            | KillReason::NoProgress
            | KillReason::CpuTime
            | KillReason::ProgramStopped
            | KillReason::Cancel
            | KillReason::Stop => Blame::Nobody,
            KillReason::Violation { .. } | KillReason::Memory { .. } | KillReason::Stopped => {
                Blame::FirstClaimed
            }
            KillReason::Unresponsive if is_of_hung_up => Blame::FirstClaimed,
            KillReason::Unresponsive => Blame::Slot,
        },
        Death::Exited { .. }
        | Death::LeftInMidJob
        | Death::Signalled { .. }
        | Death::Fault { .. }
        | Death::StackOverflow { .. }
        | Death::AllocationFailed { .. }
        | Death::Sent { .. } => match worker.shown() {
            WorkerState::Starting => Blame::Spawn,
            WorkerState::Spare
            | WorkerState::Idle
            | WorkerState::Busy
            | WorkerState::Retiring
            | WorkerState::Killed
            | WorkerState::Stuck => Blame::FirstClaimed,
        },
    }
}

impl Core {
    /// Charges the death to whom `blame` names. The job of the first claimed offer keeps it as evidence in every case.
    fn charge_for(
        &mut self,
        dead: &ProvenDeath<'_>,
        (pool, owner): (PoolId, Owner),
        blame: Blame,
        first_claimed: Option<&JobOffer>,
    ) {
        let id = dead.worker;
        match (blame, first_claimed) {
            (Blame::FirstClaimed, Some(offer)) => {
                if let Some(run) = self.current(id, offer) {
                    self.charge_task(run, dead);
                }
            }
            (Blame::FirstClaimed | Blame::Slot, _) => self.charge_slot(dead, pool, owner),
            (Blame::Spawn, _) => {
                self.spawn_fault((id, pool), format!("it died before it was up: {}", dead.death));
            }
            (Blame::Nobody, _) => {}
        }
        if let Some(offer) = first_claimed {
            self.jobs.note_uncharged(&mut self.turn, &held_by(id, offer), offer.shown(), dead);
        }
    }

    /// Charges the death to the task whose attempt it ended. The task runs alone from now on, or its job is quarantined.
    fn charge_task(&mut self, run: TaskRun, dead: &ProvenDeath<'_>) {
        if let Some(outcome) = self.jobs.charge(&mut self.turn, run, dead) {
            self.end_task(run, outcome, Leftover::Nothing);
        }
    }

    /// Charges the death to the pool's restart intensity, unless the daemon is leaving.
    fn charge_slot(&mut self, dead: &ProvenDeath<'_>, pool: PoolId, owner: Owner) {
        if !self.drain.is_leaving() {
            self.turn.record(What::NobodyBlamed { worker: dead.worker }, owner);
            // Every user is shown why a pool is degraded.
            self.fault(pool, &dead.death.brief());
        }
    }

    /// Puts the tasks of all offers that are still current back in front of the queue, the last offer first, so that
    /// their order stays. The attachments of every offer are released.
    fn give_back(&mut self, (id, worker): (WorkerId, &JobWorker), offers: &[(JobOffer, bool)], owner: Owner) {
        let mut count = worker.requeued();
        for (offer, claimed) in offers.iter().rev() {
            if let Some(run) = self.current(id, offer) {
                self.requeue(run, *claimed);
                count += 1;
            }
            if !claimed {
                self.offer_never_began(id, offer);
            }
            self.jobs.unload(&mut self.turn, offer.ticket());
        }
        self.offers_are_gone(id);
        self.clients.forget_worker(id);
        if count > 0 {
            self.turn.record(What::Requeued { worker: id, count }, owner);
        }
    }
}
