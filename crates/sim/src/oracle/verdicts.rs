//! The verdicts of the ledger: whether a charge, an end or a list is true.
//!
//! An end needs evidence: a report for `done`, failures for `failed`, charges for `crashed`, a limit that has passed for
//! `timed-out`, a client's request for `cancelled`, a stop for `lost`.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_core::event::{Leftover, Now, TaskResult};
use bulkhead_proto::client::message::Request;
use bulkhead_proto::client::outcome::{JobEnded, JobOutput, Outcome, TimeLimit};
use bulkhead_proto::client::record::JobRange;
use bulkhead_proto::client::refusal::RefusedJobs;
use bulkhead_proto::client::view::JobRow;
use bulkhead_proto::ids::{ClientId, JobId, OutputId, WorkerId};
use bulkhead_proto::job::JobState;
use bulkhead_proto::limits::JOB_RANGES_MAX;

use crate::oracle::job::{KnownEnd, KnownJob};
use crate::oracle::ledger::JobOracle;
use crate::report::{Verdict, broken};
use crate::task::TaskId;

impl JobOracle {
    pub(crate) fn blamed(&mut self, id: TaskId, worker: WorkerId, crashes: u8, crashes_max: u8) -> Verdict {
        let due = self.dues.iter().position(|due| due.task == id && due.worker == worker);
        let (Some(due), Some(job)) = (due, self.task_mut(id)) else {
            return broken("blame", format!("{id:?} is charged with worker {worker}, which it did not kill"));
        };
        job.charges += 1;
        job.charges_ever += 1;
        let charges = job.charges;
        if u32::from(crashes) != charges || crashes_max != job.policy.crash_budget() {
            return broken("budget", format!("{id:?}: {crashes} of {crashes_max} charges, not {charges}"));
        }
        if let Some(job) = self.jobs.get_mut(&id.job).filter(|_| id.part > 0) {
            job.charges_ever += 1;
        }
        self.dues.remove(due);
        // One death is charged once: other possible charges of this worker are off.
        self.dues.retain(|due| due.worker != worker);
        self.touched.insert(id);
        Ok(())
    }

    /// After each step: guilty jobs were charged, and jobs without a budget left have ended.
    ///
    /// # Errors
    /// A guilty job was not charged, or has not ended.
    pub fn check(&mut self) -> Verdict {
        self.cancels.clear();
        for due in std::mem::take(&mut self.dues) {
            let over = self.jobs.get(&due.task.job).is_none_or(|job| job.end.is_some());
            if due.must && !over {
                return broken(
                    "blame",
                    format!("{:?} killed worker {} and is not charged", due.task, due.worker),
                );
            }
        }
        for id in std::mem::take(&mut self.touched) {
            let (Some(job), Some(of)) = (self.task(id), self.jobs.get(&id.job)) else { continue };
            let quarantined = matches!(of.end, Some(KnownEnd { outcome: Outcome::Crashed { .. }, .. }));
            if (job.charges >= u32::from(job.policy.crash_budget())) != quarantined && of.end.is_none() {
                return broken("budget", format!("{id:?} goes on after {} charges", job.charges));
            }
        }
        Ok(())
    }

    pub(crate) fn end_recorded(&mut self, now: Now, id: JobId, outcome: &Outcome) -> Verdict {
        self.know_end(now, id, outcome)?;
        let Some(job) = self.jobs.get_mut(&id) else { return Ok(()) };
        if std::mem::replace(&mut job.end_recorded, true) {
            return broken("outcome", format!("the end of job {id} is recorded twice"));
        }
        job.ended_ns = Some(now.mono_ns);
        Ok(())
    }

    /// Jobs ended before they began. A record names the first of many ranges only.
    pub(crate) fn queued_ended(
        &mut self,
        now: Now,
        outcome: &Outcome,
        count: u64,
        ranges: &[JobRange],
    ) -> Verdict {
        let told: u64 = ranges.iter().map(|range| range.count()).sum();
        if told == 0 || told > count || (told < count && ranges.len() < JOB_RANGES_MAX) {
            return broken("records", format!("{count} queued jobs ended, and {ranges:?} are named"));
        }
        self.unnamed_ends += count - told;
        let mut owners = BTreeSet::new();
        for id in ranges.iter().flat_map(|range| range.first.0..=range.last.0).map(JobId) {
            self.end_recorded(now, id, outcome)?;
            owners.extend(self.jobs.get(&id).map(|job| job.uid));
        }
        match owners.len() {
            1 => Ok(()),
            _ => broken("records", format!("one record is about jobs of users {owners:?}")),
        }
    }

