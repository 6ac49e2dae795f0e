//! The connection that reads, which a thread of its own drives: one job by its number, and pages of ended jobs and deaths.
//!
//! It never writes and never holds up a commit. Each call is a transaction of its own: no snapshot stays open between two pages, so
//! that the log can be emptied. A page ends when it is full or after 50 ms, whichever comes first, with a cursor for the next one;
//! an SQLite progress handler interrupts what takes longer.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bulkhead_facts::durable_job::DurableJob;
use bulkhead_facts::fact::{AcceptedJobs, EndedAttempt};
use bulkhead_facts::submit_key::{DIGEST_BYTES, SubmitDigest, SubmitKey};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::view::{DeathRow, JobRow};
use bulkhead_proto::ids::JobId;
use bulkhead_proto::job::{JobState, Payload};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Params, Row, Statement, params};

use crate::bounds::SLICE;
use crate::connection;
use crate::opening::{EARLIER_RUN, EarlierRun, earlier_run_of};
use crate::place::JournalPlace;
use crate::rows::{self, ATTEMPT, COUNTS, COUNTS_WIDTH, StoredEnd, attempt_of, counts_of};

/// Steps of SQLite's machine between two looks at the clock.
const STEPS_BETWEEN_LOOKS: i32 = 1000;

/// A journal, to be read.
#[derive(Debug)]
pub struct JournalReader {
    pub(crate) connection: Connection,
    deadline: Deadline,
}

/// When the progress handler interrupts a statement.
#[derive(Clone, Debug, Default)]
struct Deadline(Arc<Mutex<Option<Instant>>>);

/// A deadline that is set, until this is dropped.
struct SetDeadline<'a>(&'a Deadline);

impl Drop for SetDeadline<'_> {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Deadline {
    fn set(&self, at: Instant) -> SetDeadline<'_> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
        SetDeadline(self)
    }

    fn is_over(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|at| at <= Instant::now())
    }
}

/// A submit, without the inputs of its jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSubmit {
    /// Its fields; `inputs` is empty.
    pub shared: AcceptedJobs,
    /// How many jobs it had.
    pub count: u32,
}

impl StoredSubmit {
    /// The columns of [`Self::of`], in its order.
    pub(crate) const COLUMNS: &str = "first, count, submit.uid, key, digest, submit.kind, pool, flavour, policy, accepted_us, submit.expires_us";
    /// How many they are.
    pub(crate) const WIDTH: usize = 11;

    pub(crate) fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        let key: Option<Vec<u8>> = row.get(3)?;
        let digest: [u8; DIGEST_BYTES] = row.get(4)?;
        let shared = AcceptedJobs {
            first: JobId(row.get(0)?),
            uid: row.get(2)?,
            key: key.and_then(|key| SubmitKey::new(&key).ok()),
            digest: SubmitDigest(digest),
            kind: row.get(5)?,
            pool: row.get(6)?,
            flavour: row.get(7)?,
            policy: rows::from_json(row, 8)?,
            accepted_us: row.get(9)?,
            expires_us: row.get(10)?,
            inputs: Vec::new(),
        };
        Ok(Self { shared, count: row.get(1)? })
    }

    /// Whether the job is one of it.
    fn has(&self, job: JobId) -> bool {
        (self.shared.first.0..self.shared.first.0 + u64::from(self.count)).contains(&job.0)
    }
}

/// Everything that the journal has of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredJob {
    /// The job.
    pub job: JobId,
    /// Its submit.
    pub submit: StoredSubmit,
    /// Its counts.
    pub counts: DurableJob,
    /// When it expires if it has no attempt until then.
    pub expires_us: Option<u64>,
    /// Its input, unless it is done.
    pub input: Option<Payload>,
    /// Its end.
    pub end: Option<StoredEnd>,
    /// Its attempts that ended without it, oldest first.
    pub attempts: Vec<EndedAttempt>,
}

/// Where the next page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageCursor {
    at_us: u64,
    id: u64,
}

/// Which ended jobs a page has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndedFilter {
    /// Those of this user alone.
    pub uid: Option<u32>,
    /// Those that did not end `done` alone.
    pub is_not_done: bool,
}

/// A page of rows, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalPage<T> {
    /// The rows; none: the time was over before one was found.
    pub rows: Vec<T>,
    /// Jobs whose rows would be among them and cannot be read.
    pub unreadable: Vec<JobId>,
    /// Where the next page begins; `None`: there is none.
    pub next: Option<PageCursor>,
}

