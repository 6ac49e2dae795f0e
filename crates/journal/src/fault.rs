//! Why a journal cannot be opened, and what else its opening found: sentences for people, each with what to do.
//!
//! Made by `place.rs` and `opening.rs`; the daemon prints them and decides nothing by them but whether it starts.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a journal cannot be opened.
#[derive(Debug)]
pub enum OpenFault {
    /// A file or folder cannot be used.
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The path leads to something else than a folder.
    NoFolder {
        /// The path.
        folder: PathBuf,
    },
    /// The folder belongs to another user.
    NotOwn {
        /// The folder.
        folder: PathBuf,
        /// Its owner.
        owner: u32,
        /// The user of this process.
        uid: u32,
    },
    /// Others may write to the folder.
    OpenToOthers {
        /// The folder.
        folder: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Another machine or program answers for the files of the folder: their shared memory cannot be relied on.
    Remote {
        /// The folder.
        folder: PathBuf,
        /// The sort of its file system.
        name: &'static str,
    },
    /// The file system is full.
    NoRoom {
        /// The folder.
        folder: PathBuf,
        /// What is left.
        free_bytes: u64,
        /// What is needed.
        room_min_bytes: u64,
    },
    /// Another daemon uses the folder.
    InUse {
        /// The folder.
        folder: PathBuf,
        /// Its process, if that is known.
        pid: Option<u32>,
    },
    /// The file with the reserved numbers holds something else.
    BadNumbers {
        /// The file.
        path: PathBuf,
    },
    /// The database belongs to another program.
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The database was written by a later version.
    Newer {
        /// The file.
        path: PathBuf,
        /// The version of its schema.
        version: u32,
        /// The last version that is known here.
        known: u32,
    },
    /// The database is damaged.
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite found.
        why: String,
    },
    /// Another program has the database open and locks it.
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// Another program reads the database, so that the log of a run that did not end by itself cannot be emptied.
    LogHeld {
        /// The database.
        path: PathBuf,
    },
    /// SQLite cannot do what is needed.
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        error: rusqlite::Error,
    },
}

impl fmt::Display for OpenFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, error } => write!(out, "cannot use {}: {error}", path.display()),
            Self::NoFolder { folder } => {
                write!(out, "{} is no folder: move it away, or choose another state folder", folder.display())
            }
            Self::NotOwn { folder, owner, uid } => write!(
                out,
                "the state folder {} belongs to user {owner} and not to user {uid}, who runs this daemon: chown it, or choose \
                 another one",
                folder.display()
            ),
            Self::OpenToOthers { folder, mode } => write!(
                out,
                "other users may write to the state folder {} (mode {mode:04o}): chmod it to 0700",
                folder.display()
            ),
            Self::Remote { folder, name } => write!(
                out,
                "the state folder {} is on {name}, which SQLite's log cannot use: choose one on a disk of this machine",
                folder.display()
            ),
            Self::NoRoom { folder, free_bytes, room_min_bytes } => write!(
                out,
                "the file system of the state folder {} has {free_bytes} bytes left and {room_min_bytes} are needed: make room, or \
                 choose another one",
                folder.display()
            ),
            Self::InUse { folder, pid } => {
                let who = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
                write!(
                    out,
                    "the state folder {} is in use by {who}: stop that daemon, or choose another folder",
                    folder.display()
                )
            }
            Self::BadNumbers { path } => write!(
                out,
                "{} is damaged: restore it, or remove it if the database beside it is the newest one there is",
                path.display()
            ),
            Self::Foreign { path } => write!(
                out,
                "{} is no journal of Bulkhead: move it away, or choose another state folder",
                path.display()
            ),
            Self::Newer { path, version, known } => write!(
                out,
                "{} has schema {version} and this version of Bulkhead knows {known}: install the version that wrote it, or a later \
                 one",
                path.display()
            ),
            Self::Damaged { path, why } => write!(
                out,
                "{} is damaged ({why}): restore a copy, or save what can be read with `sqlite3 FILE .recover` and move it away",
                path.display()
            ),
            Self::Locked { path } => {
                let path = path.display();
                write!(out, "another program has locked {path}: end it, and start the daemon again")
            }
            Self::LogHeld { path } => write!(
                out,
                "another program reads {}, whose log has to be emptied after a crash: end it, and start the daemon again",
                path.display()
            ),
            Self::Database { path, error } => write!(out, "cannot open {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for OpenFault {}

/// What else the opening found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenNote {
    /// The folder is in memory.
    InMemory {
        /// The folder.
        folder: PathBuf,
    },
    /// There was nothing in the folder: numbers count from 1.
    New {
        /// The folder.
        folder: PathBuf,
    },
    /// There was no database, but numbers that were reserved for one.
    DatabaseGone {
        /// Where it was.
        path: PathBuf,
        /// The first job number of this run.
        next_job: u64,
    },
    /// The database has lower numbers than the file beside it: it is an older copy.
    OlderCopy {
        /// The file.
        path: PathBuf,
        /// The first job number of this run.
        next_job: u64,
    },
    /// The last run did not end by itself.
    UncleanEnd {
        /// Its last commit.
        seen_us: u64,
    },
    /// The wall clock cannot be believed for now: for a day after the jump, nothing is removed by its age.
    ClockJumped,
}

impl fmt::Display for OpenNote {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InMemory { folder } => {
                write!(
                    out,
                    "the state folder {} is in memory: durable jobs are gone at reboot",
                    folder.display()
                )
            }
            Self::New { folder } => {
                write!(out, "the state folder {} is new: job numbers begin at 1", folder.display())
            }
            Self::DatabaseGone { path, next_job } => write!(
                out,
                "{} is gone, with the jobs in it: job numbers go on at {next_job}",
                path.display()
            ),
            Self::OlderCopy { path, next_job } => {
                write!(out, "{} is an older copy: job numbers go on at {next_job}", path.display())
            }
            Self::UncleanEnd { .. } => out.write_str("the last run ended without a stop"),
            Self::ClockJumped => out.write_str(
                "the wall clock has jumped: for a day at most, no ended job is removed by its age",
            ),
        }
    }
}