    /// A client is told of an end.
    ///
    /// # Errors
    /// It is not true, or differs from an earlier reply.
    pub fn ended(&mut self, now: Now, ended: &JobEnded, output: Option<OutputId>) -> Verdict {
        let id = ended.job;
        let Some(job) = self.jobs.get_mut(&id) else {
            return broken("outcome", format!("job {id} has ended, but never was"));
        };
        // Asked for in the same step as the retry, and before it.
        let revived = job.life > 1 && job.changed_ns == now.mono_ns;
        let late = job.end.is_none()
            && (revived || job.before.as_ref().is_some_and(|end| end.outcome == ended.outcome));
        if late {
            return Ok(());
        }
        self.know_end(now, id, &ended.outcome)?;
        let Some(job) = self.jobs.get_mut(&id) else { return Ok(()) };
        if ended.outcome != Outcome::Done && !job.end_recorded && ended.attempts > 0 {
            return broken("records", format!("job {id} ended {}, and there is no record", ended.outcome));
        }
        let is_news = matches!(ended.outcome, Outcome::Expired | Outcome::Lost { .. });
        if is_news && !job.end_recorded {
            let Some(left) = self.unnamed_ends.checked_sub(1) else {
                return broken("records", format!("job {id} ended {} in silence", ended.outcome));
            };
            (self.unnamed_ends, job.end_recorded) = (left, true);
        }
        // What a task wrote that failed, or ended after its limit of time, is kept if it wrote something.
        let is_failed = matches!(ended.outcome, Outcome::Failed { .. });
        let is_timed_out = matches!(ended.outcome, Outcome::TimedOut { .. });
        if !is_failed
            && !is_timed_out
            && (ended.outcome == Outcome::Done) == (ended.output == JobOutput::None)
        {
            return broken("outcome", format!("job {id} ended {} with {:?}", ended.outcome, ended.output));
        }
        let shown = (ended.output.clone(), output);
        if ended.outcome == Outcome::Done && !job.reports.iter().any(|report| is_same(report, &shown)) {
            return broken("outcome", format!("job {id} is done with {shown:?}, which nobody reported"));
        }
        let mut told = job.reports.iter().chain(&job.refusals);
        if is_timed_out && ended.output != JobOutput::None && !told.any(|report| is_same(report, &shown)) {
            return broken("outcome", format!("job {id} timed out with {shown:?}, which nobody reported"));
        }
        if is_failed && job.plans && ended.output != JobOutput::None {
            return broken("outcome", format!("job {id} failed in parts, and left {shown:?}"));
        }
        if is_failed && !job.plans && !job.refusals.iter().any(|report| is_same(report, &shown)) {
            return broken("outcome", format!("job {id} failed with {shown:?}, which nobody reported"));
        }
        let Some(end) = &mut job.end else { return Ok(()) };
        match &end.output {
            Some(before) if *before != shown && !has_gone(before, &shown) => {
                broken("outcome", format!("job {id} had the output {before:?}, and now {shown:?}"))
            }
            _ => {
                end.output = Some(shown);
                Ok(())
            }
        }
    }

    pub(crate) fn know_end(&mut self, now: Now, id: JobId, outcome: &Outcome) -> Verdict {
        let (stopping, gone, vanished_ns) = (self.stopping, &self.gone, self.vanished_ns);
        let pauses = &self.pauses;
        let Some(job) = self.jobs.get_mut(&id) else {
            return broken("outcome", format!("job {id} has ended, but never was"));
        };
        match &job.end {
            Some(end) if end.outcome == *outcome => return Ok(()),
            Some(end) => {
                return broken("outcome", format!("job {id} ended {}, and now {outcome}", end.outcome));
            }
            None => {}
        }
        let left = has_left(job, gone, now, vanished_ns);
        let range = TaskId { job: id, part: 1 }..=TaskId { job: id, part: u32::MAX };
        let lived_ns = pauses.ran_ns(job.since_ns(), now.mono_ns);
        let sound = |task: &KnownJob| {
            let ran_ns = pauses.ran_ns(task.offered_ns, now.mono_ns);
            is_sound(task, outcome, (lived_ns, ran_ns), left, stopping)
        };
        if !sound(job) && !self.parts.range(range).any(|(_, part)| *outcome != Outcome::Done && sound(part)) {
            return broken(
                "outcome",
                format!("job {id} ended {outcome}: there is no evidence for it ({job:?})"),
            );
        }
        job.changed_ns = now.mono_ns;
        job.end = Some(KnownEnd { outcome: outcome.clone(), output: None });
        Ok(())
    }

