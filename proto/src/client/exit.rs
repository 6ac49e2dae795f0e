//! Exit codes of the `bulkhead` command: a public table.
//!
//! The command line exits with them and scripts branch on them, so a code must never change its meaning.
//! `docs/src/reference/exit-codes.md` lists them all, and a test compares it with this file. For a failed `exec` job the
//! command exits with the program's own code.

use crate::client::outcome::Outcome;

/// The command succeeded; all its jobs are done.
pub const DONE: u8 = 0;
/// A job failed: its own code reported an error.
pub const FAILED: u8 = 1;
/// The command line is wrong; no request was sent.
pub const USAGE: u8 = 2;
/// No daemon answered.
pub const NO_DAEMON: u8 = 69;
/// The daemon is busy or draining: try again later.
pub const BUSY: u8 = 75;
/// A job was lost with the service.
pub const LOST: u8 = 122;
/// A job expired before it ran.
pub const EXPIRED: u8 = 123;
/// A job met its time limit.
pub const TIMED_OUT: u8 = 124;
/// A job crashed its workers and is quarantined.
pub const CRASHED: u8 = 125;
/// A job, or the command itself, was cancelled.
pub const CANCELLED: u8 = 130;
/// The reader of standard output has closed it; the code that a shell shows for a command ended by SIGPIPE.
pub const PIPE: u8 = 141;

/// The exit code for an outcome; for a failed `exec` job, that of its program.
pub fn of(outcome: &Outcome) -> u8 {
    match outcome {
        Outcome::Done => DONE,
        Outcome::Failed { code, .. } => code.unwrap_or(FAILED),
        Outcome::Crashed { .. } => CRASHED,
        Outcome::TimedOut { .. } => TIMED_OUT,
        Outcome::Cancelled => CANCELLED,
        Outcome::Expired => EXPIRED,
        Outcome::Lost { .. } => LOST,
    }
}
