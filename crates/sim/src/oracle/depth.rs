//! `depth`: a worker holds no more tasks ahead than the time that tasks of the kind take allows, up to a whole ring.
//!
//! About a millisecond of work; two tasks of less than 5 ms; one longer task; and one before the first report of the kind. A
//! task of the kind that was just reported took at least as long as an estimate may be short, so it bounds what is held after
//! the next offer. After a report that the core need not count nothing is judged until the next one. That rings are filled at
//! all is judged at the end of a run (`deep.rs`). It follows events and actions, and never asks the core.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_core::action::Action;
use bulkhead_core::event::Event;
use bulkhead_proto::ids::{KindId, Seq, WorkerId};
use bulkhead_proto::limits::RING;

use crate::clock::{MS, US};
use crate::oracle::ledger::JobOracle;
use crate::oracle::pool::PoolOracle;
use crate::report::{Verdict, broken};

/// What is known of the time of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LastTook {
    Unknown,
    Nanos(u64),
}

impl LastTook {
    /// Tasks that one worker may hold.
    fn most(self) -> usize {
        let Self::Nanos(took_ns) = self else { return RING };
        let in_time = usize::try_from(MS / took_ns.max(US)).unwrap_or(RING);
        in_time.max(if took_ns < 5 * MS { 2 } else { 1 }).min(RING)
    }
}

/// Follows reports and offers.
#[derive(Debug, Default)]
pub struct DepthOracle {
    last: BTreeMap<KindId, LastTook>,
    /// Offers that their workers were told to end.
    unwanted: BTreeSet<(WorkerId, Seq)>,
    /// The most tasks that a worker held.
    pub deepest: usize,
}

impl DepthOracle {
    /// Follows an event, before the ledger and the pool do.
    pub fn told(&mut self, event: &Event, ledger: &JobOracle, pool: &PoolOracle) {
        let Event::Finished { worker, seq, report } = event else { return };
        let Some(kind) = pool.kind_of(*worker, *seq) else { return };
        let task = ledger.offers.get(&(*worker, *seq)).copied();
        let of = task.and_then(|task| ledger.jobs.get(&task.job));
        let job = task.and_then(|task| ledger.task(task));
        let is_counted = of.zip(job).is_some_and(|(of, job)| {
            let is_current = job.offer == Some((*worker, *seq)) && job.offer_life == of.life;
            is_current && of.end.is_none() && !of.forgotten && !of.cancel
        });
        let is_counted = is_counted && !self.unwanted.remove(&(*worker, *seq));
        let took = if is_counted { LastTook::Nanos(report.elapsed_ns) } else { LastTook::Unknown };
        self.last.insert(kind, took);
    }

    /// Tasks of this kind take no time.
    pub fn takes_no_time(&mut self, kind: KindId) {
        self.last.insert(kind, LastTook::Nanos(0));
    }

    /// Follows an action, after the pool did.
    ///
    /// # Errors
    /// A worker holds too many tasks.
    pub fn decided(&mut self, action: &Action, pool: &PoolOracle) -> Verdict {
        match action {
            Action::Unwant { worker, seq } => drop(self.unwanted.insert((*worker, *seq))),
            Action::Offer { worker, seq, task } => {
                let held = pool.held(*worker);
                self.deepest = self.deepest.max(held);
                let last = self.last.get(&task.kind);
                if held > last.map_or(1, |last| last.most()) {
                    let what = format!(
                        "offer {seq} of kind {}: worker {worker} holds {held}, after {last:?}",
                        task.kind
                    );
                    return broken("depth", what);
                }
            }
            _ => {}
        }
        Ok(())
    }
}
