//! Why a task ended without a result: a text for its client, and what else the client gets.
//!
//! Made by the code of a kind; the worker runtime writes it to the box.

use std::fmt;

use bulkhead_proto::death::ProgramEnd;

use crate::FileError;

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
