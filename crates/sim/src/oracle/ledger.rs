//! The ledger of all accepted jobs: behind `lost`, `outcome`, `blame` and `budget`.
//!
//! This file follows jobs through events, actions and records; `verdicts.rs` judges their ends. It never asks the core.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_core::action::Task;
use bulkhead_core::config::{Config, JournalUse};
use bulkhead_core::event::{Event, Now, Report, TaskResult};
use bulkhead_proto::client::message::{Request, Submit};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::record::What;
use bulkhead_proto::death::KillReason;
use bulkhead_proto::ids::{ClientId, JobId, Seq, Tag, WorkerId};
use bulkhead_proto::job::Payload;

use crate::boxes::Guilt;
use crate::oracle::job::KnownJob;
use crate::oracle::pauses::PauseOracle;
use crate::oracle::pool::PoolOracle;
use crate::report::{Verdict, broken};
use crate::task::TaskId;
use crate::worker::FakeWorker;

/// A death for which a job may be charged in this step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) worker: WorkerId,
    pub(crate) task: TaskId,
    /// Whether it has to be, unless the job ends otherwise.
    pub(crate) must: bool,
}

/// All jobs.
#[derive(Debug, Default)]
pub struct JobOracle {
    /// Why the core had workers killed that are not proven dead.
    kills: BTreeMap<WorkerId, KillReason>,
    pub(crate) jobs: BTreeMap<JobId, KnownJob>,
    /// Parts of jobs that have been offered, each followed as a job is.
    pub(crate) parts: BTreeMap<TaskId, KnownJob>,
    plans: Vec<bool>,
    /// Whether jobs may be durable.
    pub(crate) has_journal: bool,
    pub(crate) kinds: Vec<String>,
    pub(crate) keep_ns: u64,
    pub(crate) vanished_ns: u64,
    /// Offers that are not resolved.
    pub(crate) offers: BTreeMap<(WorkerId, Seq), TaskId>,
    /// The truth of each worker whose death is about to be an event.
    pub(crate) guilts: BTreeMap<WorkerId, Guilt>,
    pub(crate) dues: Vec<Due>,
    /// Jobs whose charges changed in this step, so that a quarantine may be due.
    pub(crate) touched: BTreeSet<TaskId>,
    /// Jobs that a client asked to cancel in this step, and whether only if they wait: they may be accepted in it too.
    pub(crate) cancels: BTreeMap<JobId, bool>,
    /// When each request to end what waits came that is not answered.
    pub(crate) waiting_asked: BTreeMap<(ClientId, Tag), u64>,
    /// The time in which nothing ran.
    pub pauses: PauseOracle,
    /// The time at which each client left.
    pub(crate) gone: BTreeMap<ClientId, u64>,
    /// Jobs that ended before they began and that the record of it has no room to name.
    pub(crate) unnamed_ends: u64,
    /// The daemon was asked to stop: jobs may be lost.
    pub(crate) stopping: bool,
    /// Offers that must have their worker for themselves.
    pub(crate) alone: BTreeMap<WorkerId, Seq>,
}

impl JobOracle {
    /// No job yet.
    pub fn new(config: &Config) -> Self {
        Self {
            kinds: config.kinds.iter().map(|kind| kind.name.clone()).collect(),
            plans: config.kinds.iter().map(|kind| kind.plans).collect(),
            has_journal: matches!(config.journal, JournalUse::Open(_)),
            keep_ns: config.keep_ms * 1_000_000,
            vanished_ns: config.vanished_ms * 1_000_000,
            ..Self::default()
        }
    }

    /// Jobs accepted so far.
    pub fn accepted_count(&self) -> u64 {
        self.jobs.len() as u64
    }

    /// Whether a job may have been kept for as long as ended jobs are: since it was accepted, or last asked to change.
    pub fn may_be_old(&self, job: JobId, now: Now) -> bool {
        let since_ns = |job: &KnownJob| job.accepted_ns.max(job.changed_ns);
        self.jobs.get(&job).is_some_and(|job| now.mono_ns >= since_ns(job) + self.keep_ns)
    }

    /// Lives of a job; 0 if it never was.
    pub fn lives(&self, job: JobId) -> u32 {
        self.jobs.get(&job).map_or(0, |job| job.life)
    }

    /// Some jobs of each sort that a person would ask about: waiting, running, charged, ended badly.
    pub fn curious(&self, each: usize) -> Vec<JobId> {
        let is_there = |job: &&KnownJob| !job.forgotten;
        let sorts: [fn(&KnownJob) -> bool; 4] = [
            |job| job.end.is_none() && job.offer.is_none() && job.charges == 0,
            |job| job.end.is_none() && job.offer.is_some(),
            |job| job.end.is_none() && job.charges > 0,
            |job| job.end.as_ref().is_some_and(|end| end.outcome != Outcome::Done),
        ];
        let of = |sort: fn(&KnownJob) -> bool| {
            let jobs = self.jobs.iter().rev().filter(move |(_, job)| is_there(job) && sort(job));
            jobs.map(|(id, _)| *id).take(each)
        };
        sorts.into_iter().flat_map(of).collect()
    }

