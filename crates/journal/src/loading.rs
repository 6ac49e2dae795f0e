//! Unfinished jobs of earlier runs, chunk by chunk: users by turns, each user's most urgent first, and of those the oldest.
//!
//! So among what is loaded a user's jobs stand in the order in which they are to run, and no user waits until another one's jobs are
//! all loaded. Inputs are not among them: [`JournalReader::input`] reads one. Jobs of the run that loads are left out. A job whose row,
//! or that of its submit, the disk has changed is named beside the others and keeps none of them from its turn.
//!
//! A chunk is older than what the writer stores meanwhile, and a job in it may have ended since. So a chunk says how many transactions
//! of this run its snapshot has, as each `JournalAnswer::Stored` does. The daemon remembers an end of a job that it has not loaded until
//! a chunk has at least the transactions of that answer, and leaves out the jobs of earlier chunks that it remembers or knows.

use std::collections::{BTreeMap, VecDeque};

use bulkhead_facts::durable_job::DurableJob;
use bulkhead_proto::ids::JobId;
use rusqlite::{OptionalExtension, Row, params};

use crate::bounds::LOAD_CHUNK;
use crate::reader::{JournalReader, StoredSubmit};
use crate::rows::{COUNTS, COUNTS_WIDTH, counts_of, is_of_row};

/// How far the loading has come.
#[derive(Clone, Debug)]
pub struct Loading {
    /// Job numbers of this run begin here.
    end: JobId,
    /// Users with jobs that are not loaded, who is next first, each with the last job that is.
    users: VecDeque<(u32, LastLoaded)>,
    /// Whether a chunk was loaded.
    is_begun: bool,
}

impl Loading {
    /// Whether a chunk was loaded.
    pub(crate) fn is_begun(&self) -> bool {
        self.is_begun
    }

    /// Whether all jobs are loaded.
    pub(crate) fn is_over(&self) -> bool {
        self.users.is_empty()
    }
}

#[derive(Clone, Copy, Debug)]
struct LastLoaded {
    urgency: i64,
    id: u64,
}

/// A job that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnfinishedJob {
    /// The job.
    pub job: JobId,
    /// The first job of its submit.
    pub submit: JobId,
    /// Its counts.
    pub counts: DurableJob,
    /// When it expires if it has no attempt until then.
    pub expires_us: Option<u64>,
}

/// A chunk of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnfinishedChunk {
    /// The jobs; none of them and none that is damaged: all are loaded.
    pub jobs: Vec<UnfinishedJob>,
    /// Jobs whose rows cannot be read, each with the reason, as a text for people.
    pub damaged: Vec<(JobId, String)>,
    /// How many transactions of this run are in the snapshot that they were read from.
    pub commits: u64,
    /// Their submits, by the first job.
    pub submits: BTreeMap<JobId, StoredSubmit>,
}

impl UnfinishedChunk {
    /// How many jobs were looked at.
    fn len(&self) -> usize {
        self.jobs.len() + self.damaged.len()
    }

    /// Adds the job of a row. Its number comes from the caller.
    fn add(&mut self, job: JobId, row: &Row<'_>) -> rusqlite::Result<()> {
        let first = JobId(row.get(0)?);
        let shared = match self.submits.get(&first) {
            Some(known) => known,
            None => self.submits.entry(first).or_insert(StoredSubmit::of(row)?),
        };
        let counts = counts_of(row, StoredSubmit::WIDTH)?;
        let own_us: Option<u64> = row.get(StoredSubmit::WIDTH + COUNTS_WIDTH)?;
        let expires_us = if counts.asked > 0 { own_us } else { shared.shared.expires_us };
        self.jobs.push(UnfinishedJob { job, submit: first, counts, expires_us });
        Ok(())
    }
}

