//! A job that is asked to run again after its end: back into the queue, with fresh budgets and a batch of its own.
//!
//! Whether a client may ask for it is checked in `machine/requests.rs`. The old batch keeps the client that submitted
//! the job: that client is told of one end, which it was or will be.

use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::record::What;
use bulkhead_proto::ids::Fence;

use crate::action::Action;
use crate::job::batches::batch_gone;
use crate::job::list::Key;
use crate::job::run::Run;
use crate::job::state::TaskKind;
use crate::job::{BatchGone, Jobs, Released};
use crate::turn::{Alarm, Turn};

impl Jobs {
    /// Puts an ended job back into the queue, with fresh budgets and detached from the client that submitted it.
    ///
    /// # Panics
    /// If it has not ended, is done, has files of a client, which were let go at its end, or if a worker still holds an
    /// offer of it that carries attachments.
    pub(crate) fn retry(&mut self, turn: &mut Turn, run: Run) -> Released {
        let key = self.table.open(run);
        let (uid, job) = (self.table.batch(key).uid, &self.table[key]);
        let outcome = job.end().map(|end| end.outcome.clone()).expect("only an ended job is run again");
        assert!(outcome != Outcome::Done && !job.has_files(), "job {} can be run again", job.id);
        assert!(!self.are_attachments_held(run), "the attachments of job {} were let go", run.first());
        turn.record(What::RetryAsked { job: job.id }, Some(uid));
        // Each accepted job counts once, by the outcome that it has in the end.
        turn.uncount_end(&outcome, 1);
        let untold = self.stop_keeping(key);
        if let Some(output) = self.table[key].held() {
            turn.act(Action::DropOutput { output });
        }
        // `alone` stays: what killed its workers before may do so again, whatever its budget says now.
        let batch = self.rebatch_for_retry(turn, key);
        let job = &mut self.table[key];
        job.crashes = 0;
        job.retries = 0;
        if job.task_kind == TaskKind::Merge {
            job.task_kind = TaskKind::Plan;
        }
        // Its attempts are those of whichever of its tasks took most, and each is an offer.
        job.fence = Fence(job.fence.0.max(job.attempts));
        let rare = job.rare_mut();
        rare.asked += 1;
        rare.attachments = None;
        self.wait_behind(key);
        Released { untold, batch }
    }

    /// Gives a job that is to run again a batch of its own: not attached, and as old as this moment.
    fn rebatch_for_retry(&mut self, turn: &mut Turn, key: Key) -> Option<BatchGone> {
        let (first, attempts) = (self.table[key].id, self.table[key].attempts);
        // The old batch's client is owed one end of it and no second one; ageing counts from now on.
        let mut batch = self.table.batch(key).copy();
        batch.first = first;
        batch.count = 1;
        batch.refs = 0;
        batch.attached = false;
        batch.watched = false;
        batch.since_ns = turn.now_ns();
        let expires_ms = batch.policy.expires_ms.filter(|_| attempts == 0);
        let place = self.table.open_batch(batch);
        let gone = self.table.rebatch(key, place);
        let gone = batch_gone(turn, gone);
        // Only now: the old batch may have set an equal alarm, for this very moment, which goes with it.
        if let Some(limit_ms) = expires_ms {
            let at_ns = turn.after_ms(limit_ms);
            let expiry = &mut self.table.batches[place as usize].expiry;
            turn.set(expiry, Alarm::Expiry(first, 1), at_ns);
        }
        gone
    }
}
