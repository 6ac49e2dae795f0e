//! `backoff`: a failed attempt is repeated after the time that its record tells, and that time is right.
//!
//! Right is between half and all of `backoff_min_ms`, doubled for each failure before in this life of the job, up to
//! `backoff_max_ms`. Until then the task is not offered; afterwards its job is not listed as retrying, unless a death was charged
//! to it. A pool whose worker did not come up spawns none before the time that its record tells, unless it recovers. All without
//! the time in which nothing ran. It follows records and actions, and never asks the core.

use std::collections::BTreeMap;

use bulkhead_core::config::Config;
use bulkhead_core::event::Now;
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::view::JobRow;
use bulkhead_proto::ids::{PoolId, WorkerId};
use bulkhead_proto::job::JobState;

use crate::clock::MS;
use crate::oracle::ledger::JobOracle;
use crate::report::{Verdict, broken};
use crate::task::TaskId;

/// A task that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pause {
    since_ns: u64,
    for_ns: u64,
}

/// Follows the tasks and pools that wait.
#[derive(Debug)]
pub struct BackoffOracle {
    min_ms: u64,
    max_ms: u64,
    names: Vec<String>,
    /// Backoffs of each task in this life of its job.
    counts: BTreeMap<TaskId, u32>,
    tasks: BTreeMap<TaskId, Pause>,
    /// The pool of each worker.
    pools: BTreeMap<WorkerId, PoolId>,
    spawns: BTreeMap<PoolId, Pause>,
    /// When the last two steps were, the last one first.
    steps_ns: [u64; 2],
}

impl BackoffOracle {
    /// An oracle that knows no task.
    pub fn new(config: &Config) -> Self {
        Self {
            min_ms: config.backoff_min_ms,
            max_ms: config.backoff_max_ms,
            names: config.all_pools().map(|pool| pool.name).collect(),
            counts: BTreeMap::new(),
            tasks: BTreeMap::new(),
            pools: BTreeMap::new(),
            spawns: BTreeMap::new(),
            steps_ns: [0; 2],
        }
    }

    /// Follows a record.
    ///
    /// # Errors
    /// The time that it tells is wrong.
    pub fn recorded(&mut self, now: Now, what: &What) -> Verdict {
        match what {
            What::Backoff { job, part, retry_after_ms, .. } => {
                self.fails(now, TaskId::named(*job, *part), *retry_after_ms)
            }
            What::RetryAsked { job } => {
                self.counts.retain(|task, _| task.job != *job);
                self.tasks.retain(|task, _| task.job != *job);
                Ok(())
            }
            What::SpawnFailed { worker, retry_after_ms, .. } => {
                if *retry_after_ms < self.min_ms {
                    return broken(
                        "backoff",
                        format!("a spawn failed, and the next comes so soon: {what:?}"),
                    );
                }
                // The time is rounded up to a whole millisecond.
                let pause = Pause { since_ns: now.mono_ns, for_ns: (retry_after_ms - 1) * MS };
                if let Some(pool) = self.pools.get(worker) {
                    self.spawns.insert(*pool, pause);
                }
                Ok(())
            }
            What::Recovered { pool } => {
                let at = self.names.iter().position(|name| name == pool);
                self.spawns.retain(|pool, _| Some(usize::from(pool.0)) != at);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn fails(&mut self, now: Now, task: TaskId, retry_after_ms: u64) -> Verdict {
        let count = self.counts.entry(task).or_default();
        let most_ms = (0..*count).fold(self.min_ms, |span_ms, _| (span_ms * 2).min(self.max_ms));
        let most_ms = most_ms.min(self.max_ms);
        *count += 1;
        if retry_after_ms < most_ms / 2 || retry_after_ms > most_ms {
            let what =
                format!("{task:?} waits {retry_after_ms} ms, not about {most_ms} ms, for failure {count}");
            return broken("backoff", what);
        }
        self.tasks.insert(task, Pause { since_ns: now.mono_ns, for_ns: retry_after_ms * MS });
        Ok(())
    }

    /// A task is offered.
    ///
    /// # Errors
    /// It waits.
    pub fn offered(&mut self, now: Now, task: TaskId, ledger: &JobOracle) -> Verdict {
        match self.tasks.remove(&task) {
            Some(pause) if is_open(pause, now.mono_ns, ledger) => {
                broken("backoff", format!("{task:?} is offered at {}, and waits: {pause:?}", now.mono_ns))
            }
            _ => Ok(()),
        }
    }

    /// A worker is spawned.
    ///
    /// # Errors
    /// Its pool waits.
    pub fn spawned(&mut self, now: Now, worker: WorkerId, pool: PoolId, ledger: &JobOracle) -> Verdict {
        self.pools.insert(worker, pool);
        match self.spawns.remove(&pool) {
            Some(pause) if is_open(pause, now.mono_ns, ledger) => {
                broken("backoff", format!("pool {pool} spawns at {}, and waits: {pause:?}", now.mono_ns))
            }
            _ => Ok(()),
        }
    }

    /// A step is over.
    pub fn turn_over(&mut self, now: Now) {
        self.steps_ns = [now.mono_ns, self.steps_ns[0]];
    }

    /// All jobs were listed in the last step, before it decided anything.
    ///
    /// # Errors
    /// One still waits that was to be queued in an earlier step.
    pub fn listed(&self, rows: &[JobRow], ledger: &JobOracle) -> Verdict {
        for row in rows.iter().filter(|row| row.state == JobState::Retrying) {
            let is_charged = ledger.jobs.get(&row.job).is_none_or(|job| job.charges_ever > 0);
            let pause = self.tasks.get(&TaskId::own(row.job)).filter(|_| !is_charged);
            if let Some(pause) = pause.filter(|pause| !is_open(**pause, self.steps_ns[1], ledger)) {
                return broken("backoff", format!("{row:?} waits longer than {pause:?}"));
            }
        }
        Ok(())
    }
}

/// Whether a pause is not over at that time.
fn is_open(pause: Pause, now_ns: u64, ledger: &JobOracle) -> bool {
    ledger.pauses.ran_ns(pause.since_ns, now_ns) < pause.for_ns
}
