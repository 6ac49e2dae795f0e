//! The end of a job, from top to bottom: its parts go, it gets its outcome, everybody who is to be told gets a letter, and
//! it is kept until it is forgotten.
//!
//! Every way to end goes through [`Core::end_task`] or [`Core::end_job`].

use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::ids::ClientId;

use crate::client::Letter;
use crate::event::Leftover;
use crate::job::{EndNotice, EndedBy, Released, Run};
use crate::machine::Core;

/// Jobs dropped for their age in one turn.
const AGED_PER_TURN: usize = 4096;

impl Core {
    /// Ends the job of a task that has not ended: the task's own, or the one that it is a part of.
    pub(super) fn end_task(&mut self, run: Run, outcome: Outcome, left: Leftover) {
        if !run.is_part() {
            return self.end_job(run, outcome, left, EndedBy::Itself);
        }
        if let Some((job, part, outcome)) = self.jobs.part_ended(&mut self.turn, run, outcome) {
            self.end_job(job, outcome, Leftover::Nothing, EndedBy::Part(part));
        }
    }

    /// Ends a job that has not ended. Its parts end with it: what of them runs is killed, unless it can be taken back
    /// before it begins. An offer of it that is still with a worker stays there until it is settled.
    pub(super) fn end_job(&mut self, run: Run, outcome: Outcome, left: Leftover, by: EndedBy) {
        for (worker, seq) in self.jobs.close_parts(&mut self.turn, run) {
            self.workers.recall_or_look(&mut self.turn, worker, seq);
        }
        let notice = self.jobs.end(&mut self.turn, run, outcome, left, by);
        self.announce(run, notice);
    }

    /// Writes letters to all who are to be told. The job is kept if nobody takes it away.
    fn announce(&mut self, run: Run, notice: EndNotice) {
        let mut told = 0;
        let (job, count) = (run.first(), run.count());
        for (client, tag) in notice.waiters {
            told += u32::from(self.clients.post(client, Letter::new(tag, false, job, count)));
        }
        if let Some((client, tag)) = notice.attached {
            told += u32::from(self.clients.post(client, Letter::new(tag, true, job, count)));
        }
        if let Some(untold) = self.jobs.announced(run, told) {
            self.clients.add_untold(untold.client, untold.bytes, untold.outputs);
        }
    }

    /// A letter was read, or nobody is there to read it.
    pub(super) fn told(&mut self, id: ClientId, letter: Letter) {
        self.clients.letter_read(id, letter);
        let released = self.jobs.told(&mut self.turn, letter.job());
        self.relieve(released);
    }

    /// Removes an ended job from everywhere.
    pub(super) fn forget(&mut self, run: Run) {
        let released = self.jobs.forget(&mut self.turn, run);
        self.relieve(released);
    }

    /// Clients have to remember less: an end that waited for them, a batch.
    pub(super) fn relieve(&mut self, released: Released) {
        if let Some(untold) = released.untold {
            self.clients.remove_untold(untold.client, untold.bytes, untold.outputs);
        }
        if let Some(gone) = released.batch {
            self.clients.batch_gone(&mut self.turn, gone.client, gone.first);
        }
    }

    /// Drops kept results that are too old or too many.
    pub(super) fn evict(&mut self) {
        // A bounded number, for a million results may have grown old at once; the deadline brings the next turn.
        for _ in 0..AGED_PER_TURN {
            let Some(run) = self.jobs.too_old(&self.turn) else { break };
            self.forget(run);
        }
        let (mut count, mut bound) = (0, "");
        while let Some((run, met)) = self.jobs.too_many(&self.turn) {
            (count, bound) = (count + 1, met);
            self.forget(run);
        }
        self.jobs.note_evicted(&mut self.turn, count, bound);
    }
}
