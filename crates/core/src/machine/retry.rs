//! What happens to a job whose attempt came to nothing: failed, given back, or asked for anew.
//!
//! Two budgets: `retries_max` failures that the job's own code reported, with backoff, and `crashes_max` deaths
//! (see `blame.rs`). What was given back uncharged costs nothing and goes to the front.

use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::record::What;
use bulkhead_proto::ids::JobId;
use bulkhead_proto::limits::TEXT_MAX_BYTES;

use crate::action::Action;
use crate::job::entry::{Left, State};
use crate::job::list::Key;
use crate::machine::Core;
use crate::turn::{Alarm, AlarmSlot, doubled};

impl Core {
    /// A job's own code said no, with this exit code if it was a program, and had left this.
    pub(crate) fn job_failed(&mut self, key: Key, mut message: String, code: Option<u8>, left: Left) {
        truncate(&mut message);
        let retries_max = self.jobs.batch(key).policy.retry_budget();
        let retries = self.jobs[key].retries;
        if retries >= retries_max {
            return self.end_job(key, Outcome::Failed { message, code }, left);
        }
        if let Left::Held { output, .. } = left {
            self.turn.act(Action::DropOutput { output });
        }
        // Jitter, so that jobs which failed together for one reason do not come back together.
        let span =
            doubled(self.turn.config().backoff_min_ms, u32::from(retries), self.turn.config().backoff_max_ms);
        let retry_after_ms = self.turn.jitter(span);
        let now_ns = self.turn.now_ns();
        let mut alarm = AlarmSlot::default();
        let number = self.jobs[key].id;
        self.turn.set(&mut alarm, Alarm::Backoff(number), self.turn.after_ms(retry_after_ms));
        self.jobs.enter(key, State::Waiting { alarm });
        let job = &mut self.jobs[key];
        job.retries += 1;
        job.aside_mut().lost_ns = Some(now_ns);
        let attempt = job.attempts;
        let uid = self.jobs.batch(key).uid;
        let (_, job, part) = self.job_of(key);
        self.turn.record(What::Backoff { job, part, attempt, message, retry_after_ms }, Some(uid));
    }

    /// A backoff has passed.
    pub(crate) fn backoff_over(&mut self, job: JobId) {
        // Cancelled, or even forgotten, in the turn in which its time came.
        let Some(key) = self.jobs.find(job) else { return };
        if !matches!(self.jobs[key].state, State::Waiting { .. }) {
            return;
        }
        if self.jobs[key].alone {
            self.await_fresh_worker(key);
        } else {
            self.jobs.enter(key, State::Queued);
            self.queues.push_back(&mut self.jobs, key);
        }
    }

    /// A job that a death was charged to runs alone from now on.
    pub(crate) fn await_fresh_worker(&mut self, key: Key) {
        self.jobs.enter(key, State::Solo);
        let pool = self.jobs.batch(key).pool;
        self.pools[pool].solo.push_back(&mut self.jobs.slab, key);
    }

    /// An offer came back uncharged. If it had begun, that attempt is lost; else it never was one.
    pub(crate) fn give_back(&mut self, key: Key, begun: bool) {
        let now_ns = self.turn.now_ns();
        let expires_ns = self.jobs.batch(key).expiry.at_ns();
        let job = &mut self.jobs[key];
        if begun {
            let aside = job.aside_mut();
            aside.lost_ns = Some(now_ns);
            aside.lost += 1;
        } else {
            // Nothing of it ran: the offer was counted when it was made, and is not one any more.
            job.attempts -= 1;
            self.drop_log(key);
        }
        let job = &self.jobs[key];
        // Its alarm may have gone off while it was with a worker, and passed it over: it does not go off again.
        if job.never_began() && expires_ns.is_some_and(|expires_ns| expires_ns <= now_ns) {
            self.end_job(key, Outcome::Expired, Left::Nothing);
        } else if self.jobs[key].alone {
            self.jobs.enter(key, State::Solo);
            let pool = self.jobs.batch(key).pool;
            self.pools[pool].solo.push_front(&mut self.jobs.slab, key);
        } else {
            self.jobs.enter(key, State::Queued);
            // To the front: it had its turn, and lost it through no fault of its own.
            self.queues.push_front(&mut self.jobs, key);
        }
    }

    /// Gives a job that is to run again a batch of its own: not attached, and as old as this moment.
    pub(crate) fn detach_for_retry(&mut self, key: Key) {
        let first = self.jobs[key].id;
        // The old batch's client is owed one end of it and no second one; ageing counts from now on.
        let mut batch = self.jobs.batch(key).copy();
        batch.first = first;
        batch.count = 1;
        batch.refs = 0;
        batch.attached = false;
        batch.watched = false;
        batch.since_ns = self.turn.now_ns();
        let limit_ms = batch.policy.expires_ms.filter(|_| self.jobs[key].attempts == 0);
        if let Some(limit_ms) = limit_ms {
            self.turn.set(&mut batch.expiry, Alarm::Expiry(first, 1), self.turn.after_ms(limit_ms));
        }
        let place = self.jobs.open_batch(batch);
        let gone = self.jobs.rebatch(key, place);
        self.batch_gone(gone);
    }
}

/// Cuts a worker's text to what travels, between characters.
pub(crate) fn truncate(text: &mut String) {
    let mut end = text.len().min(TEXT_MAX_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}
