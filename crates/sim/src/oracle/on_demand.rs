//! `on demand`: a task gets an output while it runs only if it asked, once, and may; every question of a worker that lives has
//! one answer in the turn that hears it.
//!
//! It follows offers, questions and answers, and never asks the core. `memory` counts the room, `outputs` the descriptors.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_core::action::Action;
use bulkhead_core::event::Event;
use bulkhead_proto::death::KillReason;
use bulkhead_proto::ids::{Seq, WorkerId};
use bulkhead_proto::job::OutputMode;

use crate::report::{Verdict, broken};

/// How far an offer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DemandState {
    /// It may ask, and has not.
    Open,
    /// It waits for its answer.
    Asked,
    /// It was given one.
    Given,
    /// It was refused.
    Refused,
}

/// All offers that are not settled and may ask, and what is due in this turn.
#[derive(Debug, Default)]
pub struct OnDemandOracle {
    questions: BTreeMap<(WorkerId, Seq), DemandState>,
    /// Workers that were or are killed: nobody answers them.
    killed: BTreeSet<WorkerId>,
    /// Workers that broke a rule in this turn.
    lies: BTreeSet<WorkerId>,
}

impl OnDemandOracle {
    /// Follows an event.
    pub fn told(&mut self, event: &Event) {
        match event {
            Event::OutputNeeded { worker, seq } => match self.questions.get_mut(&(*worker, *seq)) {
                Some(question) if *question == DemandState::Open => *question = DemandState::Asked,
                _ => _ = self.lies.insert(*worker),
            },
            Event::OutputShort { worker, seq, .. } => {
                if let Some(question) = self.questions.get_mut(&(*worker, *seq)) {
                    *question = DemandState::Asked;
                }
            }
            Event::TookBack { worker, seq, won: true }
            | Event::OfferFailed { worker, seq, taken: true, .. }
            | Event::Finished { worker, seq, .. } => _ = self.questions.remove(&(*worker, *seq)),
            Event::Died { worker, .. } => {
                self.questions.retain(|(of, _), _| of != worker);
                self.lies.remove(worker);
                self.killed.remove(worker);
            }
            _ => {}
        }
    }

    /// Follows an action.
    ///
    /// # Errors
    /// An output for a task that does not wait for one.
    pub fn decided(&mut self, action: &Action) -> Verdict {
        let (worker, seq, answer) = match action {
            Action::Offer { worker, seq, task } => {
                if matches!(task.output, OutputMode::Auto | OutputMode::Arena) {
                    self.questions.insert((*worker, *seq), DemandState::Open);
                }
                return Ok(());
            }
            Action::Kill { worker, why } => {
                self.killed.insert(*worker);
                if matches!(why, KillReason::Violation { .. }) {
                    self.lies.remove(worker);
                }
                return Ok(());
            }
            Action::GiveOutput { worker, seq, .. } => (worker, seq, DemandState::Given),
            Action::RefuseOutput { worker, seq, .. } => (worker, seq, DemandState::Refused),
            _ => return Ok(()),
        };
        match self.questions.get_mut(&(*worker, *seq)) {
            Some(question) if *question == DemandState::Asked => *question = answer,
            other => {
                let what = format!("worker {worker} is answered about {seq}, which is {other:?}");
                return broken("on demand", what);
            }
        }
        Ok(())
    }

    /// Everything that one turn decided was heard.
    ///
    /// # Errors
    /// A question without an answer, or a lie without a kill.
    pub fn turn_over(&mut self) -> Verdict {
        let waits = |(offer, question): (&(WorkerId, Seq), &DemandState)| {
            (*question == DemandState::Asked && !self.killed.contains(&offer.0)).then_some(*offer)
        };
        if let Some((worker, seq)) = self.questions.iter().find_map(waits) {
            return broken("on demand", format!("worker {worker} waits for an output for {seq}"));
        }
        if let Some(worker) = self.lies.iter().find(|worker| !self.killed.contains(worker)) {
            return broken("on demand", format!("worker {worker} asked for what it may not have, and lives"));
        }
        self.lies.clear();
        Ok(())
    }
}
