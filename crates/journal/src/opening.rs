//! The start of a run: the folder and the database are checked, the schema is brought up to date, and the run has its epoch and
//! its numbers, all of it durable before [`OpenJournal::open`] returns.
//!
//! The log of a run that did not end by itself is copied into the database and emptied before anything is added to it: what a failed
//! fsync(2) did not write may be read from memory and still be missing on the disk, and a hole in the log ends it there.
//! A database that is foreign, newer or damaged is left as it is. What a later `writer.rs` finds damaged is its own matter. Blocks
//! while the disk is slow: the daemon has not begun to serve.

use std::path::Path;

use bulkhead_facts::fact::Epoch;
use bulkhead_sys::clock;
use bulkhead_sys::lock::InstanceLock;
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use crate::clock_rule::{ClockRule, ClocksBefore};
use crate::connection;
use crate::fault::{OpenFault, OpenNote};
use crate::numbers::{self, NUMBER_KINDS, NextNumbers, NumberKind};
use crate::place::JournalPlace;
use crate::schema::{self, APPLICATION_ID, STEPS};
use crate::settings::JournalSettings;

/// Where the kernel names the boot of the machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A journal that is open, whose writer has not started yet.
#[derive(Debug)]
pub struct OpenJournal {
    pub(crate) place: JournalPlace,
    pub(crate) lock: InstanceLock,
    pub(crate) settings: JournalSettings,
    pub(crate) connection: Connection,
    pub(crate) clock: ClockRule,
    /// The first number of each kind that is not reserved for this run.
    pub(crate) reserved: NextNumbers,
    first: NextNumbers,
    epoch: Epoch,
    before: Option<EarlierRun>,
    notes: Vec<OpenNote>,
}

/// The run of the daemon before this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EarlierRun {
    /// It.
    pub epoch: Epoch,
    /// When it ended; `None`: it did not end by itself.
    pub ended_us: Option<u64>,
    /// Its last commit.
    pub seen_us: u64,
}

/// Whether a journal is in the folder, or cannot be ruled out: the folder cannot be looked into, or is a link that leads nowhere.
pub fn may_hold_journal(folder: &Path) -> bool {
    JournalPlace::new(folder).may_hold_journal()
}

impl OpenJournal {
    /// Opens the journal in a folder, and begins a run.
    ///
    /// # Errors
    /// [`OpenFault`]. What is there stays as it is, but for a folder that was missing; numbers may be passed over.
    pub fn open(settings: JournalSettings) -> Result<Self, OpenFault> {
        let mut notes = JournalPlace::new(&settings.folder).prepare(settings.room_min_bytes)?;
        // SQLite takes no path with a symbolic link in it.
        let folder = std::fs::canonicalize(&settings.folder)
            .map_err(|error| OpenFault::Io { path: settings.folder.clone(), error })?;
        let place = JournalPlace::new(&folder);
        let lock = place.lock()?;
        let of_file = read_numbers(&place)?;
        let is_new = !std::fs::metadata(&place.database).is_ok_and(|found| found.len() > 0);
        if is_new {
            place.make_database()?;
        }
        let fault = |error| database_fault(&place.database, error);
        let mut connection = connection::to_write(&place.database, is_new).map_err(fault)?;
        check_identity(&connection, &place.database)?;
        connection::keep_log(&connection).map_err(fault)?;
        empty_log(&connection, &place.database)?;
        schema::migrate(&mut connection, &STEPS).map_err(fault)?;
        let before = earlier_run(&connection).map_err(fault)?;
        let of_database = stored_numbers(&connection).map_err(fault)?;
        let first = of_database.max(of_file.unwrap_or_default());
        notes.extend(note_numbers(&place, is_new, of_file, of_database, first));
        let wall_us = clock::wall_us();
        let boot_id = boot_id()?;
        let clocks_before = clocks_before(&connection, &boot_id).map_err(fault)?;
        let clock = ClockRule::new(wall_us, clock::boot_us(), clocks_before);
        if let Some(run) = before.as_ref().filter(|run| run.ended_us.is_none()) {
            notes.push(OpenNote::UncleanEnd { seen_us: run.seen_us });
        }
        if !clock.is_believed() {
            notes.push(OpenNote::ClockJumped);
        }
        let epoch = Epoch {
            number: first.of(NumberKind::Epoch),
            boot_id,
            version: settings.version.clone(),
            pid: std::process::id(),
            started_us: wall_us,
        };
        let reserved = first.with_a_run();
        numbers::write(&place.folder, &place.numbers, &reserved)
            .map_err(|error| OpenFault::Io { path: place.numbers.clone(), error })?;
        if let Err(error) = begin_run(&mut connection, &epoch, &clock, first.of(NumberKind::Job), &reserved) {
            // None was given out. A file that is ahead of the database would make it look like an older copy; if it cannot be put
            // back, only numbers are passed over.
            drop(numbers::write(&place.folder, &place.numbers, &first));
            return Err(fault(error));
        }
        Ok(Self { place, lock, settings, connection, clock, reserved, first, epoch, before, notes })
    }