    /// Follows the changes that a `Changed` reply reports.
    ///
    /// # Errors
    /// It did what must not be.
    pub fn changed(&mut self, now: Now, request: &Request, refused: &[RefusedJobs]) -> Verdict {
        let Request::Forget { jobs } = request else { return Ok(()) };
        let (stopping, gone, vanished_ns) = (self.stopping, &self.gone, self.vanished_ns);
        for id in jobs.iter().filter(|id| !refused.iter().any(|same| same.jobs().contains(*id))) {
            let Some(job) = self.jobs.get_mut(id) else {
                return broken("lost", format!("job {id} is forgotten, but never was"));
            };
            if !job.may_be_over(stopping, has_left(job, gone, now, vanished_ns)) {
                return broken("lost", format!("job {id} is forgotten before its end"));
            }
            job.forgotten = true;
        }
        Ok(())
    }

    /// A job is shown in a list.
    ///
    /// # Errors
    /// The row is not true.
    pub fn shown(&mut self, now: Now, row: &JobRow, deaths: usize) -> Verdict {
        let id = row.job;
        let (stopping, gone, vanished_ns) = (self.stopping, &self.gone, self.vanished_ns);
        let Some(job) = self.jobs.get(&id) else {
            return broken("lost", format!("job {id} is listed, but never was"));
        };
        if job.forgotten {
            return broken("lost", format!("job {id} was forgotten, and is listed"));
        }
        let ended = row.state == JobState::Ended;
        let same = match (&job.end, &row.outcome) {
            (Some(end), Some(word)) => end.outcome.word() == word,
            (Some(_), None) => false,
            (None, Some(word)) if word == "done" => !job.reports.is_empty(),
            (None, Some(_)) => {
                row.attempts == 0 && job.may_be_over(stopping, has_left(job, gone, now, vanished_ns))
            }
            (None, None) => true,
        };
        if (!same && job.changed_ns != now.mono_ns) || ended != row.outcome.is_some() || row.uid != job.uid {
            return broken("outcome", format!("{row:?} is listed, and it is {:?}", job.end));
        }
        if u32::from(row.crashes) > job.charges_ever || deaths as u32 > job.charges_ever {
            return broken(
                "blame",
                format!("job {id} is listed with {} charges, not {}", row.crashes, job.charges),
            );
        }
        Ok(())
    }

    /// Jobs that a full list does not show, and that have not been forgotten or evicted by right.
    ///
    /// # Errors
    /// One is missing that cannot have ended, or more than were evicted.
    pub fn missing(&self, now: Now, listed: &[JobRow], evicted: u64) -> Verdict {
        let rows: BTreeSet<JobId> = listed.iter().map(|row| row.job).collect();
        let (mut unexplained, mut last) = (0, JobId(0));
        // A daemon that ends has put durable jobs off.
        let is_put_off = |job: &KnownJob| self.stopping && job.durable || job.forget_asked;
        let known = self.jobs.iter().filter(|(_, job)| !is_put_off(job));
        for (id, job) in known.filter(|(id, job)| !job.forgotten && !rows.contains(id)) {
            let left = has_left(job, &self.gone, now, self.vanished_ns);
            if !job.may_be_over(self.stopping, left)
                || job.offer.is_some() && job.offer_life == job.life && job.end.is_none()
            {
                return broken("lost", format!("job {id} is not listed, and it has not ended"));
            }
            let done = job.end.as_ref().is_none_or(|end| end.outcome == Outcome::Done);
            let streamed = job.attached && done && (job.received || !job.held);
            let expired = self.pauses.ran_ns(job.not_over_ns(), now.mono_ns) >= self.keep_ns;
            unexplained += u64::from(!streamed && !expired);
            last = if !streamed && !expired { *id } else { last };
        }
        if unexplained > evicted {
            return broken(
                "lost",
                format!(
                    "{unexplained} jobs are gone, and {evicted} were evicted; the last of them is job {last}"
                ),
            );
        }
        Ok(())
    }
}

