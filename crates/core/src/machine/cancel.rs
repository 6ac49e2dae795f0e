//! A cancelled job: first its outcome, then the take-back of its offer or the end of its task.
//!
//! A client cancels it, or does not come back in time; `requests.rs` and the alarm `Vanished` call the methods here.
//!
//! A user's jobs may all lose their clients, or expire, at one moment. A turn looks at [`LOOKS`] of them, of all users by turns
//! (`job/due_ends.rs`); if more are left, the next turn begins at once.

use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::why::Canceller;
use bulkhead_proto::ids::ClientId;

use crate::event::Leftover;
use crate::job::{Doing, DueReason, EndedBy, TaskRun};
use crate::machine::Core;

/// Jobs that one turn looks at, and ends. The last user's may pass it.
const LOOKS: usize = 1024;

impl Core {
    /// Cancels a job. Its offer is taken back, or its task is told to end if it has begun. A job that met a limit of time
    /// and waits for the end of its task has timed out, and waits no longer.
    pub(super) fn cancel_job(&mut self, run: TaskRun, by: Canceller) {
        let doing = self.jobs.job(run).doing();
        // The outcome comes first: a client that cancels does not wait for the proof of the worker's death.
        match self.met_limit(run) {
            Some(met) => self.end_task(run, met.outcome(), Leftover::Nothing),
            None => self.end_job(run, Outcome::Cancelled, Leftover::Nothing, EndedBy::Canceller(by)),
        }
        if let Doing::Running { worker, seq, .. } = doing {
            self.workers.recall_or_look(&mut self.turn, worker, seq);
        }
    }

    /// A client did not come back in time: its attached jobs are cancelled from now on.
    pub(super) fn vanish(&mut self, id: ClientId) {
        let (uid, batches) = self.clients.remove_vanished(&mut self.turn, id);
        self.jobs.end_soon(uid, DueReason::Vanished, batches);
    }

    /// Cancels jobs whose clients did not come back, and ends those that have expired: as many as a turn has room for.
    pub(super) fn end_due(&mut self) {
        let after_ms = self.turn.config().vanished_ms;
        let mut looks = 0;
        while looks < LOOKS
            && let Some(due) = self.jobs.next_due(&self.turn)
        {
            looks += due.looks;
            for run in due.runs {
                match due.reason {
                    DueReason::Vanished => self.cancel_job(run, Canceller::Vanished { after_ms }),
                    DueReason::Expired => self.end_task(run, Outcome::Expired, Leftover::Nothing),
                }
            }
        }
    }
}
