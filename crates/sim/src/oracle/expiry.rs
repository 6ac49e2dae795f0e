//! `expiry`: a job that waits for its first attempt ends when its time is over, and an attached job ends when its client has
//! been gone for `vanished_ms`. `verdicts.rs` judges that neither ends before that.
//!
//! Both are judged at the end of the first step in which the time is over, without the time in which nothing ran. A job that is
//! offered to a worker waits for the answer; one that has begun expires no more. It follows events and the ledger, and never
//! asks the core.

use std::collections::BTreeSet;

use bulkhead_core::config::Config;
use bulkhead_core::event::{Event, Now};
use bulkhead_proto::ids::{ClientId, JobId};

use crate::clock::MS;
use crate::oracle::job::KnownJob;
use crate::oracle::ledger::JobOracle;
use crate::report::{Verdict, broken};

/// Follows the jobs that wait for their first attempt, and the clients that left.
#[derive(Debug)]
pub struct ExpiryOracle {
    vanished_ns: u64,
    /// Jobs that expire, by the earliest time at which they can.
    waiting: BTreeSet<(u64, JobId)>,
    /// Clients that left, by the earliest time at which their jobs are cancelled.
    left: BTreeSet<(u64, ClientId)>,
}

impl ExpiryOracle {
    /// An oracle that knows no job.
    pub fn new(config: &Config) -> Self {
        let vanished_ns = config.vanished_ms * MS;
        Self { vanished_ns, waiting: BTreeSet::new(), left: BTreeSet::new() }
    }

    /// Follows an event.
    pub fn told(&mut self, now: Now, event: &Event) {
        if let Event::ClientGone { client } = event {
            self.left.insert((now.mono_ns + self.vanished_ns, *client));
        }
    }

    /// A job was accepted, or is run again.
    pub fn begins(&mut self, now: Now, id: JobId, job: &KnownJob) {
        if let Some(expires_ms) = job.policy.expires_ms {
            self.waiting.insert((now.mono_ns + expires_ms * MS, id));
        }
    }

    /// The end of a turn, after the ledger has all of it.
    ///
    /// # Errors
    /// A job should have ended.
    pub fn turn_over(&mut self, now: Now, ledger: &JobOracle) -> Verdict {
        let mut late = Vec::new();
        let due: Vec<_> = self.waiting.range(..=(now.mono_ns, JobId(u64::MAX))).copied().collect();
        for (at_ns, id) in due {
            self.waiting.remove(&(at_ns, id));
            let Some(job) = ledger.jobs.get(&id).filter(|job| waits(job)) else { continue };
            let limit_ns = job.policy.expires_ms.unwrap_or(0) * MS;
            let ran_ns = ledger.pauses.ran_ns(job.since_ns(), now.mono_ns);
            if ran_ns < limit_ns {
                self.waiting.insert((now.mono_ns + limit_ns - ran_ns, id));
            } else {
                // With a worker: its answer decides.
                self.waiting.insert((now.mono_ns + 1, id));
                late.extend(job.offer.is_none().then_some(id));
            }
        }
        self.judge(ledger, &late, "has expired")?;
        let mut left = Vec::new();
        let due: Vec<_> = self.left.range(..=(now.mono_ns, ClientId(u64::MAX))).copied().collect();
        for (at_ns, client) in due {
            self.left.remove(&(at_ns, client));
            let ran_ns =
                ledger.gone.get(&client).map_or(0, |gone_ns| ledger.pauses.ran_ns(*gone_ns, now.mono_ns));
            if ran_ns < self.vanished_ns {
                self.left.insert((now.mono_ns + self.vanished_ns - ran_ns, client));
                continue;
            }
            let of_client = ledger.jobs.iter().filter(|(_, job)| job.client == client && job.attached);
            left.extend(of_client.filter(|(_, job)| job.life == 1 && goes_on(job)).map(|(id, _)| *id));
        }
        self.judge(ledger, &left, "was of a client that is gone")
    }

    /// Judges jobs that should have ended. The record of ends has no room to name all jobs; of these nothing is known.
    fn judge(&self, ledger: &JobOracle, late: &[JobId], why: &str) -> Verdict {
        if late.len() as u64 <= ledger.unnamed_ends {
            return Ok(());
        }
        let jobs: Vec<_> = late.iter().map(|id| (id, ledger.jobs.get(id))).collect();
        broken("expiry", format!("each of these {why}, and goes on: {jobs:?}"))
    }
}

/// Whether a job is not known to have ended in any way.
fn goes_on(job: &KnownJob) -> bool {
    job.end.is_none() && !job.forgotten && !job.cancel && job.reports.is_empty()
}

/// Whether a job may still wait for its first attempt. One that ended with an offer open counts that as an attempt, and when it
/// is run again it expires no more.
fn waits(job: &KnownJob) -> bool {
    goes_on(job) && !job.begun && (job.life == 1 || job.offered_ns == 0)
}
