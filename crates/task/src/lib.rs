//! What the code of a kind sees of its task: [`TaskContext`], the files, the three functions of a kind that is split, and
//! the failure that it returns.
//!
//! The worker runtime implements the traits over real descriptors, tests implement them over memory. It must not know
//! workers, offers or a kind: `crates/jobs` has the built-in ones, and a worker program that has only kinds of its own is
//! built without them. Used by `worker` and `crates/jobs`.

mod context;
mod failure;
mod fan_out;
mod packed_parts;
mod registered_context;
mod reporter;

pub use context::{FileError, PositionedFile, TaskContext};
pub use failure::TaskFailure;
pub use fan_out::{FanOut, Planned, Split};
pub use packed_parts::PackedParts;
pub use registered_context::RegisteredContext;
pub use reporter::{ReportSink, TaskReporter};
