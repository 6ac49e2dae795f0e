//! One fact, as statements: it fits the rows and changes them, or it does not fit and changes nothing.
//!
//! Runs inside the writer's transaction. A fact about a job finds the job's row by its submit, whose jobs have consecutive
//! numbers; facts that follow each other are mostly of one submit, so the last one found is remembered. What each fact does
//! to a job's counts stands in `bulkhead_facts::durable_job`.

use std::collections::BTreeMap;
use std::rc::Rc;

use bulkhead_facts::Misfit;
use bulkhead_facts::durable_job::DurableJob;
use bulkhead_facts::fact::{AcceptedJobs, AttemptEnd, DurableEnd, EndedAttempt, Fact};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::ids::{Fence, JobId};
use rusqlite::params;

use crate::rows::{self, COUNTS_WIDTH, SharedFields, counts_of};
use crate::statements::{Statements, first};

/// About the bytes that the row of an ended job, or of an attempt, takes besides its output or its texts.
const ROW_BYTES: i64 = 96;

/// Why a fact was not applied.
#[derive(Debug)]
pub(crate) enum ApplyError {
    /// It does not fit. Nothing is changed.
    Misfit(Misfit),
    /// The database cannot do it; the transaction has to be undone.
    Database(rusqlite::Error),
}

impl From<Misfit> for ApplyError {
    fn from(misfit: Misfit) -> Self {
        Self::Misfit(misfit)
    }
}

impl From<rusqlite::Error> for ApplyError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

type Applied = Result<(), ApplyError>;

/// Applies the facts of one transaction.
#[derive(Debug)]
pub(crate) struct Applier<'a> {
    pub(crate) statements: Statements<'a>,
    /// The submit of the last fact.
    last: Option<Rc<SharedFields>>,
    /// What users have more or less in ended jobs, and in bytes of these and of attempts, since the transaction began.
    kept: BTreeMap<u32, (i64, i64)>,
    /// The epoch that `EpochEnded` ends.
    epoch: u64,
}

impl<'a> Applier<'a> {
    /// An applier for the epoch with this number.
    pub(crate) fn new(statements: Statements<'a>, epoch: u64) -> Self {
        Self { statements, last: None, kept: BTreeMap::new(), epoch }
    }

    /// Forgets what it remembers: the transaction was undone, or begins.
    pub(crate) fn reset(&mut self) {
        self.last = None;
        self.kept.clear();
    }

    /// Applies one fact.
    ///
    /// # Errors
    /// [`ApplyError`].
    pub(crate) fn apply(&mut self, fact: &Fact) -> Applied {
        match fact {
            // The opening of the journal has written the row of the run.
            Fact::Epoch(_) => Ok(()),
            Fact::EpochEnded { at_us } => {
                self.statements.end_epoch.execute(params![at_us, self.epoch])?;
                Ok(())
            }
            Fact::Accepted(accepted) => self.accept(accepted),
            Fact::Started { job, fence, .. } => {
                self.change(*job, |counts| counts.start(*job, *fence)).map(|_| ())
            }
            Fact::AttemptEnded(ended) => self.end_attempt(ended),
            Fact::Ended(end) => self.end(end),
            Fact::Retried { job, expires_us, .. } => self.retry(*job, *expires_us),
            Fact::Forgotten { job } => self.evict(&[*job]),
            Fact::Evicted { jobs } => self.evict(jobs),
        }
    }

    /// Writes what each user has more or less, at the end of a transaction.
    ///
    /// # Errors
    /// SQLite's.
    pub(crate) fn write_kept(&mut self) -> rusqlite::Result<()> {
        for (uid, (jobs, bytes)) in std::mem::take(&mut self.kept) {
            self.statements.add_kept.execute(params![uid, jobs, bytes])?;
        }
        Ok(())
    }

    /// Removes attempts by the numbers of their rows.
    ///
    /// # Errors
    /// SQLite's.
    pub(crate) fn drop_attempts(&mut self, ids: &[i64]) -> rusqlite::Result<()> {
        for id in ids {
            let dropped = first(&mut self.statements.drop_attempt, params![id], |row| {
                let [message, death] = [row.get(1)?, row.get(2)?].map(Option::<i64>::unwrap_or_default);
                Ok((row.get(0)?, message + death))
            })?;
            if let Some((uid, bytes)) = dropped {
                self.count_kept(uid, 0, -(ROW_BYTES + bytes));
            }
        }
        Ok(())
    }