/// A row of a page as it was read.
struct PageRow<T> {
    cursor: PageCursor,
    job: JobId,
    /// `None`: it is passed over.
    value: rusqlite::Result<Option<T>>,
}

/// A table that is checked after a run that did not end by itself: all but the inputs, which are checked when they are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckedTable {
    /// Submits.
    Submits,
    /// Jobs that have not ended.
    Jobs,
    /// Ended jobs.
    Results,
    /// Attempts.
    Attempts,
}

impl CheckedTable {
    /// Its name in the database.
    fn name(self) -> &'static str {
        match self {
            Self::Submits => "submit",
            Self::Jobs => "job",
            Self::Results => "result",
            Self::Attempts => "attempt",
        }
    }
}

impl JournalReader {
    /// Opens the journal in a folder, which [`crate::opening::OpenJournal::open`] has opened before.
    ///
    /// # Errors
    /// SQLite's.
    pub fn open(folder: &Path) -> rusqlite::Result<Self> {
        let folder = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
        let mut connection = connection::to_read(&JournalPlace::new(&folder).database)?;
        let deadline = Deadline::default();
        let looked_at = deadline.clone();
        connection.progress_handler(STEPS_BETWEEN_LOOKS, Some(move || looked_at.is_over()))?;
        Ok(Self { connection, deadline })
    }

    /// The first row of a query about one job.
    fn one<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> rusqlite::Result<Option<T>> {
        self.connection.query_row(sql, params, read).optional()
    }

    /// How a job ended, and its output. `None`: it has not ended, or is not known.
    ///
    /// # Errors
    /// SQLite's.
    pub fn result(&self, job: JobId) -> rusqlite::Result<Option<StoredEnd>> {
        let sql = format!(
            "SELECT {} FROM result JOIN submit ON first = result.submit WHERE job = ?",
            StoredEnd::COLUMNS
        );
        self.one(&sql, [job.0], StoredEnd::of)
    }

    /// Everything about a job. `None`: it is not known.
    ///
    /// # Errors
    /// SQLite's. [`rusqlite::Error::FromSqlConversionFailure`]: its input is damaged or missing.
    pub fn job(&self, job: JobId) -> rusqlite::Result<Option<StoredJob>> {
        // One snapshot for all of it: the job may end meanwhile.
        let reading = self.connection.unchecked_transaction()?;
        let found = self.job_in_snapshot(job);
        reading.finish()?;
        found
    }

    fn job_in_snapshot(&self, job: JobId) -> rusqlite::Result<Option<StoredJob>> {
        let Some(submit) = self.submit_of(job)? else { return Ok(None) };
        let end = self.result(job)?;
        let (counts, expires_us) = match &end {
            Some(end) => (end.counts, submit.shared.expires_us),
            None => {
                let sql =
                    format!("SELECT {COUNTS}, expires_us FROM job WHERE uid = ? AND urgency = ? AND id = ?");
                let key = params![submit.shared.uid, rows::urgency(&submit.shared.policy), job.0];
                let found = self.one(&sql, key, |row| Ok((counts_of(row, 0)?, row.get(COUNTS_WIDTH)?)))?;
                let Some((counts, own_us)) = found else { return Ok(None) };
                (counts, if counts.asked > 0 { own_us } else { submit.shared.expires_us })
            }
        };
        let is_done = end.as_ref().is_some_and(|end| end.end.outcome == Outcome::Done);
        let input = if is_done { None } else { Some(self.input(job)?) };
        let attempts = self.attempts(job)?;
        Ok(Some(StoredJob { job, submit, counts, expires_us, input, end, attempts }))
    }

    /// The submit of a job, if a job of it is left.
    fn submit_of(&self, job: JobId) -> rusqlite::Result<Option<StoredSubmit>> {
        let sql = format!(
            "SELECT {} FROM submit WHERE first <= ? ORDER BY first DESC LIMIT 1",
            StoredSubmit::COLUMNS
        );
        Ok(self.one(&sql, [job.0], StoredSubmit::of)?.filter(|submit| submit.has(job)))
    }

    /// The input of a job that is not done.
    ///
    /// # Errors
    /// SQLite's. [`rusqlite::Error::FromSqlConversionFailure`]: the disk has changed it, or its row is missing.
    pub fn input(&self, job: JobId) -> rusqlite::Result<Payload> {
        input_by(&mut self.prepare_input()?, job)
    }

