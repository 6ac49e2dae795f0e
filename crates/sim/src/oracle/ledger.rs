//! The ledger of all accepted jobs: behind `lost`, `outcome`, `blame` and `budget`.
//!
//! This file follows what happens to jobs; what is judged about their ends stands in `verdicts`. It knows what
//! the core was told and what it decided, and never asks it.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_core::action::Task;
use bulkhead_core::config::Config;
use bulkhead_core::event::{Event, Now, TaskResult};
use bulkhead_proto::client::{Request, Submit};
use bulkhead_proto::death::{Death, KillReason};
use bulkhead_proto::ids::{ClientId, Fence, JobId, Seq, WorkerId};
use bulkhead_proto::record::What;

use crate::boxes::Guilt;
use crate::oracle::job::Job;
use crate::oracle::pool::Pool;
use crate::report::{Verdict, broken};
use crate::truth::Truth;
use crate::worker::Worker;

/// A death for which a job may be charged in this step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) worker: WorkerId,
    pub(crate) job: JobId,
    /// Whether it has to be, unless the job ends otherwise.
    pub(crate) must: bool,
}

/// All jobs.
#[derive(Debug, Default)]
pub struct Ledger {
    pub(crate) jobs: BTreeMap<JobId, Job>,
    pub(crate) kinds: Vec<String>,
    pub(crate) keep_ns: u64,
    pub(crate) vanished_ns: u64,
    /// Offers that are not resolved.
    pub(crate) offers: BTreeMap<(WorkerId, Seq), JobId>,
    /// The truth of each worker whose death is about to be told.
    pub(crate) guilts: BTreeMap<WorkerId, Guilt>,
    pub(crate) dues: Vec<Due>,
    /// Jobs whose charges changed in this step, so that a quarantine may be due.
    pub(crate) touched: BTreeSet<JobId>,
    /// Jobs that somebody asked to cancel in this step: they may be accepted in it too.
    pub(crate) cancels: BTreeSet<JobId>,
    /// When each client that left did so.
    pub(crate) gone: BTreeMap<ClientId, u64>,
    /// The daemon was asked to stop: jobs may be lost.
    pub(crate) stopping: bool,
    /// Offers that must have their worker for themselves.
    pub(crate) alone: BTreeMap<WorkerId, Seq>,
}

impl Ledger {
    /// No job yet.
    pub fn new(config: &Config) -> Self {
        Self {
            kinds: config.kinds.iter().map(|kind| kind.name.clone()).collect(),
            keep_ns: config.keep_ms * 1_000_000,
            vanished_ns: config.vanished_ms * 1_000_000,
            ..Self::default()
        }
    }

    /// Jobs accepted so far.
    pub fn accepted_count(&self) -> u64 {
        self.jobs.len() as u64
    }

    /// Lives of a job; 0 if it never was.
    pub fn lives(&self, job: JobId) -> u32 {
        self.jobs.get(&job).map_or(0, |job| job.life)
    }

    /// What a job truly is.
    pub fn truth(&self, job: JobId) -> Option<Truth> {
        self.jobs.get(&job).map(|job| Truth::find(&job.input))
    }

    /// The truth of a worker whose death is about to be told.
    pub fn proof(&mut self, worker: WorkerId, guilt: Guilt) {
        self.guilts.insert(worker, guilt);
    }

    /// Follows what the core is told.
    pub fn told(&mut self, now: Now, event: &Event, pool: &Pool) {
        match event {
            Event::ClientSaid { request: Request::Cancel { jobs }, .. } => {
                jobs.iter().for_each(|job| self.change(*job, |job| job.cancel = true));
                self.cancels.extend(jobs.iter().copied());
            }
            Event::ClientGone { client } => drop(self.gone.insert(*client, now.mono_ns)),
            Event::Drain { .. } | Event::Stop => self.stopping = true,
            Event::TookBack { worker, seq, won: true }
            | Event::OfferFailed { worker, seq, taken: true, .. } => drop(self.resolve(*worker, *seq)),
            Event::Finished { worker, seq, report } => {
                self.finished(*worker, *seq, &report.result, pool.is_killed(*worker));
            }
            Event::Died { worker, death, .. } => self.died(*worker, death),
            _ => {}
        }
    }

    fn change(&mut self, job: JobId, change: impl FnOnce(&mut Job)) {
        if let Some(job) = self.jobs.get_mut(&job) {
            change(job);
        }
    }

    fn resolve(&mut self, worker: WorkerId, seq: Seq) -> Option<JobId> {
        if self.alone.get(&worker) == Some(&seq) {
            self.alone.remove(&worker);
        }
        let job = self.offers.remove(&(worker, seq))?;
        self.change(job, |job| job.offer = None);
        Some(job)
    }

    fn finished(&mut self, worker: WorkerId, seq: Seq, result: &TaskResult, killed: bool) {
        let Some(id) = self.resolve(worker, seq) else { return };
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.offer_life != job.life {
            return;
        }
        if let TaskResult::Failed { .. } = result {
            job.refusals.push(result.clone());
            job.failures.1 += 1;
            job.failures.0 += u32::from(!killed && !job.cancel);
        } else {
            job.reports.push(result.clone());
        }
    }