impl JournalReader {
    /// Begins to load; `end` is the first job number of this run.
    ///
    /// # Errors
    /// SQLite's.
    pub fn loading(&self, end: JobId) -> rusqlite::Result<Loading> {
        let mut users = VecDeque::new();
        let mut after = -1;
        // One step of the index for each user, not for each job.
        let sql = "SELECT uid FROM job WHERE uid > ? ORDER BY uid LIMIT 1";
        let mut statement = self.connection.prepare(sql)?;
        while let Some(uid) = statement.query_row([after], |row| row.get::<_, u32>(0)).optional()? {
            users.push_back((uid, LastLoaded { urgency: -1, id: 0 }));
            after = i64::from(uid);
        }
        Ok(Loading { end, users, is_begun: false })
    }

    /// The next chunk: at most [`LOAD_CHUNK`] jobs.
    ///
    /// # Errors
    /// SQLite's. The loading is then where it was, and may go on.
    pub fn load(&self, loading: &mut Loading) -> rusqlite::Result<UnfinishedChunk> {
        let reading = self.connection.unchecked_transaction()?;
        let (chunk, next) = self.load_in_snapshot(loading, LOAD_CHUNK)?;
        reading.finish()?;
        *loading = next;
        Ok(chunk)
    }

    /// The next chunk of at most `most` jobs, and how far the loading has come with it. The caller has begun a transaction.
    pub(crate) fn load_in_snapshot(
        &self,
        loading: &Loading,
        most: usize,
    ) -> rusqlite::Result<(UnfinishedChunk, Loading)> {
        let mut next = loading.clone();
        next.is_begun = true;
        let users = &mut next.users;
        let sql = "SELECT commits FROM epoch ORDER BY number DESC LIMIT 1";
        let commits = self.connection.query_row(sql, [], |row| row.get(0))?;
        let mut chunk = UnfinishedChunk { commits, ..UnfinishedChunk::default() };
        while chunk.len() < most
            && let Some((uid, last)) = users.pop_front()
        {
            let room = most - chunk.len();
            // What the users that are left come to, so that each has its turn in each chunk while that is possible.
            let share = room.div_ceil(users.len() + 1);
            let loaded = self.load_of_user(&mut chunk, (uid, last), loading.end, share)?;
            if let Some(last) = loaded {
                users.push_back((uid, last));
            }
        }
        Ok((chunk, next))
    }

    /// Loads at most `most` jobs of a user; the last one, unless there are no more.
    fn load_of_user(
        &self,
        chunk: &mut UnfinishedChunk,
        (uid, mut last): (u32, LastLoaded),
        end: JobId,
        most: usize,
    ) -> rusqlite::Result<Option<LastLoaded>> {
        let (submit, place) = (StoredSubmit::COLUMNS, StoredSubmit::WIDTH + COUNTS_WIDTH + 1);
        let sql = format!(
            "SELECT {submit}, {COUNTS}, job.expires_us, job.urgency, id FROM job JOIN submit ON first = job.submit \
             WHERE job.uid = ? AND (job.urgency, id) > (?, ?) AND id < ? ORDER BY job.urgency, id LIMIT ?"
        );
        let mut statement = self.connection.prepare(&sql)?;
        let mut rows = statement.query(params![uid, last.urgency, last.id, end.0, most])?;
        let mut count = 0;
        while let Some(row) = rows.next()? {
            last = LastLoaded { urgency: row.get(place)?, id: row.get(place + 1)? };
            let job = JobId(last.id);
            match chunk.add(job, row) {
                Ok(()) => {}
                Err(error) if is_of_row(&error) => {
                    let why = format!("the row of the job or that of its submit is damaged: {error}");
                    chunk.damaged.push((job, why));
                }
                Err(error) => return Err(error),
            }
            count += 1;
        }
        Ok((count == most).then_some(last))
    }

    /// How many jobs of earlier runs have not ended. Takes time in proportion to their number.
    ///
    /// # Errors
    /// SQLite's.
    pub fn count_unfinished(&self, end: JobId) -> rusqlite::Result<u64> {
        self.connection.query_row("SELECT count(*) FROM job WHERE id < ?", [end.0], |row| row.get(0))
    }
}