    fn accept(&mut self, accepted: &AcceptedJobs) -> Applied {
        let count = accepted.count();
        let (start, end) = (accepted.first.0, accepted.first.0 + u64::from(count) - 1);
        let key = accepted.key.as_ref().map(|key| key.as_bytes());
        if let Some(key) = key {
            let holder = first(&mut self.statements.key_holder, params![accepted.uid, key], |row| {
                Ok((row.get::<_, u64>(0)?, row.get::<_, u32>(1)?, row.get::<_, Vec<u8>>(2)?))
            })?;
            if let Some((first, count, digest)) = holder {
                let is_same = digest == accepted.digest.0;
                return Err(Misfit::KeyTaken { first: JobId(first), count, is_same }.into());
            }
        }
        let before = first(&mut self.statements.submit_at, params![end], SharedFields::of)?;
        if let Some(known) = before.filter(|known| known.first.0 + u64::from(known.count) > start) {
            return Err(Misfit::Known(JobId(known.first.0.max(start))).into());
        }
        let urgency = rows::urgency(&accepted.policy);
        let policy = rows::json(&accepted.policy);
        let AcceptedJobs { uid, digest, kind, pool, flavour, accepted_us, expires_us, .. } = accepted;
        self.statements.insert_submit.execute(params![
            start,
            count,
            uid,
            key,
            digest.0,
            kind,
            pool,
            flavour,
            policy,
            urgency,
            accepted_us,
            expires_us
        ])?;
        let shared = SharedFields { first: accepted.first, count, uid: *uid, urgency, kind: kind.clone() };
        for (job, input) in (start..).zip(&accepted.inputs) {
            self.insert_job(&shared, JobId(job), &DurableJob::default(), None)?;
            let bytes = input.as_bytes();
            self.statements.insert_input.execute(params![job, rows::checksum(bytes), bytes])?;
        }
        self.last = Some(Rc::new(shared));
        Ok(())
    }

    fn insert_job(
        &mut self,
        shared: &SharedFields,
        job: JobId,
        counts: &DurableJob,
        expires_us: Option<u64>,
    ) -> rusqlite::Result<()> {
        let DurableJob {
            fence: Fence(fence),
            is_open,
            attempts,
            crashes,
            retries,
            lost,
            lost_since,
            asked,
            alone,
        } = counts;
        let SharedFields { first, uid, urgency, .. } = shared;
        self.statements.insert_job.execute(params![
            uid, urgency, job.0, first.0, fence, is_open, attempts, crashes, retries, lost, lost_since,
            asked, alone, expires_us
        ])?;
        Ok(())
    }

    /// The submit of a job.
    fn submit_of(&mut self, job: JobId) -> Result<Rc<SharedFields>, ApplyError> {
        if let Some(last) = self.last.as_ref().filter(|last| last.has(job)) {
            return Ok(Rc::clone(last));
        }
        let found = first(&mut self.statements.submit_at, params![job.0], SharedFields::of)?;
        let found = found.filter(|found| found.has(job)).ok_or(Misfit::Unknown(job))?;
        let found = Rc::new(found);
        self.last = Some(Rc::clone(&found));
        Ok(found)
    }

    /// The submit of a job that is there, ended or not.
    fn submit_of_known(&mut self, job: JobId) -> Result<Rc<SharedFields>, ApplyError> {
        let shared = self.submit_of(job)?;
        if !self.has_ended(job)? {
            let key = params![shared.uid, shared.urgency, job.0];
            first(&mut self.statements.has_job, key, |_| Ok(()))?.ok_or(Misfit::Unknown(job))?;
        }
        Ok(shared)
    }

    /// Takes the row of a job that has not ended.
    fn take(&mut self, job: JobId, shared: &SharedFields) -> Result<(DurableJob, Option<u64>), ApplyError> {
        let key = params![shared.uid, shared.urgency, job.0];
        let found = first(&mut self.statements.take_job, key, |row| {
            Ok((counts_of(row, 0)?, row.get::<_, Option<u64>>(COUNTS_WIDTH)?))
        })?;
        match found {
            Some(found) => Ok(found),
            None if self.has_ended(job)? => Err(Misfit::HasEnded(job).into()),
            None => Err(Misfit::Unknown(job).into()),
        }
    }

    fn has_ended(&mut self, job: JobId) -> rusqlite::Result<bool> {
        Ok(self.is_done(job)?.is_some())
    }

    /// Whether an ended job is done.
    fn is_done(&mut self, job: JobId) -> rusqlite::Result<Option<bool>> {
        first(&mut self.statements.has_result, params![job.0], |row| row.get(0))
    }

    /// Changes the counts of a job that has not ended.
    fn change(
        &mut self,
        job: JobId,
        step: impl FnOnce(&mut DurableJob) -> Result<(), Misfit>,
    ) -> Result<Rc<SharedFields>, ApplyError> {
        let shared = self.submit_of(job)?;
        let (mut counts, expires_us) = self.take(job, &shared)?;
        // A step that does not fit has changed nothing: the row goes back as it was.
        let fits = step(&mut counts);
        self.insert_job(&shared, job, &counts, expires_us)?;
        fits?;
        Ok(shared)
    }

