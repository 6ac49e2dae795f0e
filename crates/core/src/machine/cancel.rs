//! A job that nobody wants: its outcome first, then what becomes of the task that may run.

use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::why::Canceller;
use bulkhead_proto::ids::ClientId;

use crate::event::Leftover;
use crate::job::{Doing, EndedBy, Run};
use crate::machine::Core;

impl Core {
    /// Ends a job that nobody wants. What runs is killed, unless it can be taken back before it begins.
    pub(super) fn cancel_job(&mut self, run: Run, by: Canceller) {
        let doing = self.jobs.job(run).doing();
        // Its outcome comes first: a client that cancelled does not wait for the proof of the worker's death.
        self.end_job(run, Outcome::Cancelled, Leftover::Nothing, EndedBy::Canceller(by));
        if let Doing::Running { worker, seq, .. } = doing {
            self.workers.recall_or_look(&mut self.turn, worker, seq);
        }
    }

    /// A client did not come back: what it wanted for itself is wanted by nobody.
    pub(super) fn vanish(&mut self, id: ClientId) {
        let after_ms = self.turn.config().vanished_ms;
        for (first, count) in self.clients.remove_vanished(id) {
            for run in self.jobs.of_watched_batch(first, count) {
                self.cancel_job(run, Canceller::Vanished { after_ms });
            }
        }
    }
}
