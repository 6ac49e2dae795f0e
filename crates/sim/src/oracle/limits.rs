//! `limits`: a worker is killed for a limit only if its task met it, by the usage of the fake worker when it was last shown
//! to the core.
//!
//! It judges kills as they are decided. Limits come from the submit, usage from the fake worker.

use bulkhead_core::event::Now;
use bulkhead_proto::death::KillReason;
use bulkhead_proto::ids::WorkerId;

use crate::oracle::ledger::JobOracle;
use crate::report::{Verdict, broken};
use crate::worker::FakeWorker;

/// A worker is to be killed.
///
/// # Errors
/// The task has not met that limit.
pub fn killed(now: Now, why: &KillReason, worker: &FakeWorker, ledger: &JobOracle) -> Verdict {
    let is_of_limit = matches!(why, KillReason::NoProgress | KillReason::CpuTime | KillReason::Memory { .. });
    if !is_of_limit {
        return Ok(());
    }
    let (vitals, held) = (&worker.vitals, ledger.held_by(worker.id));
    if held.is_empty() {
        // The task ran when the core looked, and was done before the event came: too late for its outcome.
        return Ok(());
    }
    let [job] = held.as_slice() else {
        return broken("limits", format!("worker {} meets {why}, and holds {held:?}", worker.id));
    };
    let (policy, offered_ns) = (&job.policy, job.offered_ns);
    let sound = match why {
        KillReason::CpuTime => policy
            .cpu_ms
            .is_some_and(|limit_ms| vitals.shown.cpu_us - vitals.offered.cpu_us >= limit_ms * 1000),
        KillReason::Memory { limit_bytes } => {
            let grown = vitals.shown.resident_bytes - vitals.offered.resident_bytes;
            policy.memory_bytes == Some(*limit_bytes) && grown >= *limit_bytes
        }
        _ => policy.no_progress_ms.is_some_and(|limit_ms| {
            let since_ns = vitals.shown.progress_ns.max(offered_ns);
            now.mono_ns >= since_ns + limit_ms * 1_000_000
        }),
    };
    if sound {
        return Ok(());
    }
    broken("limits", format!("worker {} is killed for {why}, by {policy:?} and {vitals:?}", worker.id))
}

impl JobOracle {
    /// Jobs whose offers a worker holds.
    fn held_by(&self, worker: WorkerId) -> Vec<&crate::oracle::job::KnownJob> {
        use bulkhead_proto::ids::Seq;
        let held = self.offers.range((worker, Seq(0))..=(worker, Seq(u64::MAX)));
        held.filter_map(|(_, task)| self.task(*task)).collect()
    }
}
