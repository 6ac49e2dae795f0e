//! One connection of the writer, from its opening to the first commit that fails: transactions, and copies of the log.
//!
//! Each transaction counts in the row of the run, so that after a failed commit the next session can tell whether the transaction did
//! get into the database. The files are looked at before and after each. Driven by `writer.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bulkhead_sys::clock;
use rusqlite::{Connection, ErrorCode, params};

use crate::apply::{Applier, ApplyError};
use crate::bounds::{CHECKPOINT_PAGES, LOCK_PATIENCE, PAGE_BYTES};
use crate::clock_rule::ClockRule;
use crate::connection;
use crate::statements::Statements;
use crate::watched_files::WatchedFiles;

/// Bytes before the first page of the log, and before each page of it.
const LOG_HEAD_BYTES: u64 = 32;
const LOG_PAGE_HEAD_BYTES: u64 = 24;

/// A transaction that failed.
#[derive(Debug)]
pub(crate) struct FailedCommit {
    /// Why, as a text for people.
    pub(crate) why: String,
    /// Whether it may be in the database nevertheless.
    pub(crate) is_unsure: bool,
}

impl FailedCommit {
    fn sure(error: impl Into<ApplyError>) -> Self {
        let why = match error.into() {
            ApplyError::Misfit(misfit) => misfit.to_string(),
            ApplyError::Database(error) => in_words(error),
        };
        Self { why, is_unsure: false }
    }

    /// The commit itself failed. SQLite writes the page that makes the transaction count last: on a full disk it was not written.
    fn of_commit(error: rusqlite::Error) -> Self {
        let is_unsure = error.sqlite_error_code() != Some(ErrorCode::DiskFull);
        Self { why: in_words(error), is_unsure }
    }
}

/// An error of SQLite as a text for people.
pub(crate) fn in_words(error: rusqlite::Error) -> String {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy) => {
            format!("another program has locked the database for {} s", LOCK_PATIENCE.as_secs())
        }
        Some(ErrorCode::DiskFull) => "the disk is full".to_owned(),
        _ => error.to_string(),
    }
}

/// The pages in the log after the last commit.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogPages(Arc<AtomicU32>);

impl LogPages {
    /// Counts those of a connection from now on.
    ///
    /// # Errors
    /// SQLite's.
    pub(crate) fn count(&self, connection: &mut Connection) -> rusqlite::Result<()> {
        let pages = Arc::clone(&self.0);
        connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, count: i32| {
            pages.store(u32::try_from(count).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))
    }
}

/// The connection with all that belongs to it.
#[derive(Debug)]
pub(crate) struct WriteSession<'a> {
    connection: &'a Connection,
    applier: Applier<'a>,
    files: WatchedFiles,
    pages: LogPages,
    epoch: u64,
    /// Transactions of this run in the database.
    commits: u64,
}

impl<'a> WriteSession<'a> {
    /// The session of a connection whose files are watched. `commits`: the transactions of this run that it has.
    ///
    /// # Errors
    /// SQLite's.
    pub(crate) fn new(
        connection: &'a Connection,
        files: WatchedFiles,
        pages: LogPages,
        (epoch, commits): (u64, u64),
    ) -> rusqlite::Result<Self> {
        let applier = Applier::new(Statements::prepare(connection)?, epoch);
        Ok(Self { connection, applier, files, pages, epoch, commits })
    }

    /// How many transactions of this run are in the database.
    pub(crate) fn commits(&self) -> u64 {
        self.commits
    }

    /// Runs `body` in a transaction, which is durable when this returns. The row of the run gets both clocks as `clock` sees them, and
    /// what `clock` doubts.
    ///
    /// # Errors
    /// [`FailedCommit`]: the session has to end.
    pub(crate) fn transaction<T>(
        &mut self,
        clock: &mut ClockRule,
        body: impl FnOnce(&mut Applier<'a>) -> Result<T, ApplyError>,
    ) -> Result<T, FailedCommit> {
        self.files.check(0).map_err(|why| FailedCommit { why, is_unsure: false })?;
        let Self { applier, epoch, commits, .. } = self;
        applier.reset();
        applier.statements.begin.execute([]).map_err(FailedCommit::sure)?;
        let value = body(applier).map_err(FailedCommit::sure)?;
        clock.look(clock::wall_us(), clock::boot_us());
        let (wall_us, boot_us) = clock.seen_us();
        let touch = params![*commits + 1, wall_us, boot_us, clock.doubted_until_us(), *epoch];
        applier.statements.touch_epoch.execute(touch).map_err(FailedCommit::sure)?;
        applier.write_kept().map_err(FailedCommit::sure)?;
        applier.statements.commit.execute([]).map_err(FailedCommit::of_commit)?;
        let pages = u64::from(self.pages.0.load(Ordering::Relaxed));
        let log_bytes = LOG_HEAD_BYTES + pages * (LOG_PAGE_HEAD_BYTES + u64::from(PAGE_BYTES));
        self.files.check(log_bytes).map_err(|why| FailedCommit { why, is_unsure: true })?;
        *commits += 1;
        Ok(value)
    }

    /// Copies the log into the database once it is long. What readers still need stays in the log.
    ///
    /// # Errors
    /// Why not, as a text for people.
    pub(crate) fn copy_long_log(&mut self) -> Result<(), String> {
        if self.pages.0.load(Ordering::Relaxed) < CHECKPOINT_PAGES {
            return Ok(());
        }
        self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).map_err(in_words)?;
        self.files.log_was_copied()
    }

    /// Copies all of the log into the database, and empties it.
    ///
    /// # Errors
    /// Why not, as a text for people: also if another program needs the log, or locks the database, for longer than a second.
    pub(crate) fn empty_log(&mut self) -> Result<(), String> {
        if !connection::empty_log(self.connection).map_err(in_words)? {
            return Err(
                "another program reads or locks the database, so its log cannot be emptied".to_owned()
            );
        }
        self.pages.0.store(0, Ordering::Relaxed);
        self.files.log_was_emptied()
    }

    /// Gives free pages back to the file system.
    ///
    /// # Errors
    /// Why not, as a text for people.
    pub(crate) fn vacuum(&mut self, pages: u32) -> Result<(), String> {
        let sql = format!("PRAGMA incremental_vacuum({pages})");
        let mut statement = self.connection.prepare(&sql).map_err(in_words)?;
        let mut rows = statement.query([]).map_err(in_words)?;
        while rows.next().map_err(in_words)?.is_some() {}
        Ok(())
    }

    /// The connection, to look something up.
    pub(crate) fn connection(&self) -> &'a Connection {
        self.connection
    }
}
