//! One job by its number, for a question of a client: the job, and what is known of its number.
//!
//! A job whose rows are damaged is an answer of its own, so that it keeps no other job of a question from being read.

use bulkhead_proto::ids::JobId;

use crate::opening::EarlierRun;
use crate::reader::{JournalReader, StoredJob};
use crate::rows::is_of_row;

/// What there is of a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SoughtJob {
    /// The job; `None`: there is none. An error: its rows are damaged, as a text for people says.
    pub job: Result<Option<Box<StoredJob>>, String>,
    /// The run of the daemon that may have given out the number.
    pub run: Option<EarlierRun>,
}

impl JournalReader {
    /// Looks up these jobs, in this order.
    ///
    /// # Errors
    /// SQLite's: nothing can be read.
    pub fn look_up(&self, jobs: &[JobId]) -> rusqlite::Result<Vec<SoughtJob>> {
        jobs.iter().map(|job| self.look_up_one(*job)).collect()
    }

    fn look_up_one(&self, number: JobId) -> rusqlite::Result<SoughtJob> {
        let run = self.run_of(number)?;
        let job = match self.job(number) {
            Ok(job) => Ok(job.map(Box::new)),
            Err(error) if is_of_row(&error) => Err(error.to_string()),
            Err(error) => return Err(error),
        };
        Ok(SoughtJob { job, run })
    }
}