    fn died(&mut self, worker: WorkerId, death: &Death) {
        let guilt = self.guilts.remove(&worker).unwrap_or_default();
        let ours = matches!(
            death,
            Death::Killed {
                why: KillReason::Cancel
                    | KillReason::Timeout
                    | KillReason::NoProgress
                    | KillReason::CpuTime
                    | KillReason::Stop
            }
        );
        // Whoever claimed while it was killed for not claiming may go uncharged.
        let unresponsive = *death == Death::Killed { why: KillReason::Unresponsive };
        let sure = guilt.disputed.is_empty() && !unresponsive;
        let charged = guilt.first.into_iter().map(|(seq, job)| (seq, job, sure));
        let disputed = guilt.disputed.into_iter().map(|(seq, job)| (seq, job, false));
        for (seq, id, must) in charged.chain(disputed).filter(|_| !ours) {
            let this = self.jobs.get(&id).filter(|job| job.offer == Some((worker, seq)));
            if this.is_some_and(|job| job.offer_life == job.life) {
                self.dues.push(Due { worker, job: id, must });
            }
        }
        let held: Vec<Seq> =
            self.offers.range((worker, Seq(0))..=(worker, Seq(u64::MAX))).map(|(key, _)| key.1).collect();
        for seq in held {
            self.resolve(worker, seq);
        }
        self.alone.remove(&worker);
    }

    /// Jobs were accepted.
    ///
    /// # Errors
    /// Their numbers were used before, or there are more of them than inputs.
    pub fn accepted(
        &mut self,
        now: Now,
        client: ClientId,
        uid: u32,
        submit: &Submit,
        first: JobId,
        count: u32,
    ) -> Verdict {
        let last = self.jobs.keys().next_back().copied().unwrap_or_default();
        if count > 0 && first.0 != last.0 + 1 {
            return broken("lost", format!("job {first} is accepted after job {last}"));
        }
        if count as usize > submit.inputs.len() {
            return broken("lost", format!("{count} jobs are accepted of {}", submit.inputs.len()));
        }
        let kind = self.kinds.iter().position(|name| *name == submit.kind).unwrap_or(usize::MAX);
        for (next, input) in submit.inputs.iter().take(count as usize).enumerate() {
            let id = JobId(first.0 + next as u64);
            let job = Job {
                client,
                uid,
                kind: kind as u16,
                policy: submit.policy.clone(),
                attached: submit.attached,
                input: input.clone(),
                accepted_ns: now.mono_ns,
                life: 1,
                before: None,
                changed_ns: now.mono_ns,
                end: None,
                end_recorded: false,
                offer: None,
                offer_life: 0,
                offers: 0,
                offered_ns: 0,
                fence: Fence(0),
                reports: Vec::new(),
                refusals: Vec::new(),
                failures: (0, 0),
                charges: 0,
                charges_ever: 0,
                cancel: self.cancels.contains(&id),
                forgotten: false,
            };
            self.jobs.insert(id, job);
        }
        Ok(())
    }

    /// Follows the records.
    ///
    /// # Errors
    /// A record is not true.
    pub fn recorded(&mut self, now: Now, what: &What) -> Verdict {
        match what {
            What::Blamed { job, worker, crashes, crashes_max, .. } => {
                self.blamed(*job, *worker, *crashes, *crashes_max)
            }
            What::Ended { job, outcome, .. } => self.end_recorded(now, *job, outcome),
            What::RetryAsked { job } => {
                let again = self.cancels.contains(job);
                self.change(*job, |job| {
                    job.revive(now.mono_ns);
                    job.cancel = again;
                });
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A task is offered.
    ///
    /// # Errors
    /// It must not be now, or is not what was submitted.
    pub fn offered(
        &mut self,
        now: Now,
        worker: WorkerId,
        seq: Seq,
        task: &Task,
        truth: Option<&Worker>,
    ) -> Verdict {
        let id = task.job;
        let Some(job) = self.jobs.get_mut(&id) else {
            return broken("lost", format!("job {id} is offered, but nobody was told of it"));
        };
        if let Some((other, old)) = job.offer {
            return broken(
                "exclusive",
                format!("job {id} is offered again, offer {old} of worker {other} is open"),
            );
        }
        let same = task.input == job.input && task.kind.0 == job.kind && task.output == job.policy.output;
        if !same || task.fence <= job.fence {
            return broken("outcome", format!("job {id} is offered as {task:?}, after {:?}", job.fence));
        }
        if job.end.is_some() || job.forgotten {
            return broken("outcome", format!("job {id} is offered, but ended {:?}", job.end));
        }
        if job.failures.0 > u32::from(job.policy.retry_budget()) {
            return broken("budget", format!("job {id} is offered after {:?} failures", job.failures));
        }
        let suspect = job.charges > 0;
        let fresh = truth.is_some_and(|truth| truth.begun == 0) && !self.holds_any(worker);
        if suspect && !fresh {
            return broken("budget", format!("job {id} was charged, but worker {worker} is not fresh"));
        }
        if let Some(alone) = self.alone.get(&worker) {
            return broken(
                "budget",
                format!("worker {worker} is to run offer {alone} alone, and gets {seq}"),
            );
        }
        if suspect {
            self.alone.insert(worker, seq);
        }
        if let Some(job) = self.jobs.get_mut(&id) {
            (job.offer, job.offer_life, job.offers) = (Some((worker, seq)), job.life, job.offers + 1);
            (job.fence, job.offered_ns) = (task.fence, now.mono_ns);
        }
        self.offers.insert((worker, seq), id);
        Ok(())
    }

    fn holds_any(&self, worker: WorkerId) -> bool {
        self.offers.range((worker, Seq(0))..=(worker, Seq(u64::MAX))).next().is_some()
    }
}
