//! `unclosed`: a worker with too many files of clients to close is offered nothing until they are fewer. It gives its slot to a spare at
//! once, unless as many workers of its pool are on their way out as the pool has slots; and no other worker does so for that reason.
//!
//! It follows events, records and actions, and never asks the core. That nobody is charged for it is a matter of `blame`.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_core::action::{Action, Output};
use bulkhead_core::event::Event;
use bulkhead_proto::client::record::{Enough, What};
use bulkhead_proto::ids::WorkerId;
use bulkhead_proto::limits::UNCLOSED_MAX;

use crate::oracle::pool::PoolOracle;
use crate::report::{Verdict, broken};

/// Follows the files that workers have to close.
#[derive(Debug, Default)]
pub struct UnclosedOracle {
    /// As the core was told last; workers that have none are not here.
    files: BTreeMap<WorkerId, u64>,
    /// Workers of which an offer failed, or that were told to end a task or asked for their stack: they may be deaf for a while.
    deaf: BTreeSet<WorkerId>,
    is_leaving: bool,
    /// Workers that gave their slots away for this.
    pub replaced: u64,
}

impl UnclosedOracle {
    /// Follows an event.
    pub fn told(&mut self, event: &Event) {
        match event {
            Event::Unclosed { worker, files: 0 } => drop(self.files.remove(worker)),
            Event::Unclosed { worker, files } => drop(self.files.insert(*worker, *files)),
            Event::OfferFailed { worker, .. } => drop(self.deaf.insert(*worker)),
            Event::Died { worker, .. } => {
                self.files.remove(worker);
                self.deaf.remove(worker);
            }
            Event::Drain { .. } | Event::Stop => self.is_leaving = true,
            _ => {}
        }
    }

    /// The core has decided this turn; `pool` has followed it.
    ///
    /// # Errors
    /// A worker with too many files is offered a task, keeps its slot, or gives it away when it should not.
    pub fn decided(&mut self, out: &Output, pool: &PoolOracle) -> Verdict {
        for record in &out.records {
            if let What::Recycled { worker, why: Enough::Unclosed { files } } = &record.what {
                self.replaced += 1;
                if *files <= UNCLOSED_MAX || self.files.get(worker) != Some(files) {
                    let known = self.files.get(worker);
                    let what = format!("worker {worker} is replaced for {files} files, and has {known:?}");
                    return broken("unclosed", what);
                }
            }
        }
        for action in &out.actions {
            match action {
                Action::Offer { worker, seq, .. } if self.has_many(*worker) => {
                    let files = self.files.get(worker);
                    let what =
                        format!("offer {seq} goes to worker {worker}, which has {files:?} files to close");
                    return broken("unclosed", what);
                }
                Action::Unwant { worker, .. } | Action::AskStack { worker, .. } => {
                    self.deaf.insert(*worker);
                }
                _ => {}
            }
        }
        self.check_slots(pool)
    }

    fn has_many(&self, worker: WorkerId) -> bool {
        self.files.get(&worker).is_some_and(|files| *files > UNCLOSED_MAX)
    }

    /// No idle worker of a pool's own slots with too many files stands beside a spare, while the pool may replace it; and of those on
    /// their way out, no more than the slots of their pool went for this.
    fn check_slots(&self, pool: &PoolOracle) -> Verdict {
        for worker in
            self.files.keys().filter(|worker| self.has_many(**worker) && !self.deaf.contains(worker))
        {
            let Some(home) = pool.pool_of(*worker).filter(|_| !self.is_leaving) else { continue };
            let (first, size) = pool.places(home);
            let mut placed = pool.placed(home);
            let stands = placed.any(|(id, slot, can_work)| {
                id == *worker && can_work && (first..first + size).contains(&slot.0)
            });
            let may_go = pool.leaving(home) < usize::from(size);
            if stands && pool.held(*worker) == 0 && pool.has_spare(home) && may_go {
                return broken(
                    "unclosed",
                    format!("worker {worker} has too many files to close, and keeps its slot beside a spare"),
                );
            }
        }
        Ok(())
    }
}
