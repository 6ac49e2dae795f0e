//! One job by its number, for a question of a client: the job, or what is known of its number.
//!
//! A job whose rows are damaged is an answer of its own, so that it keeps no other job of a question from being read.

use bulkhead_proto::ids::JobId;

use crate::opening::EarlierRun;
use crate::reader::{JournalReader, StoredJob};

/// What there is of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SoughtJob {
    /// The job.
    Stored(Box<StoredJob>),
    /// Nothing; the run that may have given out its number.
    Nothing(Option<EarlierRun>),
    /// Rows that cannot be read. Why, as a text for people.
    Damaged(String),
}

impl JournalReader {
    /// Looks up these jobs, in this order.
    ///
    /// # Errors
    /// SQLite's: nothing can be read.
    pub fn look_up(&self, jobs: &[JobId]) -> rusqlite::Result<Vec<SoughtJob>> {
        jobs.iter().map(|job| self.look_up_one(*job)).collect()
    }

    fn look_up_one(&self, job: JobId) -> rusqlite::Result<SoughtJob> {
        match self.job(job) {
            Ok(Some(stored)) => Ok(SoughtJob::Stored(Box::new(stored))),
            Ok(None) => self.run_of(job).map(SoughtJob::Nothing),
            Err(error @ rusqlite::Error::FromSqlConversionFailure(..)) => {
                Ok(SoughtJob::Damaged(error.to_string()))
            }
            Err(error) => Err(error),
        }
    }
}