    fn end_attempt(&mut self, ended: &EndedAttempt) -> Applied {
        let EndedAttempt { job, fence, number, how, at_us, message, death } = ended;
        let shared = match how {
            AttemptEnd::Uncharged => self.submit_of_known(*job)?,
            _ => self.change(*job, |counts| counts.end_attempt(*job, *fence, *how))?,
        };
        let death = death.as_ref().map(rows::json);
        self.statements.insert_attempt.execute(params![
            job.0,
            fence.0,
            number,
            shared.uid,
            shared.kind,
            how.word(),
            at_us,
            message,
            death
        ])?;
        let texts = message.as_ref().map_or(0, String::len) + death.as_ref().map_or(0, String::len);
        self.count_kept(shared.uid, 0, ROW_BYTES + texts as i64);
        Ok(())
    }

    fn end(&mut self, end: &DurableEnd) -> Applied {
        let (job, shared) = (end.job, self.submit_of(end.job)?);
        let (mut counts, expires_us) = self.take(job, &shared)?;
        if let Err(misfit) = counts.end(job, end.fence) {
            self.insert_job(&shared, job, &counts, expires_us)?;
            return Err(misfit.into());
        }
        let input_bytes = if end.outcome == Outcome::Done {
            self.statements.drop_input.execute(params![job.0])?;
            0
        } else {
            first(&mut self.statements.input_bytes, params![job.0], |row| row.get::<_, i64>(0))?.unwrap_or(0)
        };
        let (cause, detail) = rows::cause_of(end);
        let output = end.output.as_ref().map(|output| output.as_bytes());
        let texts = cause.as_ref().map_or(0, String::len) + detail.as_ref().map_or(0, String::len);
        let bytes = ROW_BYTES + input_bytes + (output.map_or(0, <[u8]>::len) + texts) as i64;
        let DurableJob {
            fence: Fence(fence),
            attempts,
            crashes,
            retries,
            lost,
            lost_since,
            asked,
            alone,
            ..
        } = counts;
        self.statements.insert_result.execute(params![
            job.0,
            shared.first.0,
            shared.uid,
            shared.kind,
            end.outcome.word(),
            end.at_us,
            end.started_us,
            end.waited_us,
            end.ran_us,
            end.fence.map(|fence| fence.0),
            fence,
            attempts,
            crashes,
            retries,
            lost,
            lost_since,
            asked,
            alone,
            bytes,
            cause,
            detail,
            output
        ])?;
        self.count_kept(shared.uid, 1, bytes);
        Ok(())
    }

    fn retry(&mut self, job: JobId, expires_us: Option<u64>) -> Applied {
        let shared = self.submit_of(job)?;
        if self.is_done(job)? == Some(true) {
            return Err(Misfit::IsDone(job).into());
        }
        let mut counts = self.take_result(job, &shared)?;
        counts.retry();
        self.insert_job(&shared, job, &counts, expires_us)?;
        Ok(())
    }

    fn evict(&mut self, jobs: &[JobId]) -> Applied {
        for job in jobs {
            let shared = self.submit_of(*job)?;
            if !self.has_ended(*job)? {
                return Err(self.misfit_of_missing_result(*job, &shared)?.into());
            }
        }
        for job in jobs {
            let shared = self.submit_of(*job)?;
            self.take_result(*job, &shared)?;
            self.statements.drop_input.execute(params![job.0])?;
            self.statements.orphan_attempts.execute(params![job.0])?;
            let last = shared.first.0 + u64::from(shared.count) - 1;
            let row = params![shared.first.0, last, shared.uid, shared.urgency];
            if self.statements.drop_submit.execute(row)? > 0 {
                self.last = None;
            }
        }
        Ok(())
    }

    /// Takes the result of a job; its counts.
    fn take_result(&mut self, job: JobId, shared: &SharedFields) -> Result<DurableJob, ApplyError> {
        let taken = first(&mut self.statements.take_result, params![job.0], |row| {
            Ok((counts_of(row, 0)?, row.get::<_, i64>(COUNTS_WIDTH)?))
        })?;
        let Some((counts, bytes)) = taken else {
            return Err(self.misfit_of_missing_result(job, shared)?.into());
        };
        self.count_kept(shared.uid, -1, -bytes);
        Ok(counts)
    }

    fn misfit_of_missing_result(&mut self, job: JobId, shared: &SharedFields) -> rusqlite::Result<Misfit> {
        let key = params![shared.uid, shared.urgency, job.0];
        let goes_on = first(&mut self.statements.has_job, key, |_| Ok(()))?.is_some();
        Ok(if goes_on { Misfit::NotEnded(job) } else { Misfit::Unknown(job) })
    }

    fn count_kept(&mut self, uid: u32, jobs: i64, bytes: i64) {
        let kept = self.kept.entry(uid).or_default();
        *kept = (kept.0 + jobs, kept.1 + bytes);
    }
}
