//! The JSON objects of `--json`, for every program that shows the daemon's answers.
//!
//! The rows of `proto` (`JobRow`, `WorkerRow`, `Status`, `Kind`, `Record`, `Why`) are serialised as they are and do not
//! stand here; this crate makes the objects that combine several values. Their keys are an interface for scripts: a key
//! never changes its meaning. Keys are in alphabetical order.
//!
//! Pure: it sends no request and opens no file; it writes only to a writer that the caller passes.

pub mod answer;
pub mod death;
pub mod end;
pub mod log;
mod text;
pub use bulkhead_proto::utc as time;
