//! `depth`: a worker holds no more tasks ahead than the time that tasks of their flavours take allows, up to a whole ring.
//!
//! About a millisecond of work; two tasks of less than 5 ms; one longer task; and one before the first report of the flavour. A
//! task of the flavour that was just reported took at least as long as an estimate may be short, so it bounds what is held after
//! the next offer, of its flavour and of all together. A flavour is a number of one user's for one kind; number 0 is the kind, of
//! all users. After a report that the core need not count nothing is judged until the next one. That rings are filled at
//! all is judged at the end of a run (`deep.rs`). It follows events and actions, and never asks the core.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_core::action::Action;
use bulkhead_core::event::Event;
use bulkhead_proto::ids::{JobId, KindId, Seq, WorkerId};
use bulkhead_proto::limits::RING;

use crate::clock::{MS, US};
use crate::oracle::ledger::JobOracle;
use crate::oracle::pool::PoolOracle;
use crate::report::{Verdict, broken};

/// The kind, the user and the number; without a number, no user.
type FlavourName = (KindId, u32, u32);

/// What is known of the time of a flavour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LastTook {
    Unknown,
    Nanos(u64),
}

impl LastTook {
    /// A task of it takes at least so long, as far as the core can know.
    fn least_ns(self) -> u64 {
        if let Self::Nanos(took_ns) = self { took_ns } else { 0 }
    }

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
    last: BTreeMap<FlavourName, LastTook>,
    /// What each offer of a worker adds to the work ahead at least, in nanoseconds.
    costs: BTreeMap<WorkerId, BTreeMap<Seq, u64>>,
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
        let Some(task) = task else { return };
        self.last.insert(flavour_of(kind, task.job, ledger), took);
    }

    /// Tasks of this kind take no time, if they have no flavour.
    pub fn takes_no_time(&mut self, kind: KindId) {
        self.last.insert((kind, 0, 0), LastTook::Nanos(0));
    }

    /// Follows an action, after the pool did.
    ///
    /// # Errors
    /// A worker holds too many tasks, or too long ones.
    pub fn decided(&mut self, action: &Action, ledger: &JobOracle, pool: &PoolOracle) -> Verdict {
        match action {
            Action::Unwant { worker, seq } => drop(self.unwanted.insert((*worker, *seq))),
            Action::Offer { worker, seq, task } => {
                let held = pool.held(*worker);
                self.deepest = self.deepest.max(held);
                let flavour = flavour_of(task.kind, task.job, ledger);
                let last = self.last.get(&flavour).copied();
                if held > last.map_or(1, |last| last.most()) {
                    let what = format!(
                        "offer {seq} of flavour {flavour:?}: worker {worker} holds {held}, after {last:?}"
                    );
                    return broken("depth", what);
                }
                self.check_ahead(*worker, *seq, last.map_or(0, LastTook::least_ns), pool)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether a worker holds about a millisecond of work, a pair, or one task, now that it was offered one more.
    fn check_ahead(&mut self, worker: WorkerId, seq: Seq, least_ns: u64, pool: &PoolOracle) -> Verdict {
        let costs = self.costs.entry(worker).or_default();
        costs.retain(|seq, _| pool.kind_of(worker, *seq).is_some());
        costs.insert(seq, least_ns);
        let is_pair = costs.len() <= 2 && costs.values().all(|cost_ns| *cost_ns < 5 * MS);
        let ahead_ns: u64 = costs.values().sum();
        if costs.len() > 1 && !is_pair && ahead_ns > MS {
            let what = format!("worker {worker} holds {ahead_ns} ns of work with offer {seq}: {costs:?}");
            return broken("depth", what);
        }
        Ok(())
    }
}

/// The flavour of a job of this kind.
fn flavour_of(kind: KindId, job: JobId, ledger: &JobOracle) -> FlavourName {
    let flavour = ledger.jobs.get(&job).filter(|job| job.flavour != 0);
    flavour.map_or((kind, 0, 0), |job| (kind, job.uid, job.flavour))
}
