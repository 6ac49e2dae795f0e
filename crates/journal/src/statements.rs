//! The prepared statements of the writer: each is parsed once for each connection.
//!
//! They borrow the connection, so both go together when a commit has failed. Driven by `apply.rs`.

use rusqlite::{Connection, OptionalExtension, Params, Row, Statement};

use crate::rows::{COUNTS, SharedFields};

/// All statements that store facts.
#[derive(Debug)]
pub(crate) struct Statements<'a> {
    pub(crate) begin: Statement<'a>,
    pub(crate) commit: Statement<'a>,
    pub(crate) insert_submit: Statement<'a>,
    pub(crate) key_holder: Statement<'a>,
    pub(crate) submit_at: Statement<'a>,
    pub(crate) drop_submit: Statement<'a>,
    pub(crate) insert_job: Statement<'a>,
    pub(crate) take_job: Statement<'a>,
    pub(crate) has_job: Statement<'a>,
    pub(crate) insert_input: Statement<'a>,
    pub(crate) drop_input: Statement<'a>,
    pub(crate) input_bytes: Statement<'a>,
    pub(crate) insert_result: Statement<'a>,
    pub(crate) take_result: Statement<'a>,
    pub(crate) has_result: Statement<'a>,
    pub(crate) insert_attempt: Statement<'a>,
    pub(crate) orphan_attempts: Statement<'a>,
    pub(crate) drop_attempt: Statement<'a>,
    pub(crate) touch_epoch: Statement<'a>,
    pub(crate) end_epoch: Statement<'a>,
    pub(crate) add_kept: Statement<'a>,
    pub(crate) set_number: Statement<'a>,
}

impl<'a> Statements<'a> {
    /// Prepares all of them.
    ///
    /// # Errors
    /// SQLite's: a table is missing, or the database cannot be read.
    pub(crate) fn prepare(connection: &'a Connection) -> rusqlite::Result<Self> {
        let new = |sql: &str| connection.prepare(sql);
        let shared = SharedFields::COLUMNS;
        let values = |count: usize| vec!["?"; count].join(", ");
        Ok(Self {
            begin: new("BEGIN IMMEDIATE")?,
            commit: new("COMMIT")?,
            insert_submit: new(&format!("INSERT INTO submit VALUES ({})", values(12)))?,
            key_holder: new("SELECT first, count, digest FROM submit WHERE uid = ? AND key = ?")?,
            submit_at: new(&format!(
                "SELECT {shared} FROM submit WHERE first <= ? ORDER BY first DESC LIMIT 1"
            ))?,
            drop_submit: new("DELETE FROM submit WHERE first = ?1 \
                 AND NOT EXISTS (SELECT 1 FROM job WHERE uid = ?3 AND urgency = ?4 AND id BETWEEN ?1 AND ?2) \
                 AND NOT EXISTS (SELECT 1 FROM result WHERE job BETWEEN ?1 AND ?2)")?,
            insert_job: new(&format!("INSERT INTO job VALUES ({})", values(14)))?,
            take_job: new(&format!(
                "DELETE FROM job WHERE uid = ? AND urgency = ? AND id = ? RETURNING {COUNTS}, expires_us"
            ))?,
            has_job: new("SELECT 1 FROM job WHERE uid = ? AND urgency = ? AND id = ?")?,
            insert_input: new("INSERT INTO input VALUES (?, ?, ?)")?,
            drop_input: new("DELETE FROM input WHERE job = ?")?,
            input_bytes: new("SELECT length(bytes) FROM input WHERE job = ?")?,
            insert_result: new(&format!("INSERT INTO result VALUES ({})", values(22)))?,
            take_result: new("DELETE FROM result WHERE job = ? RETURNING \
                 fence, 0, attempts, crashes, retries, lost, lost_since, asked, alone, bytes")?,
            has_result: new("SELECT outcome = 'done' FROM result WHERE job = ?")?,
            insert_attempt: new(&format!("INSERT INTO attempt VALUES (NULL, {}, 0)", values(9)))?,
            orphan_attempts: new("UPDATE attempt SET is_orphan = 1 WHERE job = ?")?,
            drop_attempt: new("DELETE FROM attempt WHERE id = ? RETURNING uid, \
                 length(CAST(message AS BLOB)), length(CAST(death AS BLOB))")?,
            touch_epoch: new(
                "UPDATE epoch SET commits = ?, seen_us = ?, seen_boot_us = ?, doubted_until_us = ? WHERE number = ?",
            )?,
            end_epoch: new("UPDATE epoch SET ended_us = ? WHERE number = ?")?,
            add_kept: new("INSERT INTO kept VALUES (?1, ?2, ?3) ON CONFLICT(uid) DO UPDATE \
                 SET jobs = jobs + ?2, bytes = bytes + ?3")?,
            set_number: new("INSERT OR REPLACE INTO number VALUES (?, ?)")?,
        })
    }
}

/// The first row of a query, if there is one.
///
/// # Errors
/// SQLite's.
pub(crate) fn first<T>(
    statement: &mut Statement<'_>,
    params: impl Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Option<T>> {
    statement.query_row(params, read).optional()
}
