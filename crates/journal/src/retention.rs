//! Which ended jobs go next: those that are too old, and the oldest of the user with most of them while there are too many.
//!
//! Only looks and says; `writer.rs` removes them, in steps with a transaction each, so that no commit waits long. A job that has not
//! ended is never among them.

use bulkhead_proto::ids::JobId;
use rusqlite::{Connection, OptionalExtension, params};

use crate::settings::KeepRules;

/// The jobs that go next, at most so many; none: everything may stay. `wall_us` is `None` while the wall clock is not believed.
///
/// # Errors
/// SQLite's.
pub(crate) fn next_to_go(
    connection: &Connection,
    keep: &KeepRules,
    wall_us: Option<u64>,
    most: usize,
) -> rusqlite::Result<Vec<JobId>> {
    if let Some(wall_us) = wall_us {
        let before_us = wall_us.saturating_sub(keep.age_max_us);
        let sql = "SELECT job FROM result WHERE at_us < ? ORDER BY at_us LIMIT ?";
        let old = jobs(connection, sql, params![before_us, most])?;
        if !old.is_empty() {
            return Ok(old);
        }
    }
    let (all_jobs, all_bytes): (u64, u64) = connection.query_row(
        "SELECT coalesce(sum(jobs), 0), coalesce(sum(bytes), 0) FROM kept",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    let over = |all: u64, bound: u64| all.saturating_sub(bound);
    let (jobs_over, bytes_over) = (over(all_jobs, keep.jobs_max), over(all_bytes, keep.bytes_max));
    let column = match (jobs_over, bytes_over) {
        (0, 0) => return Ok(Vec::new()),
        (0, _) => "bytes",
        (_, _) => "jobs",
    };
    // Bytes are made room for job by job: a step may end a little beyond what is needed, never short of progress.
    let count = if jobs_over > 0 {
        jobs_over.min(most as u64)
    } else {
        bytes_over.div_ceil(4096).clamp(1, most as u64)
    };
    let sql = format!(
        "SELECT job FROM result WHERE uid = (SELECT uid FROM kept ORDER BY {column} DESC, uid LIMIT 1) \
         ORDER BY at_us LIMIT ?"
    );
    jobs(connection, &sql, params![count])
}

/// When the oldest ended job ended; `None`: there is none.
///
/// # Errors
/// SQLite's.
pub(crate) fn oldest_us(connection: &Connection) -> rusqlite::Result<Option<u64>> {
    connection.query_row("SELECT at_us FROM result ORDER BY at_us LIMIT 1", [], |row| row.get(0)).optional()
}

/// Attempts of jobs that are gone go by their age alone, with this statement.
pub(crate) const DROP_OLD_ATTEMPTS: &str = "DELETE FROM attempt WHERE id IN (SELECT id FROM attempt WHERE at_us < ?1 \
     AND NOT EXISTS (SELECT 1 FROM result WHERE result.job = attempt.job) ORDER BY id LIMIT ?2)";

fn jobs(connection: &Connection, sql: &str, params: impl rusqlite::Params) -> rusqlite::Result<Vec<JobId>> {
    let mut statement = connection.prepare(sql)?;
    let found = statement.query_map(params, |row| row.get(0).map(JobId))?;
    found.collect()
}
