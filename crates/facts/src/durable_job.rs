//! The durable part of a job that has not ended, and what each fact does to it.
//!
//! The fold and the journal's rows take the same steps. A step that returns an error has changed nothing. An attempt is known by
//! its fence: its end counts once, because a second one has an old fence.

use bulkhead_proto::ids::{Fence, JobId};

use crate::Misfit;
use crate::fact::AttemptEnd;

/// What is durable of a job besides the fields that it shares with the jobs of its submit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DurableJob {
    /// The highest fence of an attempt that is known.
    pub fence: Fence,
    /// Whether that attempt was started and has no end yet.
    pub is_open: bool,
    /// Attempts.
    pub attempts: u32,
    /// Deaths charged to it since it was accepted, or since the last request to run it again.
    pub crashes: u8,
    /// Failures that its own code reported, since the same moment.
    pub retries: u8,
    /// Attempts that were lost.
    pub lost: u32,
    /// Those of them since the same moment as `crashes` and `retries`: the budget that `lost_max` bounds.
    pub lost_since: u32,
    /// How often a client asked to run it again.
    pub asked: u32,
    /// Whether it runs alone in a worker that has run nothing.
    pub alone: bool,
}

impl DurableJob {
    /// An attempt is about to be offered.
    ///
    /// # Errors
    /// [`Misfit::OldFence`], [`Misfit::AttemptOpen`].
    pub fn start(&mut self, job: JobId, fence: Fence) -> Result<(), Misfit> {
        if fence <= self.fence {
            return Err(Misfit::OldFence { job, fence, known: self.fence });
        }
        if self.is_open {
            return Err(Misfit::AttemptOpen(job));
        }
        self.fence = fence;
        self.is_open = true;
        self.attempts = self.attempts.saturating_add(1);
        Ok(())
    }

    /// An attempt ended, and the job goes on. [`AttemptEnd::Uncharged`] changes nothing.
    ///
    /// # Errors
    /// [`Misfit::OldFence`]: it has ended before. [`Misfit::AttemptOpen`], [`Misfit::NotStarted`].
    pub fn end_attempt(&mut self, job: JobId, fence: Fence, how: AttemptEnd) -> Result<(), Misfit> {
        if how == AttemptEnd::Uncharged {
            return Ok(());
        }
        if how == AttemptEnd::GivenBack && !(self.is_open && fence == self.fence) {
            return Err(Misfit::NotStarted(job));
        }
        if !(self.is_open && fence == self.fence) {
            self.start(job, fence)?;
        }
        self.is_open = false;
        match how {
            AttemptEnd::Charged => {
                self.crashes = self.crashes.saturating_add(1);
                self.alone = true;
            }
            AttemptEnd::Failed => self.retries = self.retries.saturating_add(1),
            AttemptEnd::Lost => {
                self.lost = self.lost.saturating_add(1);
                self.lost_since = self.lost_since.saturating_add(1);
            }
            // It never began. Its fence stays, because no two offers have the same one.
            AttemptEnd::GivenBack => self.attempts = self.attempts.saturating_sub(1),
            AttemptEnd::Uncharged => {}
        }
        Ok(())
    }

    /// The job ended, by the attempt with this fence if one was with a worker.
    ///
    /// # Errors
    /// [`Misfit::OldFence`], [`Misfit::AttemptOpen`].
    pub fn end(&mut self, job: JobId, fence: Option<Fence>) -> Result<(), Misfit> {
        if let Some(fence) = fence
            && fence != self.fence
        {
            self.start(job, fence)?;
        }
        self.is_open = false;
        Ok(())
    }

    /// A client asked to run it again: its budgets are fresh. `alone` stays, because what killed its workers before may do so
    /// again.
    pub fn retry(&mut self) {
        self.crashes = 0;
        self.retries = 0;
        self.lost_since = 0;
        self.asked = self.asked.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: JobId = JobId(7);

    #[test]
    fn the_end_of_an_attempt_counts_once() {
        let mut job = DurableJob::default();
        job.end_attempt(JOB, Fence(1), AttemptEnd::Charged).unwrap();
        let charged = job;
        for how in [AttemptEnd::Charged, AttemptEnd::Failed, AttemptEnd::Lost] {
            let misfit = job.end_attempt(JOB, Fence(1), how).unwrap_err();
            assert_eq!(misfit, Misfit::OldFence { job: JOB, fence: Fence(1), known: Fence(1) });
            assert_eq!(job, charged);
        }
        assert_eq!((job.attempts, job.crashes, job.alone), (1, 1, true));
        job.end(JOB, Some(Fence(1))).unwrap();
        assert_eq!(job.attempts, 1, "the attempt that quarantined it counts once");
    }

    #[test]
    fn a_started_attempt_is_counted_at_its_start() {
        let mut job = DurableJob::default();
        job.start(JOB, Fence(3)).unwrap();
        assert_eq!(job.start(JOB, Fence(4)), Err(Misfit::AttemptOpen(JOB)));
        assert_eq!(job.end_attempt(JOB, Fence(4), AttemptEnd::Lost), Err(Misfit::AttemptOpen(JOB)));
        job.end_attempt(JOB, Fence(3), AttemptEnd::Lost).unwrap();
        assert_eq!((job.attempts, job.lost, job.lost_since), (1, 1, 1));
        assert_eq!((job.fence, job.is_open), (Fence(3), false));
        job.start(JOB, Fence(4)).unwrap();
        job.end(JOB, Some(Fence(4))).unwrap();
        assert_eq!((job.attempts, job.is_open), (2, false));
    }

    #[test]
    fn an_offer_that_is_given_back_is_no_attempt() {
        let mut job = DurableJob::default();
        assert_eq!(job.end_attempt(JOB, Fence(1), AttemptEnd::GivenBack), Err(Misfit::NotStarted(JOB)));
        job.start(JOB, Fence(1)).unwrap();
        job.end_attempt(JOB, Fence(1), AttemptEnd::GivenBack).unwrap();
        assert_eq!((job.attempts, job.fence), (0, Fence(1)));
        assert!(job.start(JOB, Fence(1)).is_err());
    }

    #[test]
    fn counts_that_are_full_stay_full() {
        let mut job =
            DurableJob { crashes: u8::MAX, retries: u8::MAX, lost: u32::MAX, ..DurableJob::default() };
        for (fence, how) in [(1, AttemptEnd::Charged), (2, AttemptEnd::Failed), (3, AttemptEnd::Lost)] {
            job.end_attempt(JOB, Fence(fence), how).unwrap();
        }
        assert_eq!((job.crashes, job.retries, job.lost, job.lost_since), (u8::MAX, u8::MAX, u32::MAX, 1));
    }

    #[test]
    fn a_retry_has_fresh_budgets_and_stays_alone() {
        let mut job = DurableJob::default();
        job.end_attempt(JOB, Fence(1), AttemptEnd::Charged).unwrap();
        job.end_attempt(JOB, Fence(2), AttemptEnd::Failed).unwrap();
        job.end_attempt(JOB, Fence(3), AttemptEnd::Lost).unwrap();
        assert_eq!(job.lost_since, 1);
        job.retry();
        let left = DurableJob {
            fence: Fence(3),
            attempts: 3,
            lost: 1,
            asked: 1,
            alone: true,
            ..DurableJob::default()
        };
        assert_eq!(job, left);
    }
}
