//! `unwanted`: a task with a grace is told to end before its worker is killed for a cancel, and gets its time.
//!
//! It judges actions by the truth of the boxes: only a task that has begun is told to end, and its worker gets no offer
//! before that task has ended. A worker that is stopped or hung up may be killed at once, and so may one that is continued
//! in the turn of the kill.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_core::action::Action;
use bulkhead_core::event::{Event, Now};
use bulkhead_proto::death::KillReason;
use bulkhead_proto::ids::{Seq, WorkerId};
use bulkhead_proto::worker::boxes::ClaimState;

use crate::clock::MS;
use crate::oracle::pool::PoolOracle;
use crate::report::{Verdict, broken};
use crate::worker::FakeWorker;

/// Follows the tasks that were told to end.
#[derive(Debug, Default)]
pub struct UnwantedOracle {
    /// The grace of each offer that a worker got, by its own rules or by those of its kind.
    graces_ms: BTreeMap<(WorkerId, Seq), u32>,
    /// The offer that each worker was last told to end, and when.
    asked: BTreeMap<WorkerId, (Seq, u64)>,
    /// Workers that were stopped when this turn began, and were continued in it.
    resumed: BTreeSet<WorkerId>,
}

impl UnwantedOracle {
    /// Follows an event.
    pub fn told(&mut self, event: &Event) {
        if let Event::Resumed { worker } = event {
            self.resumed.insert(*worker);
        }
    }

    /// The end of a turn, after all its actions were judged.
    pub fn turn_over(&mut self) {
        self.resumed.clear();
    }

    /// Follows an action.
    ///
    /// # Errors
    /// It comes too early, or twice.
    pub fn decided(
        &mut self,
        now: Now,
        action: &Action,
        pool: &PoolOracle,
        truth: Option<&FakeWorker>,
    ) -> Verdict {
        match action {
            Action::Unwant { worker, seq } => self.asks(now, *worker, *seq, truth),
            Action::Kill { worker, why: KillReason::Cancel } => self.kills(now, *worker, pool, truth),
            Action::Offer { worker, seq, task } => {
                self.graces_ms.insert((*worker, *seq), task.grace_ms);
                match self.asked.get(worker) {
                    Some((asked, _)) if pool.kind_of(*worker, *asked).is_some() => broken(
                        "unwanted",
                        format!("offer {seq} goes to worker {worker}, which is to end {asked}"),
                    ),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn asks(&mut self, now: Now, worker: WorkerId, seq: Seq, truth: Option<&FakeWorker>) -> Verdict {
        let honest = truth.filter(|truth| !truth.hostile);
        if honest.is_some_and(|truth| truth.pages.is(seq, ClaimState::Offered)) {
            return broken(
                "unwanted",
                format!("worker {worker} is to end offer {seq}, which it has not begun"),
            );
        }
        match self.asked.insert(worker, (seq, now.mono_ns)) {
            Some((before, _)) if before == seq => {
                broken("unwanted", format!("worker {worker} is asked twice to end offer {seq}"))
            }
            _ => Ok(()),
        }
    }

    fn kills(&self, now: Now, worker: WorkerId, pool: &PoolOracle, truth: Option<&FakeWorker>) -> Verdict {
        let is_deaf = pool.is_deaf(worker) || self.resumed.contains(&worker);
        let Some(truth) = truth.filter(|truth| !truth.hostile && !is_deaf) else { return Ok(()) };
        let running = truth.run.as_ref().map(|run| run.seq);
        let Some(seq) = running.filter(|seq| pool.kind_of(worker, *seq).is_some()) else { return Ok(()) };
        let grace_ns = self.graces_ms.get(&(worker, seq)).map_or(0, |ms| u64::from(*ms) * MS);
        let had_time = |asked: &&(Seq, u64)| asked.0 == seq && now.mono_ns >= asked.1 + grace_ns;
        if grace_ns == 0 || self.asked.get(&worker).filter(had_time).is_some() {
            return Ok(());
        }
        broken("unwanted", format!("worker {worker} is killed for a cancel before offer {seq} had its time"))
    }
}
