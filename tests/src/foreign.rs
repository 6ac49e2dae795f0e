//! A worker program as others write them: its kind does what a program of one's own may do and ours never do.
//!
//! Its kind replaces `noop`, so that the daemon knows it; an input is a deed, then `:`, then what it is done to. Driven by
//! `foreign-worker`.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;

use bulkhead_worker::{Registry, TaskContext, TaskFailure};

/// Followed by a path: makes a file of [`LONG_BYTES`] there, and writes its last byte.
pub const LONG: &str = "long";
/// Followed by a number: makes the output that long through its descriptor, past every check of the worker library.
pub const PAST_THE_CHECKS: &str = "past";

/// More than an output in memory may ever have.
pub const LONG_BYTES: u64 = 3 << 30;

/// Runs this process as a worker.
pub fn main() -> ExitCode {
    bulkhead_worker::run(&Registry::builtin().with("noop", run))
}

fn run(input: &[u8], task: &mut dyn TaskContext) -> Result<(), TaskFailure> {
    let text = String::from_utf8_lossy(input);
    let (deed, rest) = text.split_once(':').unwrap_or((&text, ""));
    match deed {
        LONG => {
            let file = File::create(rest)?;
            file.set_len(LONG_BYTES / 2)?;
            Ok(file.write_all_at(b"x", LONG_BYTES - 1)?)
        }
        PAST_THE_CHECKS => {
            let length = rest.parse().map_err(|_| TaskFailure::new("no number of bytes"))?;
            let output = File::from(task.shared()?.as_fd().try_clone_to_owned()?);
            Ok(output.set_len(length)?)
        }
        _ => Ok(task.write_all(input)?),
    }
}
