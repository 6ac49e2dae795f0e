//! Exit codes of the `bulkhead` command: a public table.
//!
//! Scripts branch on them, so a code never changes its meaning; `docs/src/reference/exit-codes.md` lists them all, and a
//! test holds the two together. An `exec` job gives its program's own code instead.

use crate::client::outcome::Outcome;

/// All asked for was done.
pub const DONE: u8 = 0;
/// A job failed: its own code said no.
pub const FAILED: u8 = 1;
/// The command line was not understood; nothing was sent.
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
/// Nobody reads standard output any more, as a shell shows it of a command that SIGPIPE ended.
pub const PIPE: u8 = 141;

/// The exit code that an outcome gives: that of the program for an `exec` job which failed.
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
