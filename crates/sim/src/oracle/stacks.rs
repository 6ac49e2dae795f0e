//! `stacks`: a worker that can is asked for its stack before it is killed for a limit of time or a cancel, and killed in time.
//!
//! It is asked once, about a task that it has begun, and gets no offer after that. All other kills come without a question.
//! A worker that is stopped or hung up, that was continued in the turn of the kill, or whose first task has not begun is killed
//! at once too.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_core::action::Action;
use bulkhead_core::event::{Event, Now};
use bulkhead_proto::death::KillReason;
use bulkhead_proto::ids::WorkerId;
use bulkhead_proto::worker::boxes::ClaimState;

use crate::clock::MS;
use crate::oracle::pauses::PauseOracle;
use crate::oracle::pool::PoolOracle;
use crate::report::{Verdict, broken};
use crate::worker::FakeWorker;

/// Most time between the question and the kill, on the clock that runs while the daemon does.
const MOST_NS: u64 = 5 * MS;

/// Turns after the time is over in which the kill may be missing.
const LATE_TURNS_MAX: u32 = 2;

/// A worker that was asked.
#[derive(Debug)]
struct Asked {
    at_ns: u64,
    late_turns: u32,
}

/// Follows the questions.
#[derive(Debug, Default)]
pub struct StackOracle {
    able: BTreeSet<WorkerId>,
    asked: BTreeMap<WorkerId, Asked>,
    /// Workers that were continued in this turn.
    resumed: BTreeSet<WorkerId>,
}

impl StackOracle {
    /// Follows an event.
    pub fn told(&mut self, event: &Event) {
        match event {
            Event::WorkerReady { worker, writes_stack: true } => drop(self.able.insert(*worker)),
            Event::Resumed { worker } => drop(self.resumed.insert(*worker)),
            Event::Died { worker, .. } => drop(self.asked.remove(worker)),
            _ => {}
        }
    }

    /// Follows an action.
    ///
    /// # Errors
    /// A question or a kill that may not be.
    pub fn decided(
        &mut self,
        now: Now,
        action: &Action,
        pool: &PoolOracle,
        truth: Option<&FakeWorker>,
    ) -> Verdict {
        match action {
            Action::AskStack { worker, seq, why } => {
                let honest = truth.filter(|truth| !truth.hostile);
                let has_begun = honest.is_none_or(|truth| !truth.pages.is(*seq, ClaimState::Offered));
                let is_first =
                    self.asked.insert(*worker, Asked { at_ns: now.mono_ns, late_turns: 0 }).is_none();
                if self.able.contains(worker) && has_begun && is_first && is_explained(*why) {
                    return Ok(());
                }
                broken(
                    "stacks",
                    format!("worker {worker} is asked for the stack of offer {seq}, before {why}"),
                )
            }
            Action::Offer { worker, seq, .. } if self.asked.contains_key(worker) => {
                broken("stacks", format!("offer {seq} goes to worker {worker}, which is about to be killed"))
            }
            Action::Kill { worker, why } => self.kills(now, *worker, *why, pool, truth),
            _ => Ok(()),
        }
    }

    fn kills(
        &mut self,
        now: Now,
        worker: WorkerId,
        why: KillReason,
        pool: &PoolOracle,
        truth: Option<&FakeWorker>,
    ) -> Verdict {
        if !is_explained(why) {
            return Ok(());
        }
        if let Some(asked) = self.asked.get(&worker) {
            let waited_ns = now.mono_ns.saturating_sub(asked.at_ns);
            return match waited_ns < MOST_NS {
                true => broken("stacks", format!("worker {worker} had {waited_ns} ns for its stack")),
                false => Ok(()),
            };
        }
        let is_deaf = pool.is_deaf(worker) || self.resumed.contains(&worker);
        let has_begun = truth.is_some_and(|truth| !truth.hostile && truth.run.is_some());
        if self.able.contains(&worker) && has_begun && !is_deaf {
            return broken(
                "stacks",
                format!("worker {worker} is killed for {why} and was not asked for its stack"),
            );
        }
        Ok(())
    }

    /// The end of a turn, after all its actions were judged.
    ///
    /// # Errors
    /// A worker was asked, and is not killed when its time is over.
    pub fn turn_over(&mut self, now: Now, pool: &PoolOracle, pauses: &PauseOracle) -> Verdict {
        self.resumed.clear();
        for (worker, asked) in &mut self.asked {
            let is_due = pauses.ran_ns(asked.at_ns, now.mono_ns) >= MOST_NS && !pool.is_killed(*worker);
            asked.late_turns += u32::from(is_due);
            if asked.late_turns > LATE_TURNS_MAX {
                return broken(
                    "stacks",
                    format!("worker {worker} was asked for its stack, and is left alone"),
                );
            }
        }
        Ok(())
    }
}

/// Whether a worker is asked before a kill for this reason.
fn is_explained(why: KillReason) -> bool {
    matches!(why, KillReason::Timeout | KillReason::NoProgress | KillReason::CpuTime | KillReason::Cancel)
}