    /// The input of a job, which hides its true nature.
    pub fn input(&self, job: JobId) -> Option<&Payload> {
        self.jobs.get(&job).map(|job| &job.input)
    }

    pub(crate) fn task(&self, task: TaskId) -> Option<&KnownJob> {
        if task.part == 0 { self.jobs.get(&task.job) } else { self.parts.get(&task) }
    }

    pub(crate) fn task_mut(&mut self, task: TaskId) -> Option<&mut KnownJob> {
        if task.part == 0 { self.jobs.get_mut(&task.job) } else { self.parts.get_mut(&task) }
    }

    /// Notes the truth of a worker whose death is about to be an event.
    pub fn proof(&mut self, worker: WorkerId, guilt: Guilt) {
        self.guilts.insert(worker, guilt);
    }

    /// Follows an event.
    pub fn told(&mut self, now: Now, event: &Event, pool: &PoolOracle) {
        match event {
            Event::ClientSaid { request: Request::Cancel { jobs }, .. } => {
                jobs.iter().for_each(|job| {
                    self.change(*job, |job| (job.cancel, job.waits_only) = (true, false));
                });
                self.cancels.extend(jobs.iter().map(|job| (*job, false)));
            }
            Event::ClientSaid { request: Request::Forget { jobs }, .. } if self.has_journal => {
                jobs.iter().for_each(|job| self.change(*job, |job| job.forget_asked = true));
            }
            Event::ClientSaid { request: Request::CancelWaiting { .. }, .. } => {
                self.asked_waiting(now, event)
            }
            Event::ClientGone { client } => drop(self.gone.insert(*client, now.mono_ns)),
            Event::Drain { .. } | Event::Stop => self.stopping = true,
            Event::TookBack { worker, seq, won: true }
            | Event::OfferFailed { worker, seq, taken: true, .. } => drop(self.resolve(*worker, *seq)),
            Event::Finished { worker, seq, report } => {
                self.finished(now, *worker, *seq, report, pool.is_killed(*worker));
            }
            Event::Died { worker, remains, .. } => {
                for left in remains.iter().filter(|left| left.claimed) {
                    self.began(now, *worker, left.seq);
                }
                self.died(*worker);
            }
            _ => {}
        }
    }

    /// A task has begun: its offer is not taken back any more.
    fn began(&mut self, now: Now, worker: WorkerId, seq: Seq) {
        let task = self.offers.get(&(worker, seq)).copied();
        if let Some(job) = task.and_then(|task| self.task_mut(task)) {
            job.begun = true;
            job.last_begun_ns = now.mono_ns;
        }
    }

    /// Clients have received the results of these jobs.
    pub fn received(&mut self, jobs: Vec<JobId>) {
        jobs.into_iter().for_each(|job| self.change(job, |job| job.received = true));
    }

    fn change(&mut self, job: JobId, change: impl FnOnce(&mut KnownJob)) {
        if let Some(job) = self.jobs.get_mut(&job) {
            change(job);
        }
    }

    fn resolve(&mut self, worker: WorkerId, seq: Seq) -> Option<TaskId> {
        if self.alone.get(&worker) == Some(&seq) {
            self.alone.remove(&worker);
        }
        let task = self.offers.remove(&(worker, seq))?;
        if let Some(job) = self.task_mut(task) {
            job.offer = None;
        }
        Some(task)
    }

    fn finished(&mut self, now: Now, worker: WorkerId, seq: Seq, report: &Report, killed: bool) {
        self.began(now, worker, seq);
        let Some(task) = self.resolve(worker, seq) else { return };
        let Some((life, cancel)) = self.jobs.get(&task.job).map(|job| (job.life, job.cancel)) else { return };
        let Some(job) = self.task_mut(task) else { return };
        if job.offer_life != life {
            return;
        }
        if !report.survivors.is_empty() {
            job.lives_on = true;
            // It fails at once, whatever retries it has left.
            job.failures.1 = u32::MAX / 2;
        }
        match &report.result {
            TaskResult::Failed { .. } => {
                job.refusals.push(report.result.clone());
                job.failures.1 += 1;
                job.failures.0 += u32::from(!killed && !cancel);
            }
            TaskResult::Planned { output, parts, .. } => job.planned = Some((*output, *parts)),
            _ => {
                job.reports.push(report.result.clone());
                job.reported_ns = Some(now.mono_ns);
            }
        }
    }

    /// The core has a worker killed: what is charged with its death depends on why.
    pub fn killed(&mut self, worker: WorkerId, why: KillReason) {
        self.kills.insert(worker, why);
    }

