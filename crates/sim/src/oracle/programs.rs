//! `programs`: tasks whose program a signal has stopped.
//!
//! A job is timed out for it only if its program was stopped for the whole limit, and an honest worker's task is told to end,
//! or its worker killed, within a few steps after that; likewise after the limit of progress, for a stopped program makes
//! none. Not every stop of a worker's programs is recorded, so that none can flood the records. It follows events, actions
//! and records, and never asks the core.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_core::action::{Action, Output};
use bulkhead_core::config::Config;
use bulkhead_core::event::{Event, Now};
use bulkhead_proto::client::outcome::{Outcome, TimeLimit};
use bulkhead_proto::client::record::What;
use bulkhead_proto::ids::{JobId, Seq, WorkerId};

use crate::clock::{MS, S};
use crate::oracle::ledger::JobOracle;
use crate::oracle::pool::PoolOracle;
use crate::report::{Verdict, broken};
use crate::task::TaskId;
use crate::worker::FakeWorker;

/// The least time between two recorded stops in one worker.
const RECORD_PAUSE_NS: u64 = 60 * S;
/// Steps within which a met limit must be enforced: for the look, its answer, and what overlaps with them.
const STEPS_MAX: u32 = 10;

/// A task whose program is stopped.
#[derive(Debug)]
struct KnownStop {
    seq: Seq,
    task: TaskId,
    since_ns: u64,
    /// Steps since it met a limit.
    overdue: u32,
}

/// Follows the stopped programs.
#[derive(Debug)]
pub struct ProgramOracle {
    limit_ms: Option<u64>,
    stopped: BTreeMap<WorkerId, KnownStop>,
    /// The offer that each worker was last told to end, or asked for its stack of, whether or not its program was stopped then.
    ending: BTreeMap<WorkerId, Seq>,
    /// Workers that told of a stop in this turn.
    told: BTreeSet<WorkerId>,
    /// Jobs whose task was told to end after its program had been stopped for the whole limit.
    met: BTreeSet<JobId>,
    /// When a stop was last recorded, and whether its end was.
    recorded: BTreeMap<WorkerId, (u64, bool)>,
}

impl ProgramOracle {
    /// An oracle that knows no stopped program.
    pub fn new(config: &Config) -> Self {
        let limit_ms = config.program_stopped_ms;
        let (stopped, ending, recorded) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { limit_ms, stopped, ending, told: BTreeSet::new(), met: BTreeSet::new(), recorded }
    }

    /// Follows an event, before the ledger does.
    pub fn told(&mut self, now: Now, event: &Event, ledger: &JobOracle) {
        match event {
            Event::ProgramStopped { worker, seq, .. } => {
                let first = ledger.offers.range((*worker, Seq(0))..=(*worker, Seq(u64::MAX))).next();
                let Some((_, task)) = first.filter(|(key, _)| key.1 == *seq) else { return };
                let stop = KnownStop { seq: *seq, task: *task, since_ns: now.mono_ns, overdue: 0 };
                self.stopped.insert(*worker, stop);
                self.told.insert(*worker);
            }
            Event::ProgramContinued { worker, seq }
            | Event::Finished { worker, seq, .. }
            | Event::TookBack { worker, seq, won: true } => {
                self.stopped.retain(|id, stop| id != worker || stop.seq != *seq);
            }
            Event::Died { worker, .. } => drop(self.stopped.remove(worker)),
            _ => {}
        }
    }

    fn is_met(&self, now: Now, stop: &KnownStop, ledger: &JobOracle) -> bool {
        let ran_ns = ledger.pauses.ran_ns(stop.since_ns, now.mono_ns);
        self.limit_ms.is_some_and(|limit_ms| ran_ns >= limit_ms * MS)
    }

