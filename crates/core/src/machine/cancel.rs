//! A cancelled job: first its outcome, then the take-back of its offer or the end of its task.
//!
//! A client cancels it, or does not come back in time; `requests.rs` and the alarm `Vanished` call the methods here.

use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::why::Canceller;
use bulkhead_proto::ids::ClientId;

use crate::event::Leftover;
use crate::job::{Doing, EndedBy, TaskRun};
use crate::machine::Core;

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

    /// A client did not come back in time: its attached jobs are cancelled.
    pub(super) fn vanish(&mut self, id: ClientId) {
        let after_ms = self.turn.config().vanished_ms;
        for (first, count) in self.clients.remove_vanished(&mut self.turn, id) {
            for run in self.jobs.of_watched_batch(first, count) {
                self.cancel_job(run, Canceller::Vanished { after_ms });
            }
        }
    }
}
