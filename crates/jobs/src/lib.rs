//! The built-in kinds as plain functions: they read input bytes and write their output to a [`TaskContext`].
//!
//! They must not know workers, offers or descriptors, so each is tested without a process. The facts about a kind that
//! the daemon needs stand in `bulkhead_proto::kind`; the table here has the code for those names. Driven by the worker
//! runtime, one task at a time.

mod chaos;
mod digit_count;
mod factorial;
mod fan_out;
mod noop;
mod packed_parts;
mod sleep;
mod task;
#[cfg(test)]
mod test_task;
mod transform;

use std::fmt;

use bulkhead_proto::death::ProgramEnd;
use bulkhead_proto::kind::{CHAOS, FACTORIAL, NOOP, SLEEP, TRANSFORM};

pub use fan_out::{FanOut, Planned, Split};
pub use packed_parts::PackedParts;
pub use task::{FileError, PositionedFile, TaskContext};

/// A handler: reads `input` and writes its output to `task`.
///
/// # Errors
/// [`TaskFailure`]: the input is wrong, or the output cannot be written.
pub type Handler = fn(input: &[u8], task: &mut dyn TaskContext) -> Result<(), TaskFailure>;

/// Why a task ended without a result, as a text for its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskFailure {
    text: String,
    program: Option<ProgramEnd>,
    keeps_output: bool,
}

impl TaskFailure {
    /// A failure with this text: a lower-case fragment that names what was wrong.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), program: None, keeps_output: false }
    }

    /// Adds how the program ended that the task ran.
    #[must_use]
    pub fn with_program_end(self, end: ProgramEnd) -> Self {
        Self { program: Some(end), ..self }
    }

    /// The client also gets the output that the task had written.
    #[must_use]
    pub fn with_output(self) -> Self {
        Self { keeps_output: true, ..self }
    }

    /// Whether the client gets the output that the task had written.
    pub fn keeps_output(&self) -> bool {
        self.keeps_output
    }

    /// How the program ended that the task ran.
    pub fn program_end(&self) -> Option<ProgramEnd> {
        self.program
    }
}

impl fmt::Display for TaskFailure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl std::error::Error for TaskFailure {}

impl From<std::io::Error> for TaskFailure {
    /// A handler's only I/O is on its files, whose errors name the file, and on its output.
    fn from(error: std::io::Error) -> Self {
        match error.get_ref().is_some_and(|inner| inner.is::<FileError>()) {
            true => Self::new(error.to_string()),
            false => Self::new(format!("output: {error}")),
        }
    }
}

/// The code of a built-in kind.
#[derive(Clone, Copy)]
pub enum BuiltinKind {
    /// Each of its jobs is one task.
    Whole(Handler),
    /// Its jobs are split into parts.
    Split(&'static dyn FanOut),
}

/// Every built-in kind but `exec`, in the order of `bulkhead_proto::kind::builtin`.
const TABLE: [(&str, BuiltinKind); 5] = [
    (FACTORIAL, BuiltinKind::Whole(factorial::run)),
    (TRANSFORM, BuiltinKind::Split(&transform::TransformKind)),
    (NOOP, BuiltinKind::Whole(noop::run)),
    (SLEEP, BuiltinKind::Whole(sleep::run)),
    (CHAOS, BuiltinKind::Whole(chaos::run)),
];

/// The code of every kind, by name.
pub fn all() -> impl Iterator<Item = (&'static str, BuiltinKind)> {
    TABLE.into_iter()
}

/// The code of the kind of this name.
pub fn find(name: &str) -> Option<BuiltinKind> {
    all().find(|(known, _)| *known == name).map(|(_, code)| code)
}

/// The input as text; every built-in kind but `noop` takes text.
fn text_of(input: &[u8]) -> Result<&str, TaskFailure> {
    std::str::from_utf8(input).map_err(|error| {
        TaskFailure::new(format!("input is not UTF-8 text from byte {} on", error.valid_up_to()))
    })
}

/// A client's text, quoted and cut for a message.
fn quoted(text: &str) -> String {
    format!("{:?}", text.chars().take(40).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_daemons() {
        let mut daemon: Vec<_> =
            bulkhead_proto::kind::builtin(true).into_iter().map(|kind| kind.name).collect();
        // Its code needs processes and folders, and is the worker's.
        daemon.retain(|name| name != bulkhead_proto::kind::EXEC);
        assert_eq!(all().map(|(name, _)| name).collect::<Vec<_>>(), daemon);
        for (name, code) in all() {
            let kind =
                bulkhead_proto::kind::builtin(true).into_iter().find(|kind| kind.name == name).unwrap();
            assert_eq!(kind.plans, matches!(code, BuiltinKind::Split(_)), "{name}");
        }
    }

    #[test]
    fn text_that_is_none_is_named() {
        assert_eq!(text_of(b"12\xff").unwrap_err().to_string(), "input is not UTF-8 text from byte 2 on");
    }
}