    /// The statement of [`input_by`].
    pub(crate) fn prepare_input(&self) -> rusqlite::Result<Statement<'_>> {
        self.connection.prepare("SELECT checksum, bytes FROM input WHERE job = ?")
    }

    pub(crate) fn attempts(&self, job: JobId) -> rusqlite::Result<Vec<EndedAttempt>> {
        let sql = format!("SELECT {ATTEMPT} FROM attempt WHERE job = ? ORDER BY id");
        let mut statement = self.connection.prepare(&sql)?;
        let found = statement.query_map([job.0], attempt_of)?;
        found.collect()
    }

    /// The submit that a user's key names.
    ///
    /// # Errors
    /// SQLite's.
    pub fn submit_of_key(&self, uid: u32, key: &SubmitKey) -> rusqlite::Result<Option<StoredSubmit>> {
        let sql = format!("SELECT {} FROM submit WHERE uid = ? AND key = ?", StoredSubmit::COLUMNS);
        self.one(&sql, params![uid, key.as_bytes()], StoredSubmit::of)
    }

    /// The run of the daemon that may have given out a job's number; `None`: no run has.
    ///
    /// # Errors
    /// SQLite's.
    pub fn run_of(&self, job: JobId) -> rusqlite::Result<Option<EarlierRun>> {
        let sql = format!("SELECT {EARLIER_RUN} FROM epoch WHERE next_job <= ? ORDER BY number DESC LIMIT 1");
        self.one(&sql, [job.0], earlier_run_of)
    }

    /// A page of ended jobs, those that ended last first: at most `most`, from this cursor on.
    ///
    /// # Errors
    /// SQLite's.
    pub fn ended(
        &self,
        filter: EndedFilter,
        after: Option<PageCursor>,
        most: usize,
    ) -> rusqlite::Result<JournalPage<JobRow>> {
        let sql = ended_sql(filter);
        let start = start_of(after);
        self.page(&sql, params![start.at_us, start.id, filter.uid], most, |row| {
            let job = JobId(row.get(1)?);
            let cursor = PageCursor { at_us: row.get(0)?, id: job.0 };
            let value = ended_row(row, job).map(|row| {
                let is_wanted = !filter.is_not_done || row.outcome.as_deref() != Some(Outcome::Done.word());
                is_wanted.then_some(row)
            });
            Ok(PageRow { cursor, job, value })
        })
    }

    /// A page of deaths, newest first, of a user or of all: at most `most`, from this cursor on.
    ///
    /// # Errors
    /// SQLite's.
    pub fn deaths(
        &self,
        uid: Option<u32>,
        after: Option<PageCursor>,
        most: usize,
    ) -> rusqlite::Result<JournalPage<DeathRow>> {
        let start = start_of(after);
        // Every row is looked at, so that the cursor gets on over attempts of others and without a death.
        let sql = "SELECT id, job, kind, uid, death FROM attempt WHERE id < ? ORDER BY id DESC";
        self.page(sql, params![start.id], most, |row| {
            let (of, has_death) =
                (row.get::<_, u32>(3)?, row.get_ref(4)?.data_type() != rusqlite::types::Type::Null);
            let job = JobId(row.get(1)?);
            let value = if has_death && uid.is_none_or(|uid| uid == of) {
                death_row(row, job, of).map(Some)
            } else {
                Ok(None)
            };
            Ok(PageRow { cursor: PageCursor { at_us: 0, id: row.get(0)? }, job, value })
        })
    }

    /// Checks one table, and not its inputs: what SQLite finds wrong with it, as a text for people. Takes time in proportion to its
    /// size, and keeps the log from being emptied meanwhile. SQLite cannot do it in parts: it needs a reader and a thread of its own,
    /// because no other read of this reader begins before it returns.
    ///
    /// # Errors
    /// SQLite's. [`ErrorCode::DatabaseCorrupt`]: the database is damaged too.
    pub fn check_table(&self, table: CheckedTable) -> rusqlite::Result<Option<String>> {
        let sql = format!("PRAGMA quick_check({})", table.name());
        let found: String = self.connection.query_row(&sql, [], |row| row.get(0))?;
        Ok((found != "ok").then_some(found))
    }

    /// Reads rows until the page is full, none is left or the time is over. A row may be passed over, and one whose value cannot be
    /// read does not end the page.
    fn page<T>(
        &self,
        sql: &str,
        params: impl Params,
        most: usize,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<PageRow<T>>,
    ) -> rusqlite::Result<JournalPage<T>> {
        self.page_within(SLICE, sql, params, most, read)
    }

    fn page_within<T>(
        &self,
        slice: Duration,
        sql: &str,
        params: impl Params,
        most: usize,
        read: impl Fn(&Row<'_>) -> rusqlite::Result<PageRow<T>>,
    ) -> rusqlite::Result<JournalPage<T>> {
        let mut statement = self.connection.prepare(sql)?;
        let mut rows = statement.query(params)?;
        let (mut found, mut last) = (Vec::new(), None);
        let mut unreadable = Vec::new();
        let _set = self.deadline.set(Instant::now() + slice);
        let next = loop {
            match rows.next() {
                Ok(None) => break None,
                Ok(Some(_)) if found.len() + unreadable.len() == most => break last,
                Ok(Some(row)) => {
                    let PageRow { cursor, job, value } = read(row)?;
                    last = Some(cursor);
                    match value {
                        Ok(value) => found.extend(value),
                        Err(_) => unreadable.push(job),
                    }
                }
                // With at least one row looked at, the next page gets on from there.
                Err(error)
                    if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted)
                        && last.is_some() =>
                {
                    break last;
                }
                Err(error) => return Err(error),
            }
            if self.deadline.is_over() && last.is_some() {
                break last;
            }
        };
        Ok(JournalPage { rows: found, unreadable, next })
    }
}

