//! How far attached jobs are, for clients that asked to be told.
//!
//! While such a job runs it is looked at every [`EVERY_MS`], and its client is told when it has moved and has credit: a
//! job in parts counts the parts that are done, any other is as far as its worker says. Within an attempt it never goes
//! back. Nobody is looked at and no alarm is set for jobs that nobody asked about.

use std::collections::BTreeMap;

use bulkhead_proto::client::evidence::Progress;
use bulkhead_proto::client::message::Reply;
use bulkhead_proto::ids::{Fence, JobId, WorkerId};

use crate::action::Action;
use crate::job::entry::{State, Step};
use crate::job::list::Key;
use crate::machine::Core;
use crate::turn::{Alarm, AlarmSlot};

/// How often a job is looked at, and so told of at most, in milliseconds.
const EVERY_MS: u64 = 200;
/// What one reply takes on the wire, in bytes, about.
const TELL_BYTES: u64 = 32;

/// One job that somebody wants to be told of, and that runs.
#[derive(Debug)]
struct Asked {
    alarm: AlarmSlot,
    /// What was told last, and of which attempt.
    told: Option<(Fence, Progress)>,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Tellings {
    map: BTreeMap<JobId, Asked>,
}

impl Tellings {
    /// When this job is looked at next.
    pub(crate) fn alarm_ns(&self, job: JobId) -> Option<u64> {
        self.map.get(&job).and_then(|asked| asked.alarm.at_ns())
    }
}

impl Core {
    /// A job begins to run, or its parts do: it is looked at from now on, if its client asked for that.
    pub(crate) fn begin_telling(&mut self, key: Key) {
        let batch = self.jobs.batch(key);
        if !(batch.progress && batch.attached) {
            return;
        }
        let job = self.jobs[key].id;
        if !self.tellings.map.contains_key(&job) {
            let mut alarm = AlarmSlot::default();
            self.turn.set(&mut alarm, Alarm::Progress(job), self.turn.after_ms(EVERY_MS));
            self.tellings.map.insert(job, Asked { alarm, told: None });
        }
    }

    /// A job has ended.
    pub(crate) fn end_telling(&mut self, job: JobId) {
        if let Some(mut asked) = self.tellings.map.remove(&job) {
            self.turn.cancel(&mut asked.alarm, Alarm::Progress(job));
        }
    }

    /// It is time to look at a job.
    pub(crate) fn progress_due(&mut self, job: JobId) {
        if !self.look_at(job) {
            self.tellings.map.remove(&job);
            return;
        }
        if let Some(asked) = self.tellings.map.get_mut(&job) {
            self.turn.set(&mut asked.alarm, Alarm::Progress(job), self.turn.after_ms(EVERY_MS));
        }
    }

    /// Looks how far a job is. `false`: it does not run now, or nobody is there to be told.
    fn look_at(&mut self, job: JobId) -> bool {
        let Some(key) = self.jobs.find(job) else { return false };
        if !self.jobs.batch(key).attached {
            return false;
        }
        if let Some(parts) = self.parts_of(key) {
            let fence = self.jobs[key].fence;
            let progress = Progress { done: parts.done.into(), total: parts.total.into() };
            self.tell_progress(key, fence, progress);
            return true;
        }
        let State::Running { worker, .. } = self.jobs[key].state else { return false };
        // What its worker says is of the task that it has claimed: this one, if it has no other.
        if self.jobs[key].step == Step::Whole && self.has_one_offer(worker) {
            self.turn.act(Action::Examine { worker });
        }
        true
    }

    fn has_one_offer(&self, worker: WorkerId) -> bool {
        self.pools.workers.get(&worker).is_some_and(|worker| worker.claims.len() == 1)
    }

    /// A worker was examined, for whatever reason.
    pub(crate) fn note_progress(&mut self, id: WorkerId, progress: Option<Progress>) {
        if self.tellings.map.is_empty() || !self.has_one_offer(id) {
            return;
        }
        let head = self.pools.workers.get(&id).and_then(|worker| worker.claims.head().copied());
        let (Some(progress), Some(offer)) = (progress, head) else { return };
        if self.is_current(id, &offer) && self.jobs[offer.key].step == Step::Whole {
            self.tell_progress(offer.key, offer.fence, progress);
        }
    }

    /// Tells a client how far a job is, if that is further than it was told of this attempt.
    fn tell_progress(&mut self, key: Key, fence: Fence, progress: Progress) {
        let (job, batch) = (self.jobs[key].id, self.jobs.batch(key));
        let (client, tag) = (batch.client, batch.tag);
        let Some(asked) = self.tellings.map.get_mut(&job) else { return };
        let Progress { done, total } = progress;
        let done = if total == 0 { done } else { done.min(total) };
        let told = asked.told.filter(|(of, _)| *of == fence).map(|(_, told)| told);
        let is_news = told.is_none_or(|told| done >= told.done && Progress { done, total } != told);
        let has_credit = self.clients.see(client).is_some_and(|client| client.credit > 0);
        if is_news && has_credit {
            asked.told = Some((fence, Progress { done, total }));
            self.reply(client, tag, Reply::Progress { job, done, total }, TELL_BYTES);
        }
    }
}