    fn died(&mut self, worker: WorkerId) {
        let kill = self.kills.remove(&worker);
        let guilt = self.guilts.remove(&worker).unwrap_or_default();
        let ours = matches!(
            kill,
            Some(
                KillReason::Cancel
                    | KillReason::Timeout
                    | KillReason::NoProgress
                    | KillReason::CpuTime
                    | KillReason::ProgramStopped
                    | KillReason::Stop
            )
        );
        // A task that was claimed while its worker was killed for not claiming may go uncharged.
        let unresponsive = kill == Some(KillReason::Unresponsive);
        let sure = guilt.disputed.is_empty() && !unresponsive;
        let charged = guilt.first.into_iter().map(|(seq, task)| (seq, task, sure));
        let disputed = guilt.disputed.into_iter().map(|(seq, task)| (seq, task, false));
        for (seq, task, must) in charged.chain(disputed).filter(|_| !ours) {
            let life = self.lives(task.job);
            let this = self.task(task).filter(|job| job.offer == Some((worker, seq)));
            if this.is_some_and(|job| job.offer_life == life) {
                self.dues.push(Due { worker, task, must });
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
        let end = JobId(first.0 + u64::from(count));
        // Numbers of durable jobs are given before they are accepted.
        let is_next =
            first.0 == last.0 + 1 || self.has_journal && self.jobs.range(first..end).next().is_none();
        if count > 0 && !is_next {
            return broken("lost", format!("job {first} is accepted after job {last}"));
        }
        if count as usize > submit.inputs.len() {
            return broken("lost", format!("{count} jobs are accepted of {}", submit.inputs.len()));
        }
        let kind = self.kinds.iter().position(|name| *name == submit.kind).unwrap_or(usize::MAX);
        for (next, input) in submit.inputs.iter().take(count as usize).enumerate() {
            let id = JobId(first.0 + next as u64);
            let plans = self.plans.get(kind).copied().unwrap_or(false);
            let files = submit.files.clone();
            let job = KnownJob {
                attached: submit.attached,
                held: submit.held,
                durable: submit.durable.is_some(),
                flavour: submit.flavour,
                cancel: self.cancels.contains_key(&id),
                waits_only: self.cancels.get(&id) == Some(&true),
                plans,
                files,
                ..KnownJob::new(client, uid, kind as u16, submit.policy.clone(), input.clone(), now.mono_ns)
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
            What::Blamed { job, part, worker, crashes, crashes_max, .. } => {
                self.blamed(TaskId::named(*job, *part), *worker, *crashes, *crashes_max)
            }
            What::Ended { job, outcome, .. } => self.end_recorded(now, *job, outcome),
            What::EndedQueued { outcome, count, jobs, .. } => self.queued_ended(now, outcome, *count, jobs),
            What::RetryAsked { job } => {
                self.forget_parts(*job)?;
                let again = self.cancels.get(job).copied();
                self.change(*job, |job| {
                    job.revive(now.mono_ns);
                    (job.cancel, job.waits_only) = (again.is_some(), again == Some(true));
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
        truth: Option<&FakeWorker>,
    ) -> Verdict {
        let id = TaskId::of(task);
        self.offered_in_turn(now, task)?;
        let Some(job) = self.task(id) else {
            return broken("lost", format!("{id:?} is offered, but nobody was told of it"));
        };
        if job.lives_on {
            return broken("exclusive", format!("{id:?} is offered while processes of it live on"));
        }
        if let Some((other, old)) = job.offer {
            return broken(
                "exclusive",
                format!("{id:?} is offered again, offer {old} of worker {other} is open"),
            );
        }
        let same = task.input == job.input && task.kind.0 == job.kind && job.may_go(task.stage, task.output);
        if !same || task.fence <= job.fence {
            return broken("outcome", format!("{id:?} is offered as {task:?}, after {:?}", job.fence));
        }
        let over = self.jobs.get(&task.job).is_some_and(|job| job.end.is_some() || job.forgotten);
        if over {
            return broken("outcome", format!("{id:?} is offered, but its job has ended"));
        }
        if job.failures.0 > u32::from(job.policy.retry_budget()) {
            return broken("budget", format!("{id:?} is offered after {:?} failures", job.failures));
        }
        let suspect = job.charges > 0;
        let fresh = truth.is_some_and(|truth| truth.begun == 0) && !self.holds_any(worker);
        if suspect && !fresh {
            return broken("budget", format!("{id:?} was charged, but worker {worker} is not fresh"));
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
        let life = self.lives(task.job);
        if let Some(job) = self.task_mut(id) {
            (job.offer, job.offer_life, job.offers) = (Some((worker, seq)), life, job.offers + 1);
            (job.fence, job.offered_ns) = (task.fence, now.mono_ns);
        }
        self.offers.insert((worker, seq), id);
        Ok(())
    }

    fn holds_any(&self, worker: WorkerId) -> bool {
        self.offers.range((worker, Seq(0))..=(worker, Seq(u64::MAX))).next().is_some()
    }
}
