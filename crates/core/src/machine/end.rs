//! The end of a job: one outcome, said once, and what is done with what it left.
//!
//! Every way to end goes through [`Core::end_job`]; the table of states lets nothing end twice. What a worker still
//! holds of an ended job is settled later and counts no more.

use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::record::What;
use bulkhead_proto::client::why::Part;
use bulkhead_proto::ids::JobId;
use bulkhead_proto::job::Payload;

use crate::action::Action;
use crate::client::connections::Letter;
use crate::job::entry::{End, Left, Shelf, State};
use crate::job::list::Key;
use crate::machine::Core;
use crate::turn::Alarm;

impl Core {
    /// Ends a job that has not ended. An offer of it that is still with a worker stays there until it is
    /// settled; nothing that it brings counts any more.
    pub(crate) fn end_job(&mut self, key: Key, outcome: Outcome, left: Left) {
        if self.jobs[key].is_part() {
            return self.part_ended(key, outcome);
        }
        self.end_by_part((key, None), outcome, left);
    }

    /// Ends a job, by one of its parts or not.
    pub(crate) fn end_by_part(&mut self, (key, part): (Key, Option<Part>), outcome: Outcome, left: Left) {
        self.leave_list(key);
        self.close_fan(key);
        self.end_telling(self.jobs[key].id);
        self.turn.count_end(&outcome, 1);
        self.record_end(key, &outcome);
        let job = &mut self.jobs[key];
        // It will not run again, as only `done` jobs cannot be retried: the input is not kept any longer.
        if outcome == Outcome::Done {
            job.input = Payload::default();
        }
        // Who runs it is noted, not stopped: a timeout or cancel kills, a result has ended it already.
        let holder = match job.state {
            State::Running { worker, seq, .. } => Some((worker, seq)),
            _ => None,
        };
        let end = End {
            outcome,
            left,
            at_us: self.turn.wall_us(),
            at_ns: self.turn.now_ns(),
            holder,
            part,
            by: None,
            untold: 0,
            shelf: Shelf::Untold,
        };
        self.jobs.enter(key, State::Ended(Box::new(end)));
        self.unload(self.jobs[key].freight());
        self.announce(key);
    }

    /// Writes letters to all who are to be told, and keeps the job if nobody takes it away.
    fn announce(&mut self, key: Key) {
        let job = &mut self.jobs[key];
        let id = job.id;
        let waiters = job.aside.as_mut().map(|aside| std::mem::take(&mut aside.waiters)).unwrap_or_default();
        let mut untold = 0;
        for (client, tag) in waiters {
            untold += u32::from(self.clients.post(client, Letter { tag, own: false, job: id }));
        }
        let batch = self.jobs.batch(key);
        let (attached, client, tag) = (batch.attached, batch.client, batch.tag);
        if attached {
            untold += u32::from(self.clients.post(client, Letter { tag, own: true, job: id }));
        }
        if let Some(end) = self.jobs[key].end_mut() {
            end.untold = untold;
        }
        // An attached end is its client's and is never dropped for others'; the rest competes for the shelf.
        if attached {
            self.count_untold(key, true);
        } else {
            self.shelve(key);
        }
    }

    /// Takes a job out of whatever it waits in.
    pub(crate) fn leave_list(&mut self, key: Key) {
        let id = self.jobs[key].id;
        match self.jobs[key].state {
            State::Queued => self.queues.unlink(&mut self.jobs, key),
            State::Solo => {
                let pool = self.jobs.batch(key).pool;
                self.pools[pool].solo.unlink(&mut self.jobs.slab, key);
            }
            State::Waiting { ref mut alarm } => self.turn.cancel(alarm, Alarm::Backoff(id)),
            State::Running { .. } | State::Parted | State::Ended(_) => {}
        }
    }

    /// Ordinary ends leave no record, nor do jobs that never began: a flood of them must not wash away what
    /// somebody looks for.
    fn record_end(&mut self, key: Key, outcome: &Outcome) {
        let job = &self.jobs[key];
        let died = job.aside.as_ref().is_some_and(|aside| !aside.deaths.is_empty());
        let troubled = job.alone || job.retries > 0 || job.lost_ns().is_some() || died;
        if !troubled && (*outcome == Outcome::Done || job.attempts == 0) {
            return;
        }
        let after_us = match job.state {
            State::Running { since_ns, .. } => (self.turn.now_ns() - since_ns) / 1000,
            _ => 0,
        };
        let what = What::Ended { job: job.id, outcome: outcome.clone(), attempts: job.attempts, after_us };
        let uid = self.jobs.batch(key).uid;
        self.turn.record(what, Some(uid));
    }

    /// Removes an ended job from everywhere.
    pub(crate) fn forget(&mut self, key: Key) {
        // From its shelf first, while it still can be asked what it holds there.
        self.unshelve(key);
        if let Some(output) = self.jobs[key].held() {
            self.turn.act(Action::DropOutput { output });
        }
        self.drop_log(key);
        let (_, gone) = self.jobs.remove(key);
        self.batch_gone(gone);
    }

    /// The user whose job this is, if it is still there.
    pub(crate) fn owner_of(&self, job: JobId) -> Option<u32> {
        self.jobs.find(job).map(|key| self.jobs.batch(key).uid)
    }
}