impl JobOracle {
    /// All replies were read: a result that its client has received is not kept any more.
    ///
    /// # Errors
    /// One is.
    pub fn kept(&self, rows: &[JobRow]) -> Verdict {
        match rows.iter().find(|row| self.jobs.get(&row.job).is_some_and(|job| job.received)) {
            Some(row) => broken("receipts", format!("its client has received it, and it is kept: {row:?}")),
            None => Ok(()),
        }
    }
}

/// Whether a job's client vanished so long ago that its attached jobs are cancelled.
fn has_left(job: &KnownJob, gone: &BTreeMap<ClientId, u64>, now: Now, vanished_ns: u64) -> bool {
    job.attached && gone.get(&job.client).is_some_and(|at| now.mono_ns >= at + vanished_ns)
}

/// Whether a job, or a part of it, that has lived and run for so long can have ended like that.
fn is_sound(
    job: &KnownJob,
    outcome: &Outcome,
    (lived_ns, ran_ns): (u64, u64),
    left: bool,
    stopping: bool,
) -> bool {
    let retries = u32::from(job.policy.retry_budget()) + 1;
    let ran_ms = ran_ns / 1_000_000;
    match outcome {
        Outcome::Done => !job.reports.is_empty(),
        Outcome::Failed { .. } => job.failures.0 <= retries && retries <= job.failures.1,
        Outcome::Crashed { crashes, .. } => {
            job.charges == u32::from(job.policy.crash_budget()) && u32::from(*crashes) == job.charges
        }
        Outcome::TimedOut { limit: TimeLimit::Wall, limit_ms, .. } => {
            job.policy.timeout_ms == Some(*limit_ms) && job.offers > 0 && ran_ms >= *limit_ms
        }
        Outcome::TimedOut { limit: TimeLimit::NoProgress, limit_ms, .. } => {
            job.policy.no_progress_ms == Some(*limit_ms) && job.offers > 0 && ran_ms >= *limit_ms
        }
        // How much it used is judged where its worker is killed for it: `limits`.
        Outcome::TimedOut { limit: TimeLimit::Cpu, limit_ms, .. } => {
            job.policy.cpu_ms == Some(*limit_ms) && job.offers > 0 && ran_ms > 0
        }
        // How long its program was stopped is judged by `programs`.
        Outcome::TimedOut { limit: TimeLimit::ProgramStopped, limit_ms, .. } => {
            job.offers > 0 && ran_ms >= *limit_ms
        }
        Outcome::Cancelled => {
            let has_begun = job.offer.is_some() || job.planned.is_some();
            job.cancel && !(job.waits_only && has_begun) || left
        }
        Outcome::Expired => {
            !job.begun && job.policy.expires_ms.is_some_and(|limit_ms| lived_ns >= limit_ms * 1_000_000)
        }
        Outcome::Lost { .. } => stopping,
    }
}

/// Whether an output that was there is gone since, to make room.
fn has_gone(before: &(JobOutput, Option<OutputId>), shown: &(JobOutput, Option<OutputId>)) -> bool {
    match (&before.0, &shown.0) {
        (JobOutput::Descriptor { bytes }, JobOutput::Gone(gone)) => *bytes == gone.bytes,
        _ => false,
    }
}

fn is_same(report: &TaskResult, shown: &(JobOutput, Option<OutputId>)) -> bool {
    match (report, shown) {
        (TaskResult::Inline(one), (JobOutput::Inline(other), None))
        | (TaskResult::Failed { output: Leftover::Inline(one), .. }, (JobOutput::Inline(other), None)) => {
            one == other
        }
        (
            TaskResult::Held { output, bytes } | TaskResult::InArena { output, bytes },
            (JobOutput::Descriptor { bytes: shown }, Some(attached)),
        ) => output == attached && bytes == shown,
        // It went to make room.
        (
            TaskResult::Held { bytes, .. }
            | TaskResult::InArena { bytes, .. }
            | TaskResult::Failed { output: Leftover::Held { bytes, .. }, .. },
            (JobOutput::Gone(gone), None),
        ) => *bytes == gone.bytes,
        (TaskResult::Failed { output: Leftover::Nothing, .. }, (JobOutput::None, None)) => true,
        (
            TaskResult::Failed { output: Leftover::Held { output, bytes }, .. },
            (JobOutput::Descriptor { bytes: shown }, Some(attached)),
        ) => output == attached && bytes == shown,
        _ => false,
    }
}
