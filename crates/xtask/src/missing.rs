//! A program that a verb needs and that is not installed.
//!
//! Such a verb ends with an exit code of its own, so that a script can tell it from a failure. The verbs look for their
//! programs; nothing installs one.

use std::fmt;
use std::process::ExitCode;

/// The exit code of a verb whose program is not installed, as a shell has it.
const NOT_INSTALLED: u8 = 127;

/// The error of a verb whose program is not installed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MissingProgram {
    /// The program, and the package that holds it.
    pub(crate) program: &'static str,
    /// What there is without it: a sentence without its period.
    pub(crate) instead: &'static str,
}

impl fmt::Display for MissingProgram {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { program, instead } = self;
        write!(
            out,
            "{program} is not installed; install it with\n\n    cargo install --locked {program}\n\nand run this again. {instead}."
        )
    }
}

impl std::error::Error for MissingProgram {}

/// The exit code of a verb that failed with this error.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<MissingProgram>() { ExitCode::from(NOT_INSTALLED) } else { ExitCode::FAILURE }
}
