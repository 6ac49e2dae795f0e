//! What `--json` shows: the JSON objects of the command line, for every program that shows the daemon's answers.
//!
//! The rows of `proto` (`JobRow`, `WorkerRow`, `Status`, `Kind`, `Record`, `Why`) are serialised as they are and do not
//! stand here; this crate makes the objects that are put together from an answer. Their keys are an interface: scripts
//! read them, and a key never changes its meaning. Keys are in the order of the alphabet.
//!
//! Pure: it asks no daemon and opens no file; what it writes goes to a writer of the caller.

pub mod answer;
pub mod death;
pub mod end;
pub mod log;
mod text;
pub mod time;
