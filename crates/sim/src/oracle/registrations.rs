//! `registrations`: the core has a worker forget a registration only while the worker holds no offer that names it, and has it
//! forget all in the end. It sends `Reply::Freed` for a job once, when no worker holds an offer of it, and not if it sends the client
//! that submitted the job its end as done or failed.
//!
//! It follows offers, their ends and the replies to clients, and never asks the core. `files` counts descriptors and bytes.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_core::action::{Action, TaskFile};
use bulkhead_core::event::Event;
use bulkhead_proto::client::message::{Reply, Submit};
use bulkhead_proto::client::outcome::{JobEnded, Outcome};
use bulkhead_proto::ids::{ClientId, JobId, RegistrationId, Seq, Tag, WorkerId};

use crate::report::{Verdict, broken};

/// A job whose input is in an arena.
#[derive(Debug)]
struct ArenaJob {
    client: ClientId,
    /// The request that submitted it.
    tag: Tag,
    /// Whether its end has said to its client that its block is free.
    is_told_by_end: bool,
    is_freed: bool,
}

/// Offers that name registrations, what workers have, and jobs with inputs in arenas.
#[derive(Debug, Default)]
pub struct RegistrationOracle {
    offers: BTreeMap<(WorkerId, Seq), (JobId, BTreeSet<RegistrationId>)>,
    has: BTreeMap<WorkerId, BTreeSet<RegistrationId>>,
    jobs: BTreeMap<JobId, ArenaJob>,
    gone: BTreeSet<ClientId>,
}

impl RegistrationOracle {
    /// Follows an event.
    pub fn told(&mut self, event: &Event) {
        match event {
            Event::TookBack { worker, seq, won: true }
            | Event::OfferFailed { worker, seq, taken: true, .. }
            | Event::Finished { worker, seq, .. } => drop(self.offers.remove(&(*worker, *seq))),
            Event::Died { worker, .. } => {
                self.offers.retain(|(of, _), _| of != worker);
                self.has.remove(worker);
            }
            Event::ClientGone { client } => _ = self.gone.insert(*client),
            _ => {}
        }
    }

    /// These jobs of a client and its request were accepted.
    pub fn accepted(&mut self, (client, tag): (ClientId, Tag), submit: &Submit, first: JobId, count: u32) {
        if submit.registered.as_ref().is_some_and(|used| used.arena.is_some()) {
            for job in (first.0..first.0 + u64::from(count)).map(JobId) {
                self.jobs.insert(job, ArenaJob { client, tag, is_told_by_end: false, is_freed: false });
            }
        }
    }

    /// Follows an action.
    ///
    /// # Errors
    /// Something is forgotten or free too early, or twice.
    pub fn decided(&mut self, action: &Action) -> Verdict {
        match action {
            Action::Offer { worker, seq, task } => {
                let named = task.files.iter().filter_map(|file| match file {
                    TaskFile::Registered { registration, .. } => Some(*registration),
                    _ => None,
                });
                let named: BTreeSet<_> = named.collect();
                if !named.is_empty() {
                    self.has.entry(*worker).or_default().extend(&named);
                    self.offers.insert((*worker, *seq), (task.job, named));
                }
                Ok(())
            }
            Action::Forget { worker, registration } => self.forgotten(*worker, *registration),
            Action::Close { client, .. } => {
                self.gone.insert(*client);
                Ok(())
            }
            Action::Reply { reply: Reply::Freed { jobs }, .. } => {
                jobs.iter().try_for_each(|job| self.freed(*job))
            }
            Action::Reply { client, tag, reply, .. } => {
                let ends = reply.ends().unwrap_or_default();
                ends.iter().try_for_each(|ended| self.ended((*client, *tag), ended))
            }
            _ => Ok(()),
        }
    }

    fn forgotten(&mut self, worker: WorkerId, registration: RegistrationId) -> Verdict {
        let holds = |((of, _), (_, named)): (&(WorkerId, Seq), &(JobId, BTreeSet<RegistrationId>))| {
            *of == worker && named.contains(&registration)
        };
        if let Some(((_, seq), _)) = self.offers.iter().find(|offer| holds(*offer)) {
            let what =
                format!("worker {worker} forgets registration {registration}, which offer {seq} names");
            return broken("registrations", what);
        }
        match self.has.get_mut(&worker).is_some_and(|has| has.remove(&registration)) {
            true => Ok(()),
            false => broken(
                "registrations",
                format!("worker {worker} forgets {registration}, and does not have it"),
            ),
        }
    }

    fn freed(&mut self, job: JobId) -> Verdict {
        if let Some(((worker, seq), _)) = self.offers.iter().find(|(_, (of, _))| *of == job) {
            let what = format!(
                "the block of job {job} is said to be free, and worker {worker} has it with offer {seq}"
            );
            return broken("registrations", what);
        }
        let known = self.jobs.get_mut(&job).filter(|known| !known.is_told_by_end);
        let before = known.map(|known| std::mem::replace(&mut known.is_freed, true));
        if before != Some(false) {
            return broken(
                "registrations",
                format!("the block of job {job} is said to be free, freed: {before:?}"),
            );
        }
        Ok(())
    }

    /// A request is answered with this end.
    fn ended(&mut self, asked: (ClientId, Tag), ended: &JobEnded) -> Verdict {
        let is_reported = matches!(ended.outcome, Outcome::Done | Outcome::Failed { .. });
        let known = self.jobs.get_mut(&ended.job).filter(|known| (known.client, known.tag) == asked);
        let Some(known) = known.filter(|_| is_reported) else { return Ok(()) };
        known.is_told_by_end = true;
        if known.is_freed {
            return broken("registrations", format!("the block of job {} was freed twice", ended.job));
        }
        Ok(())
    }

    /// Every job has ended, and every client has dropped what it registered; `left` are workers that have something.
    ///
    /// # Errors
    /// A worker has something, or a client was not told of a block.
    pub fn finish(&self, left: &[WorkerId]) -> Verdict {
        if !left.is_empty() {
            return broken("registrations", format!("workers {left:?} keep what every client has dropped"));
        }
        let owed = |(_, known): &(&JobId, &ArenaJob)| {
            !known.is_told_by_end && !known.is_freed && !self.gone.contains(&known.client)
        };
        match self.jobs.iter().find(owed) {
            Some((job, known)) => broken(
                "registrations",
                format!("client {} was not told that job {job} is free", known.client),
            ),
            None => Ok(()),
        }
    }
}