    /// The first number of each kind that this run may give out; [`crate::bounds::BLOCK`] of each are reserved.
    pub fn first_numbers(&self) -> &NextNumbers {
        &self.first
    }

    /// The folder, without symbolic links.
    pub fn folder(&self) -> &Path {
        &self.place.folder
    }

    /// This run.
    pub fn epoch(&self) -> &Epoch {
        &self.epoch
    }

    /// The run before; `None`: this is the first one.
    pub fn before(&self) -> Option<&EarlierRun> {
        self.before.as_ref()
    }

    /// What people should know.
    pub fn notes(&self) -> &[OpenNote] {
        &self.notes
    }
}

fn read_numbers(place: &JournalPlace) -> Result<Option<NextNumbers>, OpenFault> {
    numbers::read(&place.numbers).map_err(|error| {
        let path = place.numbers.clone();
        match error.kind() {
            std::io::ErrorKind::InvalidData => OpenFault::BadNumbers { path },
            _ => OpenFault::Io { path, error },
        }
    })
}

/// What an error of SQLite says about the database.
pub(crate) fn database_fault(path: &Path, error: rusqlite::Error) -> OpenFault {
    let path = path.to_owned();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => OpenFault::Foreign { path },
        Some(ErrorCode::DatabaseCorrupt) => OpenFault::Damaged { path, why: error.to_string() },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenFault::Locked { path },
        _ => OpenFault::Database { path, error },
    }
}

/// The database is a journal of a version that is known, or empty.
fn check_identity(connection: &Connection, path: &Path) -> Result<(), OpenFault> {
    let fault = |error| database_fault(path, error);
    let id: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(fault)?;
    let version = schema::version(connection).map_err(fault)?;
    let tables: u32 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).map_err(fault)?;
    let known = u32::try_from(STEPS.len()).unwrap_or(u32::MAX);
    if id != APPLICATION_ID && (tables > 0 || id != 0 || version != 0) {
        return Err(OpenFault::Foreign { path: path.to_owned() });
    }
    if version > known {
        return Err(OpenFault::Newer { path: path.to_owned(), version, known });
    }
    Ok(())
}

/// Copies all of the log into the database, and empties it. A log that a reader needs stays, if the last run has ended by itself.
fn empty_log(connection: &Connection, path: &Path) -> Result<(), OpenFault> {
    let fault = |error| database_fault(path, error);
    if connection::empty_log(connection).map_err(fault)? {
        return Ok(());
    }
    let is_clean = schema::version(connection).map_err(fault)? > 0 && {
        let sql = "SELECT ended_us IS NOT NULL FROM epoch ORDER BY number DESC LIMIT 1";
        connection.query_row(sql, [], |row| row.get(0)).optional().map_err(fault)?.unwrap_or(false)
    };
    if is_clean { Ok(()) } else { Err(OpenFault::LogHeld { path: path.to_owned() }) }
}

