//! Retry: a client asked to run an ended job again. It is queued with fresh budgets and in a batch of its own.
//!
//! `machine/requests.rs` checks whether the client may ask for it, and whether the queue has room for one more job of its
//! user: a retry passes by the same admission as a submit. The client that submitted the job stays with the
//! old batch, because it is told of one end of the job and no second one.

use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::record::What;
use bulkhead_proto::ids::Fence;

use crate::job::batches::batch_gone;
use crate::job::list::Key;
use crate::job::run::TaskRun;
use crate::job::state::TaskKind;
use crate::job::{BatchGone, Jobs, Released};
use crate::turn::{Alarm, Owner, Turn};

impl Jobs {
    /// Queues an ended job again, with fresh budgets and not attached.
    /// A job in parts starts again from its plan: no plan and no result of a part is kept after its end.
    ///
    /// # Panics
    /// If it has not ended, is done, came with files, which its end has dropped, or if a worker still holds an offer
    /// of it that carries attachments.
    pub(crate) fn retry(&mut self, turn: &mut Turn, run: TaskRun) -> Released {
        let key = self.table.open(run);
        let (uid, job) = (self.table.batch(key).uid, &self.table[key]);
        let outcome = job.end().map(|end| end.outcome.clone()).expect("only an ended job is run again");
        assert!(outcome != Outcome::Done && !job.has_files(), "job {} can be run again", job.id);
        assert!(!self.are_attachments_held(run), "the attachments of job {} were let go", run.first());
        turn.record(What::RetryAsked { job: job.id }, Owner::User(uid));
        // Each accepted job is counted once, by its last outcome.
        turn.uncount_end(&outcome, 1);
        let untold = self.stop_keeping(key);
        if let Some(output) = self.table[key].held() {
            self.drop_output(turn, output);
        }
        // `alone` stays: what killed its workers before may do so again, whatever its budget says now.
        let held_by = self.table.batch(key).holder();
        let batch = self.rebatch_for_retry(turn, key);
        let job = &mut self.table[key];
        job.crashes = 0;
        job.retries = 0;
        if job.task_kind == TaskKind::Merge {
            job.task_kind = TaskKind::Plan;
        }
        // `attempts` may be that of a part that took more, and an attempt is an offer.
        job.fence = Fence(job.fence.0.max(job.attempts));
        let rare = job.rare_mut();
        rare.asked += 1;
        rare.attachments = None;
        rare.survivors = Vec::new();
        self.retry_fact(turn, key);
        self.wait_behind(key);
        Released { untold, batch, held_by }
    }

    /// Moves a job that is to run again to a batch of its own: not attached, and ageing from now on.
    fn rebatch_for_retry(&mut self, turn: &mut Turn, key: Key) -> Option<BatchGone> {
        let (first, attempts) = (self.table[key].id, self.table[key].attempts);
        // The client of the old batch is told of one end and no second one.
        let mut batch = self.table.batch(key).copy();
        batch.first = first;
        batch.count = 1;
        batch.refs = 0;
        batch.attached = false;
        batch.held = false;
        batch.watched = false;
        batch.since_ns = turn.now_ns();
        let expires_ms = batch.policy.expires_ms.filter(|_| attempts == 0);
        let place = self.table.open_batch(batch);
        let gone = self.table.rebatch(key, place);
        let gone = batch_gone(turn, gone);
        // Only now: the old batch may have set an equal alarm for this very moment, which its removal cancels.
        if let Some(limit_ms) = expires_ms {
            let at_ns = turn.after_ms(limit_ms);
            let expiry = &mut self.table.batches[place as usize].expiry;
            turn.set(expiry, Alarm::Expiry(first, 1), at_ns);
        }
        gone
    }
}
