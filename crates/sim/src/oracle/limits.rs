//! `limits`: a worker is killed for a limit only if its task met it, by the usage of the fake worker when it was last shown
//! to the core.
//!
//! It judges kills as they are decided. Limits come from the submit, usage from the fake worker. A task that the core asks to end has
//! met its limit of time by then: what it does in its grace changes nothing. `overdue.rs` judges the other way round.

use std::collections::BTreeMap;

use bulkhead_core::action::Action;
use bulkhead_core::event::Now;
use bulkhead_proto::death::KillReason;
use bulkhead_proto::ids::{Seq, WorkerId};

use crate::oracle::job::KnownJob;
use crate::oracle::ledger::JobOracle;
use crate::report::{Verdict, broken};
use crate::vitals::ResourceUse;
use crate::worker::FakeWorker;

/// What was known of a task when it was told to end.
#[derive(Clone, Copy, Debug)]
struct ToldToEnd {
    seq: Seq,
    at_ns: u64,
    shown: ResourceUse,
}

/// Follows kills, and the tasks that were told to end.
#[derive(Debug, Default)]
pub struct LimitOracle {
    told: BTreeMap<WorkerId, ToldToEnd>,
}

impl LimitOracle {
    /// Follows an action that concerns this worker.
    ///
    /// # Errors
    /// The worker is killed for a limit that its task has not met.
    pub fn decided(&mut self, now: Now, action: &Action, worker: &FakeWorker, ledger: &JobOracle) -> Verdict {
        match action {
            Action::Unwant { seq, .. } => {
                let told = ToldToEnd { seq: *seq, at_ns: now.mono_ns, shown: worker.vitals.shown };
                self.told.insert(worker.id, told);
                Ok(())
            }
            Action::Kill { why, .. } => self.killed(now, why, worker, ledger),
            _ => Ok(()),
        }
    }

    fn killed(&self, now: Now, why: &KillReason, worker: &FakeWorker, ledger: &JobOracle) -> Verdict {
        let is_of_limit =
            matches!(why, KillReason::NoProgress | KillReason::CpuTime | KillReason::Memory { .. });
        if !is_of_limit {
            return Ok(());
        }
        let (vitals, held) = (&worker.vitals, ledger.held_by(worker.id));
        if held.is_empty() {
            // The task ran when the core looked, and was done before the event came: too late for its outcome.
            return Ok(());
        }
        let [(seq, job)] = held.as_slice() else {
            return broken("limits", format!("worker {} meets {why}, and holds {held:?}", worker.id));
        };
        let (policy, offered_ns) = (&job.policy, job.offered_ns);
        let told = self.told.get(&worker.id).filter(|told| told.seq == *seq);
        let (at_ns, shown) = told.map_or((now.mono_ns, vitals.shown), |told| (told.at_ns, told.shown));
        let sound = match why {
            KillReason::CpuTime => {
                policy.cpu_ms.is_some_and(|limit_ms| shown.cpu_us - vitals.offered.cpu_us >= limit_ms * 1000)
            }
            KillReason::Memory { limit_bytes } => {
                let grown = vitals.shown.resident_bytes - vitals.offered.resident_bytes;
                policy.memory_bytes == Some(*limit_bytes) && grown >= *limit_bytes
            }
            _ => policy.no_progress_ms.is_some_and(|limit_ms| {
                let since_ns = shown.progress_ns.max(offered_ns);
                at_ns >= since_ns + limit_ms * 1_000_000
            }),
        };
        if sound {
            return Ok(());
        }
        let what =
            format!("worker {} is killed for {why}, by {policy:?} and {vitals:?}, {told:?}", worker.id);
        broken("limits", what)
    }
}

impl JobOracle {
    /// Jobs whose offers a worker holds.
    fn held_by(&self, worker: WorkerId) -> Vec<(Seq, &KnownJob)> {
        let held = self.offers.range((worker, Seq(0))..=(worker, Seq(u64::MAX)));
        held.filter_map(|((_, seq), task)| Some((*seq, self.task(*task)?))).collect()
    }
}