/// The input of a job that is not done, by the statement of [`JournalReader::prepare_input`].
///
/// # Errors
/// As [`JournalReader::input`].
pub(crate) fn input_by(statement: &mut Statement<'_>, job: JobId) -> rusqlite::Result<Payload> {
    let read = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?));
    let found = statement.query_row([job.0], read).optional()?;
    let what = match found {
        Some((checksum, bytes)) if checksum == rows::checksum(&bytes) => return Ok(Payload::from(bytes)),
        Some(_) => "damaged",
        None => "missing",
    };
    let why = format!("the input of job {job} is {what}");
    Err(rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Blob, why.into()))
}

fn ended_row(row: &Row<'_>, job: JobId) -> rusqlite::Result<JobRow> {
    Ok(JobRow {
        job,
        kind: row.get(2)?,
        state: JobState::Ended,
        outcome: row.get(3)?,
        attempts: row.get(4)?,
        crashes: row.get(5)?,
        uid: row.get(6)?,
        accepted_us: row.get(7)?,
    })
}

fn death_row(row: &Row<'_>, job: JobId, uid: u32) -> rusqlite::Result<DeathRow> {
    Ok(DeathRow { job, kind: row.get(2)?, uid, death: rows::from_json(row, 4)? })
}

/// The statement of a page of ended jobs: an index has the order, so that a page takes no longer for a later cursor.
fn ended_sql(filter: EndedFilter) -> String {
    let which = match filter {
        // Those that are done are passed over row by row, so that the cursor gets on over any number of them.
        EndedFilter { uid: Some(_), .. } => "result.uid = ?3",
        EndedFilter { uid: None, is_not_done: true } => "?3 IS NULL AND outcome <> 'done'",
        EndedFilter { uid: None, is_not_done: false } => "?3 IS NULL",
    };
    format!(
        "SELECT at_us, job, result.kind, outcome, attempts, crashes, result.uid, accepted_us \
         FROM result JOIN submit ON first = result.submit \
         WHERE {which} AND at_us <= ?1 AND (at_us, job) < (?1, ?2) ORDER BY at_us DESC, job DESC"
    )
}