    /// Follows the output of a turn.
    ///
    /// # Errors
    /// A job is timed out too early, or a stop is recorded too often.
    pub fn decided(&mut self, now: Now, out: &Output, ledger: &JobOracle) -> Verdict {
        for record in &out.records {
            match &record.what {
                What::ProgramStopped { worker, .. } => self.recorded(now, *worker)?,
                What::ProgramContinued { worker, .. } => self.end_recorded(*worker)?,
                What::Ended { job, outcome, .. } => self.ended(now, *job, outcome, ledger)?,
                _ => {}
            }
        }
        for action in &out.actions {
            let (Action::Unwant { worker, .. }
            | Action::AskStack { worker, .. }
            | Action::Kill { worker, .. }) = action
            else {
                continue;
            };
            // One that is asked for its stack is killed soon: the oracle `stacks` judges that.
            if let Action::Unwant { worker, seq } | Action::AskStack { worker, seq, .. } = action {
                self.ending.insert(*worker, *seq);
            }
            let is_met = self.stopped.get(worker).is_some_and(|stop| self.is_met(now, stop, ledger));
            if let Some(stop) = self.stopped.get(worker).filter(|_| is_met) {
                self.met.insert(stop.task.job);
            }
        }
        Ok(())
    }

    fn recorded(&mut self, now: Now, worker: WorkerId) -> Verdict {
        if !self.told.contains(&worker) {
            return broken("programs", format!("worker {worker}: a stop is recorded that was not told"));
        }
        match self.recorded.insert(worker, (now.mono_ns, false)) {
            Some((before_ns, _)) if now.mono_ns < before_ns + RECORD_PAUSE_NS => {
                broken("programs", format!("worker {worker}: two stops are recorded in a short time"))
            }
            _ => Ok(()),
        }
    }

    fn end_recorded(&mut self, worker: WorkerId) -> Verdict {
        let is_open = |(_, is_over): &mut (u64, bool)| !std::mem::replace(is_over, true);
        if self.recorded.get_mut(&worker).is_some_and(is_open) {
            return Ok(());
        }
        broken("programs", format!("worker {worker}: the end of a stop is recorded without its stop"))
    }

    fn ended(&self, now: Now, job: JobId, outcome: &Outcome, ledger: &JobOracle) -> Verdict {
        let Outcome::TimedOut { limit: TimeLimit::ProgramStopped, limit_ms, .. } = outcome else {
            return Ok(());
        };
        let of_job = |stop: &&KnownStop| stop.task.job == job;
        let is_met = self.met.contains(&job)
            || self.stopped.values().filter(of_job).any(|stop| self.is_met(now, stop, ledger));
        if is_met && self.limit_ms == Some(*limit_ms) {
            return Ok(());
        }
        broken("programs", format!("job {job} ended {outcome}, and was stopped as {:?} say", self.stopped))
    }

    /// The end of a turn.
    ///
    /// # Errors
    /// A limit was met, and nothing was done about it for many steps.
    pub fn turn_over(
        &mut self,
        now: Now,
        pool: &PoolOracle,
        ledger: &JobOracle,
        workers: &BTreeMap<WorkerId, FakeWorker>,
    ) -> Verdict {
        self.told.clear();
        for (worker, stop) in &mut self.stopped {
            let is_honest = workers.get(worker).is_some_and(|truth| truth.lives() && !truth.hostile);
            let policy = ledger.task(stop.task).map(|job| &job.policy);
            let limits = [self.limit_ms, policy.and_then(|policy| policy.no_progress_ms)];
            let Some(limit_ms) = limits.into_iter().flatten().min() else { continue };
            let ran_ns = ledger.pauses.ran_ns(stop.since_ns, now.mono_ns);
            let is_ending = self.ending.get(worker) == Some(&stop.seq);
            let is_left = is_honest && !is_ending && !pool.is_killed(*worker) && !pool.is_deaf(*worker);
            if !is_left || ran_ns < limit_ms * MS {
                continue;
            }
            stop.overdue += 1;
            if stop.overdue > STEPS_MAX {
                return broken("programs", format!("worker {worker} is left alone with {stop:?}"));
            }
        }
        Ok(())
    }
}
