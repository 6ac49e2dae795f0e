//! A chunk of unfinished jobs with all that they need to run again: their inputs, and the deaths of their attempts.
//!
//! Read in the snapshot of the chunk (`loading.rs`). A job cannot run if the disk has changed its input, its attempts or another row that
//! it needs: it is named beside the others, stays in the database, and keeps no other job from its turn.

use bulkhead_facts::durable_job::DurableJob;
use bulkhead_facts::fact::AcceptedJobs;
use bulkhead_facts::job_to_run::JobToRun;
use bulkhead_proto::client::view::JobDeath;
use bulkhead_proto::ids::JobId;

use crate::bounds::{FIRST_LOAD_CHUNK, LOAD_CHUNK};
use crate::loading::{Loading, UnfinishedChunk, UnfinishedJob};
use crate::reader::{JournalReader, input_by};
use crate::rows::is_of_row;

/// Unfinished jobs of one submit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubmitToRun {
    /// What they share; `inputs` is empty.
    pub submit: AcceptedJobs,
    /// The jobs, in the order in which they are to run.
    pub jobs: Vec<JobToRun>,
}

/// A chunk of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChunkToRun {
    /// The jobs by their submits, in the order in which they are to run.
    pub submits: Vec<SubmitToRun>,
    /// Jobs of the chunk that cannot run, each with the reason, as a text for people.
    pub damaged: Vec<(JobId, String)>,
    /// How many transactions of this run are in the snapshot that they were read from.
    pub commits: u64,
    /// Whether all jobs are loaded with it.
    pub is_last: bool,
}

impl JournalReader {
    /// The next chunk: at most [`LOAD_CHUNK`] jobs, the first one at most [`FIRST_LOAD_CHUNK`].
    ///
    /// # Errors
    /// SQLite's. The loading is then where it was, and may go on.
    pub fn load_to_run(&self, loading: &mut Loading) -> rusqlite::Result<ChunkToRun> {
        let reading = self.connection.unchecked_transaction()?;
        let most = if loading.is_begun() { LOAD_CHUNK } else { FIRST_LOAD_CHUNK };
        let (chunk, next) = self.load_in_snapshot(loading, most)?;
        let mut chunk = self.with_inputs(chunk)?;
        chunk.is_last = next.is_over();
        reading.finish()?;
        *loading = next;
        Ok(chunk)
    }

    fn with_inputs(&self, chunk: UnfinishedChunk) -> rusqlite::Result<ChunkToRun> {
        let UnfinishedChunk { jobs, damaged, commits, submits } = chunk;
        let mut whole = ChunkToRun { commits, damaged, ..ChunkToRun::default() };
        let mut statement = self.prepare_input()?;
        for UnfinishedJob { job, submit, counts, expires_us } in jobs {
            let input = match input_by(&mut statement, job) {
                Ok(input) => input,
                Err(error) if is_of_row(&error) => {
                    whole.damaged.push((job, error.to_string()));
                    continue;
                }
                Err(error) => return Err(error),
            };
            let deaths = match self.deaths_of(job, &counts) {
                Ok(deaths) => deaths,
                Err(error) if is_of_row(&error) => {
                    whole.damaged.push((job, format!("the row of an attempt is damaged: {error}")));
                    continue;
                }
                Err(error) => return Err(error),
            };
            let job = JobToRun { job, counts, expires_us, input, deaths };
            match whole.submits.last_mut() {
                Some(last) if last.submit.first == submit => last.jobs.push(job),
                _ => {
                    let submit = submits[&submit].shared.clone();
                    whole.submits.push(SubmitToRun { submit, jobs: vec![job] });
                }
            }
        }
        Ok(whole)
    }

    fn deaths_of(&self, job: JobId, counts: &DurableJob) -> rusqlite::Result<Vec<JobDeath>> {
        if counts.attempts == 0 {
            return Ok(Vec::new());
        }
        let attempts = self.attempts(job)?;
        Ok(attempts.into_iter().filter_map(|attempt| attempt.death).map(|death| *death).collect())
    }
}
