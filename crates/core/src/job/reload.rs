//! Unfinished jobs of an earlier run enter the table again, with their numbers and counts.
//!
//! An attempt that was with a worker when that run ended is lost, which costs the job nothing. A job that was asked to run again has a
//! batch of its own, because it expires by itself. `machine/reload.rs` drives this file.

use bulkhead_facts::durable_job::DurableJob;
use bulkhead_facts::fact::AttemptEnd;
use bulkhead_facts::job_to_run::JobToRun;
use bulkhead_proto::ids::{ClientId, Fence, JobId, Tag};

use crate::job::batch::Batch;
use crate::job::entry::Job;
use crate::job::state::{EntryState, TaskKind};
use crate::job::{Jobs, Reloading};
use crate::turn::{Alarm, AlarmSlot, Turn};

/// No connection has this number: jobs of earlier runs belong to none.
const NO_CLIENT: ClientId = ClientId(0);

impl Jobs {
    /// Queues jobs of an earlier run again. One that is in the table already stays as it is.
    ///
    /// # Panics
    /// If a number was not given out before this run.
    pub(crate) fn reload(&mut self, turn: &mut Turn, reloading: Reloading) {
        let mut shared = None;
        for job in &reloading.jobs {
            if self.table.find(job.job).is_some() || self.left_early.has(job.job) {
                continue;
            }
            let batch = match shared {
                Some(batch) if job.counts.asked == 0 => batch,
                _ => self.reload_batch(turn, &reloading, job),
            };
            if job.counts.asked == 0 {
                shared = Some(batch);
            }
            self.reload_job(turn, batch, job);
        }
    }

    /// A chunk of jobs of earlier runs was queued; `is_last`: there are no more.
    pub(crate) fn chunk_taken(&mut self, turn: &Turn, is_last: bool) {
        self.left_early.chunk_taken(turn, is_last);
    }

    /// A client asked for a job of an earlier run, so it comes back now.
    pub(crate) fn brings_back(&mut self, job: JobId) {
        self.left_early.is_back(job);
    }

    fn reload_batch(&mut self, turn: &mut Turn, reloading: &Reloading, job: &JobToRun) -> u32 {
        let submit = &reloading.submit;
        let first = job.job;
        let count = match job.counts.asked {
            // Up to the last job that is left of the submit; the numbers come from a file, so nothing rests on their distance.
            0 => {
                let last = reloading.jobs.iter().map(|job| job.job.0).max().unwrap_or(first.0);
                u32::try_from(last.saturating_sub(first.0) + 1).unwrap_or(u32::MAX)
            }
            _ => 1,
        };
        let mut expiry = AlarmSlot::default();
        if let Some(at_us) = job.expires_us {
            let left_ms = at_us.saturating_sub(turn.wall_us()).div_ceil(1000);
            turn.set(&mut expiry, Alarm::Expiry(first, count), turn.after_ms(left_ms));
        }
        let logs = turn.kind(reloading.kind).is_some_and(|kind| kind.logs);
        self.table.open_batch(Batch {
            first,
            count,
            refs: 0,
            kind: reloading.kind,
            logs,
            pool: reloading.pool,
            policy: submit.policy.clone(),
            uid: submit.uid,
            account: reloading.account,
            client: NO_CLIENT,
            tag: Tag(0),
            attached: false,
            held: false,
            durable: true,
            flavour: submit.flavour,
            progress: false,
            watched: false,
            accepted_us: submit.accepted_us,
            since_ns: turn.now_ns(),
            expiry,
        })
    }

    fn reload_job(&mut self, turn: &mut Turn, batch: u32, reloaded: &JobToRun) {
        let DurableJob { fence, is_open, attempts, crashes, retries, lost, asked, alone, .. } =
            reloaded.counts;
        let mut job = Job::new(reloaded.job, batch, reloaded.input.clone(), TaskKind::Whole);
        (job.attempts, job.crashes, job.retries, job.alone) = (attempts, crashes, retries, alone);
        job.fence = Fence(fence.0.max(attempts));
        if !reloaded.deaths.is_empty() || lost > 0 || asked > 0 || is_open {
            let rare = job.rare_mut();
            rare.deaths.clone_from(&reloaded.deaths);
            (rare.lost, rare.asked) = (lost + u32::from(is_open), asked);
        }
        if alone {
            job.state = EntryState::Solo;
        }
        let key = self.table.insert_job(job);
        if is_open {
            self.attempt_fact(turn, key, AttemptEnd::Lost, None);
        }
        if alone {
            self.queues.push_back_solo(&mut self.table, key);
        } else {
            self.queues.push_back(&mut self.table, key);
        }
    }
}
