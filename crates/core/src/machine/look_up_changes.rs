//! Changes of jobs that were looked up: `forget`, `retry`, and why neither that nor a `cancel` is possible.
//!
//! The rules and words are those of `requests.rs` for jobs in the table. A request is answered once all facts are stored that it has
//! made. Called by `look_up.rs`.

use std::rc::Rc;

use bulkhead_facts::fact::{DurableEnd, Fact};
use bulkhead_facts::job_to_run::JobToRun;
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::ids::{ClientId, JobId};

use crate::client::LookUpVerb;
use crate::event::{JournalJob, Peer, ReloadedJobs};
use crate::machine::Core;
use crate::machine::look_up::Known;
use crate::turn::Owner;
use crate::view::journal_job;

impl Core {
    /// Changes a job that was looked up.
    pub(super) fn change_known(
        &mut self,
        peer: Peer,
        (job, verb): (JobId, LookUpVerb),
        known: &mut Known,
    ) -> Result<(), Refusal> {
        if let Some(run) = self.jobs.find_visible(peer, job) {
            return self.change_one(verb, run, peer);
        }
        match known {
            Known::Ended(found, end) => match verb {
                LookUpVerb::Forget => {
                    if let Some(refusal) = self.why_unchanged(found.job) {
                        return Err(refusal);
                    }
                    self.turn.fact(Fact::Forgotten { job: found.job });
                    self.look_ups.changed(found.job);
                    *known = Known::Unknown(None);
                    Ok(())
                }
                LookUpVerb::Retry => self.retry_from_journal(found, end),
                LookUpVerb::Result
                | LookUpVerb::Job
                | LookUpVerb::Why
                | LookUpVerb::Log { .. }
                | LookUpVerb::Wait
                | LookUpVerb::Cancel => Err(Self::has_ended(job)),
            },
            // The request has named it before, and removed it.
            Known::InTable(_) => Err(self.unknown(peer, job, None)),
            Known::Unknown(earlier) => Err(self.unknown(peer, job, *earlier)),
            Known::Refused(refusal) => Err(refusal.clone()),
        }
    }

    /// Adds what became of one job to the answer of a request that changes jobs, which then waits for the facts so far.
    pub(super) fn note_change(&mut self, id: ClientId, job: JobId, changed: Result<(), Refusal>) {
        // What was not changed has made no fact.
        let after = self.turn.facts().awaited().filter(|_| changed.is_ok()).unwrap_or_default();
        self.clients.note_change(id, job, changed, after);
    }

    /// Puts an ended job back into the table, with fresh budgets: the same rules as in `requests.rs`.
    fn retry_from_journal(&mut self, found: &JournalJob, end: &DurableEnd) -> Result<(), Refusal> {
        let job = found.job;
        let wrong_state = |needed: &str| Err(Refusal::WrongState { job, needed: needed.to_owned() });
        if end.outcome == Outcome::Done {
            return wrong_state(Self::IS_DONE);
        }
        if !self.drain.is_open() {
            return Err(Refusal::Draining);
        }
        if let Some(refusal) = self.why_unchanged(job) {
            return Err(refusal);
        }
        // No job runs twice at once: while a worker holds an offer of it, that attempt may still run.
        if self.workers.holds_job(job) {
            return wrong_state(Self::IS_BEING_ENDED);
        }
        let Some(input) = &found.input else {
            return wrong_state("its input is not in the journal: submit it anew");
        };
        let kind = &found.submit.kind;
        if !self.turn.config().kinds.iter().any(|known| known.name == *kind && !known.plans) {
            return wrong_state(&format!("this daemon does not run its kind {kind}"));
        }
        let uid = found.submit.uid;
        self.post_charges();
        let account = self.ledger.open(uid);
        if let (_, Some(refusal)) = self.room_in_queue(account, std::slice::from_ref(input)) {
            return Err(refusal);
        }
        if job >= self.first_of_this_run() {
            // Each job that was accepted in this run is counted once, by its last outcome.
            self.turn.uncount_end(&end.outcome, 1);
        }
        let wall_us = self.turn.wall_us();
        let expires_ms = found.submit.policy.expires_ms.filter(|_| found.counts.attempts == 0);
        let expires_us = expires_ms.map(|limit_ms| wall_us.saturating_add(limit_ms.saturating_mul(1000)));
        self.turn.fact(Fact::Retried { job, at_us: wall_us, expires_us });
        self.turn.record(What::RetryAsked { job }, Owner::User(uid));
        self.look_ups.changed(job);
        let mut again = found.clone();
        again.counts.retry();
        again.expires_us = expires_us;
        self.jobs.brings_back(job);
        self.reloaded(reloaded(again).into_iter().collect(), false);
        Ok(())
    }
}

/// A job as it comes into the table. `None`: its input is not in the journal.
pub(super) fn reloaded(found: JournalJob) -> Option<ReloadedJobs> {
    let deaths = journal_job::deaths(&found);
    let JournalJob { job, submit, counts, expires_us, input, .. } = found;
    let jobs = vec![JobToRun { job, counts, expires_us, input: input?, deaths }];
    Some(ReloadedJobs { submit: Rc::new(submit), jobs })
}
