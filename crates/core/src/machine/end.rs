//! The end of a job, from top to bottom: its parts end, it gets its outcome, waiting clients get letters, and it is kept
//! until it is forgotten.
//!
//! Every way to end goes through [`Core::end_task`] or [`Core::end_job`].

use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::ids::ClientId;

use crate::client::{Letter, LetterReason};
use crate::event::Leftover;
use crate::job::{EndNotice, EndedBy, Released, TaskRun};
use crate::machine::Core;

impl Core {
    /// Ends the job of a task that has not ended: the task's own, or the one that it is a part of.
    pub(super) fn end_task(&mut self, run: TaskRun, outcome: Outcome, left: Leftover) {
        if !run.is_part() {
            return self.end_job(run, outcome, left, EndedBy::Itself);
        }
        let (job, part, outcome) = self.jobs.part_ended(&mut self.turn, run, outcome);
        self.end_job(job, outcome, Leftover::Nothing, EndedBy::Part(part));
    }

    /// Ends a job that has not ended, and its parts with it. Offers of its parts are taken back; a worker that has begun one
    /// is killed. The job's own offer stays in its worker's ring until it is settled.
    pub(super) fn end_job(&mut self, run: TaskRun, outcome: Outcome, left: Leftover, by: EndedBy) {
        for (worker, seq) in self.jobs.close_parts(&mut self.turn, run) {
            self.workers.recall_or_look(&mut self.turn, worker, seq);
        }
        let notice = self.jobs.end(&mut self.turn, run, outcome, left, by);
        self.announce(run, notice);
    }

    /// Writes a letter to each client that waits for the job. Its log is followed no more. The job is kept until all letters
    /// are sent, or longer.
    fn announce(&mut self, run: TaskRun, notice: EndNotice) {
        for follower in notice.followers {
            self.clients.log_is_over(&mut self.turn, follower, run.first());
        }
        let mut told = 0;
        let is_durable = self.jobs.batch(run).is_durable();
        let waiters = notice.waiters.into_iter();
        let waiters = waiters.map(|(client, submitted)| (client, LetterReason::of_waiter(submitted)));
        let attached = notice.attached.map(|(client, tag)| (client, LetterReason::Attached(tag)));
        for (client, reason) in waiters.chain(attached) {
            let letter = Letter::new(reason, run.first());
            let is_posted =
                if is_durable { self.post_stored(client, letter) } else { self.clients.post(client, letter) };
            told += u32::from(is_posted);
        }
        if let Some(untold) = self.jobs.announced(run, told) {
            self.clients.add_untold(untold.client, untold.bytes, untold.outputs);
        }
    }

    /// A letter was sent, or its client is gone.
    pub(super) fn told(&mut self, id: ClientId, letter: Letter) {
        self.clients.letter_read(&mut self.turn, id, letter);
        let released = self.jobs.told(&mut self.turn, letter.job(), letter.is_own());
        self.relieve(released);
    }

    /// Removes an ended job from everywhere.
    pub(super) fn forget(&mut self, run: TaskRun) {
        if self.jobs.batch(run).is_durable() {
            self.look_ups.changed(run.first());
        }
        let released = self.jobs.forget(&mut self.turn, run);
        self.relieve(released);
    }

    /// Tells the room of clients which unread ends and batches are gone.
    pub(super) fn relieve(&mut self, released: Released) {
        if let Some(untold) = released.untold {
            self.parked.change();
            self.clients.remove_untold(untold.client, untold.bytes, untold.outputs);
        }
        if let Some(client) = released.held_by {
            let jobs = &self.jobs;
            self.clients.held_job_gone(client, |job| jobs.is_held(job));
        }
        if let Some(gone) = released.batch {
            self.clients.batch_gone(&mut self.turn, gone.client, gone.first);
        }
    }
}
