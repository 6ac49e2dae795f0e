//! What goes next: ended jobs and attempts of jobs that are gone, those that are too old, and the oldest of the user with most of them
//! while there are too many.
//!
//! Only looks and says; `writer.rs` removes them, in steps with a transaction each, so that no commit waits long. A job that has not
//! ended is never among them, nor an attempt of a job that is there.

use bulkhead_proto::ids::JobId;
use rusqlite::{Connection, Params, params};

use crate::settings::KeepRules;

/// What one step removes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NextToGo {
    /// Ended jobs.
    Jobs(Vec<JobId>),
    /// Attempts of jobs that are gone, by the numbers of their rows.
    Attempts(Vec<i64>),
}

/// What goes next, at most so many rows; `None`: everything may stay. `wall_us` is `None` while the wall clock is not believed.
///
/// # Errors
/// SQLite's.
pub(crate) fn next_to_go(
    connection: &Connection,
    keep: &KeepRules,
    wall_us: Option<u64>,
    most: usize,
) -> rusqlite::Result<Option<NextToGo>> {
    if let Some(wall_us) = wall_us {
        let before_us = wall_us.saturating_sub(keep.age_max_us);
        let sql = "SELECT job FROM result WHERE at_us < ? ORDER BY at_us LIMIT ?";
        let old = ids(connection, sql, params![before_us, most])?;
        if !old.is_empty() {
            return Ok(Some(NextToGo::Jobs(old.into_iter().map(job_of).collect())));
        }
        let sql = "SELECT id FROM attempt WHERE is_orphan AND at_us < ? ORDER BY at_us LIMIT ?";
        let old = ids(connection, sql, params![before_us, most])?;
        if !old.is_empty() {
            return Ok(Some(NextToGo::Attempts(old)));
        }
    }
    let (all_jobs, all_bytes): (u64, u64) = connection.query_row(
        "SELECT coalesce(sum(jobs), 0), coalesce(sum(bytes), 0) FROM kept",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    if all_jobs > keep.jobs_max {
        let sql = "SELECT job FROM result WHERE uid = (SELECT uid FROM kept ORDER BY jobs DESC, uid LIMIT 1) \
                   ORDER BY at_us LIMIT ?";
        let count = (all_jobs - keep.jobs_max).min(most as u64);
        let jobs = ids(connection, sql, [count])?;
        return Ok(Some(NextToGo::Jobs(jobs.into_iter().map(job_of).collect())));
    }
    if all_bytes > keep.bytes_max {
        return most_bytes(connection, all_bytes - keep.bytes_max, most);
    }
    Ok(None)
}

/// The oldest of the user with most bytes, until they come to so many bytes: attempts of jobs that are gone before ended jobs. A user
/// whose bytes are all in attempts of unfinished jobs is passed over.
fn most_bytes(connection: &Connection, bytes: u64, most: usize) -> rusqlite::Result<Option<NextToGo>> {
    let users = ids(connection, "SELECT uid FROM kept WHERE bytes > 0 ORDER BY bytes DESC, uid", [])?;
    for uid in users {
        let sql = "SELECT id, length(CAST(message AS BLOB)), length(CAST(death AS BLOB)) FROM attempt \
                   WHERE is_orphan AND uid = ? ORDER BY at_us LIMIT ?";
        let attempts = until(connection, sql, params![uid, most], bytes)?;
        if !attempts.is_empty() {
            return Ok(Some(NextToGo::Attempts(attempts)));
        }
        let sql = "SELECT job, bytes, 0 FROM result WHERE uid = ? ORDER BY at_us LIMIT ?";
        let jobs = until(connection, sql, params![uid, most], bytes)?;
        if !jobs.is_empty() {
            return Ok(Some(NextToGo::Jobs(jobs.into_iter().map(job_of).collect())));
        }
    }
    Ok(None)
}

/// When the oldest of all that goes by its age ended; `None`: there is none.
///
/// # Errors
/// SQLite's.
pub(crate) fn oldest_us(connection: &Connection) -> rusqlite::Result<Option<u64>> {
    let sql = "SELECT min(at_us) FROM (SELECT * FROM (SELECT at_us FROM result ORDER BY at_us LIMIT 1) \
               UNION ALL SELECT * FROM (SELECT at_us FROM attempt WHERE is_orphan ORDER BY at_us LIMIT 1))";
    connection.query_row(sql, [], |row| row.get(0))
}

/// The numbers in the first column, until the second and third come to so many bytes.
fn until(connection: &Connection, sql: &str, params: impl Params, bytes: u64) -> rusqlite::Result<Vec<i64>> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query(params)?;
    let (mut found, mut sum) = (Vec::new(), 0_u64);
    while sum < bytes
        && let Some(row) = rows.next()?
    {
        found.push(row.get(0)?);
        let lengths = [row.get(1)?, row.get(2)?].map(Option::<u64>::unwrap_or_default);
        sum += lengths[0] + lengths[1];
    }
    Ok(found)
}

fn ids(connection: &Connection, sql: &str, params: impl Params) -> rusqlite::Result<Vec<i64>> {
    let mut statement = connection.prepare(sql)?;
    let found = statement.query_map(params, |row| row.get(0))?;
    found.collect()
}

fn job_of(id: i64) -> JobId {
    JobId(id.unsigned_abs())
}
