//! The built-in kinds as plain functions: input bytes in, output written to a [`Task`].
//!
//! They know nothing of workers, offers or descriptors, so each is tested without a process. What the daemon
//! must know of a kind stands in `bulkhead_proto::kind`; the table here is the code behind those names.
//! Driven by the worker runtime, one task at a time.

mod chaos;
mod digits;
mod factorial;
mod noop;
mod sleep;
#[cfg(test)]
mod trial;

use std::fmt;
use std::num::NonZeroU8;

/// What a handler sees of the task that it runs: its output, and ways to tell how it is going. What it tells survives
/// its worker, whatever ends that, and is shown with the death.
pub trait Task: std::io::Write {
    /// "So many parts are done", of `total`, or of 0 when it cannot tell; the unit is the task's own. Each call is
    /// progress, also one with the same numbers, and a limit on time without progress begins anew. Costs less than
    /// 0.1 us: no system call, no allocation.
    fn progress(&mut self, done: u64, total: u64);
    /// Leaves words, in place of those before: what it is about to do, for whoever asks why it died. Cut after
    /// `bulkhead_proto::limits::LAST_WORDS_MAX_BYTES`. It is no progress, and as cheap.
    fn say(&mut self, words: &str);
    /// "About to die": stamps the moment, so that the time until somebody noticed can be told.
    fn last_breath(&mut self);
}

/// The code of a kind: reads `input`, writes its output to `task`.
///
/// # Errors
/// [`Failure`] when the task itself says no: bad input, or output that cannot be written.
pub type Handler = fn(input: &[u8], task: &mut dyn Task) -> Result<(), Failure>;

/// Why a task ended without a result, in words for its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    text: String,
    code: Option<NonZeroU8>,
    keeps_output: bool,
}

impl Failure {
    /// A failure with this text: a lower-case fragment that names the thing that was wrong.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: None, keeps_output: false }
    }

    /// The same of a program that ended with this exit code, or as a shell would tell it.
    #[must_use]
    pub fn with_code(self, code: NonZeroU8) -> Self {
        Self { code: Some(code), ..self }
    }

    /// The same, with all that the task has written as far as it goes: its client gets that too.
    #[must_use]
    pub fn with_output(self) -> Self {
        Self { keeps_output: true, ..self }
    }

    /// Whether its client is to have what the task has written.
    pub fn keeps_output(&self) -> bool {
        self.keeps_output
    }

    /// The exit code of the program that the task was.
    pub fn code(&self) -> Option<NonZeroU8> {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

impl From<std::io::Error> for Failure {
    /// The only I/O of a handler is its output.
    fn from(error: std::io::Error) -> Self {
        Self::new(format!("output: {error}"))
    }
}

/// Every built-in kind but `exec`, in the order of `bulkhead_proto::kind::builtin`.
const TABLE: [(&str, Handler); 4] =
    [("factorial", factorial::run), ("noop", noop::run), ("sleep", sleep::run), ("chaos", chaos::run)];

/// The handler of the kind of this name.
pub fn find(name: &str) -> Option<Handler> {
    TABLE.iter().find(|(known, _)| *known == name).map(|(_, handler)| *handler)
}

/// The names of all kinds.
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(name, _)| *name)
}

/// The input as text; every built-in kind but `noop` takes text.
fn text_of(input: &[u8]) -> Result<&str, Failure> {
    std::str::from_utf8(input).map_err(|error| {
        Failure::new(format!("input is not UTF-8 text from byte {} on", error.valid_up_to()))
    })
}

/// Text that came from a client, quoted and cut for a message.
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
        assert_eq!(names().collect::<Vec<_>>(), daemon);
        assert!(daemon.iter().all(|name| find(name).is_some()));
        assert!(find("nosuch").is_none() && find("").is_none());
    }

    #[test]
    fn text_that_is_none_is_named() {
        assert_eq!(text_of(b"12\xff").unwrap_err().to_string(), "input is not UTF-8 text from byte 2 on");
    }
}
