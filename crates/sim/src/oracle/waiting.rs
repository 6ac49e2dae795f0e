//! `waiting`: a request to end what waits ends every job that no worker runs, and no task that has begun.
//!
//! It judges each reply in the turn that decided it, by the offers that are open, what was reported of them, and the truth of
//! the boxes. A hostile worker's box proves nothing.

use std::collections::BTreeMap;

use bulkhead_core::action::Action;
use bulkhead_core::event::{Event, Now};
use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::ids::WorkerId;
use bulkhead_proto::worker::boxes::ClaimState;

use crate::oracle::job::KnownJob;
use crate::oracle::ledger::JobOracle;
use crate::report::{Verdict, broken};
use crate::worker::FakeWorker;

impl JobOracle {
    /// A client asked to end what waits.
    pub(crate) fn asked_waiting(&mut self, now: Now, event: &Event) {
        let Event::ClientSaid { client, tag, request: Request::CancelWaiting { jobs }, .. } = event else {
            return;
        };
        self.waiting_asked.insert((*client, *tag), now.mono_ns);
        for job in jobs {
            self.cancels.entry(*job).or_insert(true);
            if let Some(job) = self.jobs.get_mut(job) {
                job.waits_only |= !job.cancel;
                job.cancel = true;
            }
        }
    }

    /// The core says what became of the jobs.
    ///
    /// # Errors
    /// One is ended that has begun, or goes on and has not.
    pub(crate) fn waiting_decided(
        &mut self,
        now: Now,
        action: &Action,
        workers: &BTreeMap<WorkerId, FakeWorker>,
    ) -> Verdict {
        let Action::Reply { client, tag, reply: Reply::CancelledWaiting { ended, running, .. }, .. } = action
        else {
            return Ok(());
        };
        // A question that was not asked is judged by `replies`.
        let Some(asked_ns) = self.waiting_asked.remove(&(*client, *tag)) else { return Ok(()) };
        for id in running {
            let Some(job) = self.jobs.get_mut(id) else { continue };
            if !job.may_have_begun(asked_ns, workers) {
                return broken("waiting", format!("job {id} waits, and is said to run ({job:?})"));
            }
            if job.waits_only {
                (job.cancel, job.waits_only) = (false, false);
            }
        }
        for id in ended {
            let Some(job) = self.jobs.get_mut(id) else { continue };
            // It was run again in this step, after its end or before.
            if job.life > 1 && job.changed_ns == now.mono_ns {
                continue;
            }
            if job.offer.is_some() || job.planned.is_some() {
                return broken("waiting", format!("job {id} has begun, and is said to be ended ({job:?})"));
            }
            job.cancel = true;
            self.know_end(now, *id, &Outcome::Cancelled)?;
        }
        Ok(())
    }
}

impl KnownJob {
    /// Whether it has begun, or began after this time, as far as honest workers show it.
    fn may_have_begun(&self, since_ns: u64, workers: &BTreeMap<WorkerId, FakeWorker>) -> bool {
        let is_claimed = self.offer.is_some_and(|(worker, seq)| {
            workers
                .get(&worker)
                .is_none_or(|truth| truth.hostile || !truth.pages.is(seq, ClaimState::Offered))
        });
        is_claimed || self.planned.is_some() || self.last_begun_ns >= since_ns && since_ns > 0
    }
}