/// The columns of `epoch` that [`earlier_run_of`] reads.
pub(crate) const EARLIER_RUN: &str = "number, boot_id, version, pid, started_us, ended_us, seen_us";

pub(crate) fn earlier_run_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<EarlierRun> {
    let epoch = Epoch {
        number: row.get(0)?,
        boot_id: row.get(1)?,
        version: row.get(2)?,
        pid: row.get(3)?,
        started_us: row.get(4)?,
    };
    Ok(EarlierRun { epoch, ended_us: row.get(5)?, seen_us: row.get(6)? })
}

fn earlier_run(connection: &Connection) -> rusqlite::Result<Option<EarlierRun>> {
    let sql = format!("SELECT {EARLIER_RUN} FROM epoch ORDER BY number DESC LIMIT 1");
    connection.query_row(&sql, [], earlier_run_of).optional()
}

/// What the last commit says of the clocks.
fn clocks_before(connection: &Connection, boot_id: &str) -> rusqlite::Result<Option<ClocksBefore>> {
    let sql = "SELECT seen_us, seen_boot_us, doubted_until_us, boot_id = ?1 AND ?1 <> '' FROM epoch ORDER BY number DESC LIMIT 1";
    let read = |row: &rusqlite::Row<'_>| {
        Ok(ClocksBefore {
            wall_us: row.get(0)?,
            boot_us: row.get(1)?,
            doubted_until_us: row.get(2)?,
            is_same_boot: row.get(3)?,
        })
    };
    connection.query_row(sql, [boot_id], read).optional()
}

fn stored_numbers(connection: &Connection) -> rusqlite::Result<NextNumbers> {
    let mut numbers = NextNumbers::default();
    for kind in NUMBER_KINDS {
        let sql = "SELECT next FROM number WHERE name = ?";
        let next: Option<u64> = connection.query_row(sql, [kind.name()], |row| row.get(0)).optional()?;
        numbers.set(kind, next.unwrap_or(1));
    }
    Ok(numbers)
}

fn note_numbers(
    place: &JournalPlace,
    is_new: bool,
    of_file: Option<NextNumbers>,
    of_database: NextNumbers,
    first: NextNumbers,
) -> Option<OpenNote> {
    let (path, next_job) = (place.database.clone(), first.of(NumberKind::Job));
    match of_file {
        None if is_new => Some(OpenNote::New { folder: place.folder.clone() }),
        Some(_) if is_new => Some(OpenNote::DatabaseGone { path, next_job }),
        // The file is written first: after a crash between the two it is one run ahead.
        Some(of_file) if of_file.of(NumberKind::Epoch) > of_database.of(NumberKind::Epoch) + 1 => {
            Some(OpenNote::OlderCopy { path, next_job })
        }
        _ => None,
    }
}

/// The boot; empty where a service manager hides it (`ProcSubset=pid`): then no other run counts as one of the same boot.
fn boot_id() -> Result<String, OpenFault> {
    match std::fs::read_to_string(BOOT_ID) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(OpenFault::Io { path: BOOT_ID.into(), error }),
    }
}

fn begin_run(
    connection: &mut Connection,
    epoch: &Epoch,
    clock: &ClockRule,
    next_job: u64,
    reserved: &NextNumbers,
) -> rusqlite::Result<()> {
    let change = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let Epoch { number, boot_id, version, pid, started_us } = epoch;
    change.execute(
        "INSERT INTO epoch VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?, ?, NULL)",
        params![
            number,
            boot_id,
            version,
            pid,
            started_us,
            next_job,
            started_us,
            clock.seen_us().1,
            clock.doubted_until_us()
        ],
    )?;
    for kind in NUMBER_KINDS {
        change.execute(
            "INSERT OR REPLACE INTO number VALUES (?, ?)",
            params![kind.name(), reserved.of(kind)],
        )?;
    }
    change.commit()
}
