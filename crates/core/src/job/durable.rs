//! The facts of durable jobs: what becomes of one attempt, and of the job.
//!
//! | what happened | facts |
//! |---|---|
//! | an attempt ended by its own code's failure, and is tried again | `AttemptEnded`, failed, with the death of its program if there was one |
//! | a death was charged | `AttemptEnded`, charged, with the death |
//! | an attempt that had begun was given back | `AttemptEnded`, lost, with the death of its worker if that was the reason |
//! | an attempt that had not begun was given back | none: no offer has a fact of its own |
//! | the job ended | `Ended`; before it `AttemptEnded`, uncharged, if the program of the last attempt died |
//! | the death of a worker was proven after the end of the job whose attempt it ended | `AttemptEnded`, uncharged |
//!
//! A durable job has no parts, no files and no output outside its reply. Each method changes nothing of a volatile one.

use bulkhead_facts::durable_job::DurableJob;
use bulkhead_facts::fact::{AttemptEnd, DurableEnd, EndedAttempt, Fact};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::view::JobDeath;
use bulkhead_proto::client::why::Canceller;
use bulkhead_proto::ids::JobId;
use bulkhead_proto::job::Payload;

use crate::event::Leftover;
use crate::job::list::Key;
use crate::job::state::EntryState;
use crate::job::{EndedBy, Jobs, Released, TaskRun};
use crate::turn::Turn;

impl Jobs {
    /// An attempt of a job that goes on has ended.
    pub(super) fn attempt_fact(&self, turn: &mut Turn, key: Key, how: AttemptEnd, message: Option<&str>) {
        if self.table.batch(key).durable {
            let death = self.death_of_attempt(key, how == AttemptEnd::Charged);
            self.store_attempt(turn, key, how, message, death);
        }
    }

    /// The death that ended the last attempt, if one did.
    fn death_of_attempt(&self, key: Key, is_charged: bool) -> Option<JobDeath> {
        let job = &self.table[key];
        let death = job.deaths().last().filter(|death| death.attempt == job.attempts)?;
        (death.charged == is_charged).then(|| death.clone())
    }

    /// The death of a worker that is charged to nobody was proven after the end of the job.
    pub(super) fn late_death_fact(&self, turn: &mut Turn, key: Key) {
        if self.table.batch(key).durable && self.table[key].end().is_some() {
            let death = self.death_of_attempt(key, false);
            self.store_attempt(turn, key, AttemptEnd::Uncharged, None, death);
        }
    }

    fn store_attempt(
        &self,
        turn: &mut Turn,
        key: Key,
        how: AttemptEnd,
        message: Option<&str>,
        death: Option<JobDeath>,
    ) {
        let job = &self.table[key];
        let ended = EndedAttempt {
            job: job.id,
            fence: job.fence,
            number: job.attempts,
            how,
            at_us: turn.wall_us(),
            message: message.map(str::to_owned),
            death: death.map(Box::new),
        };
        turn.fact(Fact::AttemptEnded(Box::new(ended)));
    }

    /// A job is about to enter its end.
    pub(super) fn end_fact(
        &self,
        turn: &mut Turn,
        key: Key,
        (outcome, left): (&Outcome, &Leftover),
        by: Option<Canceller>,
    ) {
        let (job, batch) = (&self.table[key], self.table.batch(key));
        if !batch.durable {
            return;
        }
        let at_us = turn.wall_us();
        let running_us = match job.state {
            // Its last offer was given back before it began.
            _ if *outcome == Outcome::Expired => None,
            EntryState::Running { since_ns, .. } => Some((turn.now_ns() - since_ns) / 1000),
            EntryState::Queued
            | EntryState::Waiting { .. }
            | EntryState::Solo
            | EntryState::Parted
            | EntryState::Ended(_) => None,
        };
        if running_us.is_some()
            && let Some(death) = self.death_of_attempt(key, false)
        {
            self.store_attempt(turn, key, AttemptEnd::Uncharged, None, Some(death));
        }
        let started_us = running_us.map(|ran_us| at_us.saturating_sub(ran_us));
        let output = match left {
            Leftover::Inline(payload) => Some(payload.clone()),
            Leftover::Nothing | Leftover::Held { .. } => None,
        };
        turn.fact(Fact::Ended(Box::new(DurableEnd {
            job: job.id,
            fence: running_us.map(|_| job.fence),
            outcome: outcome.clone(),
            output,
            at_us,
            started_us,
            waited_us: started_us.unwrap_or(at_us).saturating_sub(batch.accepted_us),
            ran_us: running_us.unwrap_or(0),
            by,
            survivors: job.survivors().to_vec(),
        })));
    }

    /// Removes a durable job that has not ended from the table, because the daemon ends. The journal keeps it unfinished, and no client
    /// hears of an end.
    pub(crate) fn put_off(&mut self, turn: &mut Turn, run: TaskRun) -> Released {
        let outcome = Outcome::Lost { reason: "the service stopped".to_owned() };
        self.end(turn, run, outcome, Leftover::Nothing, EndedBy::PutOff);
        self.announced(run, 0);
        self.forget(turn, run)
    }

    /// A client asked to run a job again; it has its new batch.
    pub(super) fn retry_fact(&self, turn: &mut Turn, key: Key) {
        let (job, batch) = (&self.table[key], self.table.batch(key));
        if batch.durable {
            let left_ns = batch.expires_ns().map(|at_ns| at_ns.saturating_sub(turn.now_ns()));
            let expires_us = left_ns.map(|left_ns| turn.wall_us() + left_ns / 1000);
            turn.fact(Fact::Retried { job: job.id, at_us: turn.wall_us(), expires_us });
        }
    }

    /// The durable state of each durable job in the table, for the audit: its counts, without the attempt that runs, its input, and
    /// whether it has ended. `fence` and `lost_since` are not told: offers that never began have fences, too.
    pub(crate) fn durable_states(&self) -> impl Iterator<Item = (JobId, DurableJob, &Payload, bool)> + '_ {
        let durable = self.table.slab.iter().filter(|(key, _)| self.table.batch(*key as Key).durable);
        durable.map(|(_, job)| {
            let runs = u32::from(matches!(job.state, EntryState::Running { .. }));
            let counts = DurableJob {
                attempts: job.attempts - runs,
                crashes: job.crashes,
                retries: job.retries,
                lost: job.lost(),
                asked: job.asked(),
                alone: job.alone,
                ..DurableJob::default()
            };
            (job.id, counts, &job.input, job.end().is_some())
        })
    }
}