/// The cursor, or that of the first page.
fn start_of(after: Option<PageCursor>) -> PageCursor {
    const END: u64 = i64::MAX as u64;
    after.unwrap_or(PageCursor { at_us: END, id: END })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::opening::OpenJournal;
    use crate::settings::JournalSettings;

    /// A reader of a journal with so many attempts of one job, and no more.
    fn reader(folder: &Path, attempts: u32) -> JournalReader {
        let settings = JournalSettings { room_min_bytes: 0, ..JournalSettings::new(folder, "0") };
        let journal = OpenJournal::open(settings).unwrap();
        for fence in 1..=attempts {
            let sql = "INSERT INTO attempt VALUES (NULL, 1, ?, 1, 7, 'a', 'lost', 5, NULL, NULL, 0)";
            journal.connection.execute(sql, [fence]).unwrap();
        }
        drop(journal);
        JournalReader::open(folder).unwrap()
    }

    #[test]
    fn an_index_has_the_order_of_every_list() {
        let folder = tempfile::tempdir().unwrap();
        let reader = reader(folder.path(), 0);
        for (uid, is_not_done, index) in [
            (None, false, "result_end"),
            (None, true, "result_not_done"),
            (Some(7), false, "result_user"),
            (Some(7), true, "result_user"),
        ] {
            let sql = format!("EXPLAIN QUERY PLAN {}", ended_sql(EndedFilter { uid, is_not_done }));
            let mut statement = reader.connection.prepare(&sql).unwrap();
            let steps = statement.query_map(params![5, 5, uid], |row| row.get::<_, String>(3)).unwrap();
            let steps: Vec<String> = steps.map(|step| step.unwrap()).collect();
            assert!(steps[0].contains(&format!("USING INDEX {index} ")), "{steps:?}");
            assert!(!steps.iter().any(|step| step.contains("B-TREE")), "{steps:?}");
        }
    }

    #[test]
    fn a_page_whose_time_is_over_gets_on_by_a_row() {
        let folder = tempfile::tempdir().unwrap();
        let reader = reader(folder.path(), 10);
        let (mut after, mut pages) = (None, 0);
        loop {
            let start = start_of(after);
            let sql = "SELECT id, fence FROM attempt WHERE id < ? ORDER BY id DESC";
            let page = reader.page_within(Duration::ZERO, sql, [start.id], 100, |row| {
                let cursor = PageCursor { at_us: 0, id: row.get(0)? };
                Ok(PageRow { cursor, job: JobId(1), value: row.get::<_, u32>(1).map(Some) })
            });
            let page = page.unwrap();
            after = page.next;
            if after.is_none() {
                assert!(page.rows.is_empty());
                break;
            }
            assert_eq!(page.rows, [10 - pages]);
            pages += 1;
        }
        assert_eq!(pages, 10);
        for table in
            [CheckedTable::Submits, CheckedTable::Jobs, CheckedTable::Results, CheckedTable::Attempts]
        {
            assert_eq!(reader.check_table(table).unwrap(), None);
        }
    }

    #[test]
    fn a_statement_that_takes_for_ever_is_interrupted() {
        let folder = tempfile::tempdir().unwrap();
        let reader = reader(folder.path(), 0);
        let sql =
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n WHERE x < 0";
        let begun = Instant::now();
        let found = reader.page(sql, [], 1, |row| {
            let cursor = PageCursor { at_us: 0, id: row.get(0)? };
            Ok(PageRow { cursor, job: JobId(1), value: Ok(Some(())) })
        });
        assert_eq!(found.unwrap_err().sqlite_error_code(), Some(ErrorCode::OperationInterrupted));
        assert!(begun.elapsed() >= SLICE);
        let cheap = reader.connection.query_row("SELECT 1", [], |row| row.get::<_, u32>(0));
        assert_eq!(cheap.unwrap(), 1, "the next statement has time again");
    }

    #[test]
    fn a_row_that_cannot_be_read_ends_no_page_and_leaves_no_deadline() {
        let folder = tempfile::tempdir().unwrap();
        let reader = reader(folder.path(), 10);
        let sql = "SELECT id FROM attempt WHERE id < ? ORDER BY id DESC";
        let read = |row: &Row<'_>| {
            let cursor = PageCursor { at_us: 0, id: row.get(0)? };
            let value = if cursor.id == 9 { Err(rusqlite::Error::InvalidQuery) } else { Ok(Some(cursor.id)) };
            Ok(PageRow { cursor, job: JobId(cursor.id), value })
        };
        let page = reader.page(sql, [99], 3, read).unwrap();
        assert_eq!((page.rows, page.unreadable), (vec![10, 8], vec![JobId(9)]));
        assert_eq!(page.next, Some(PageCursor { at_us: 0, id: 8 }));
        let broken = |_: &Row<'_>| -> rusqlite::Result<PageRow<()>> { Err(rusqlite::Error::InvalidQuery) };
        reader.page_within(Duration::ZERO, sql, [99], 3, broken).unwrap_err();
        assert!(!reader.deadline.is_over(), "the next statement has time again");
    }
}
