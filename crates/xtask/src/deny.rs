//! `cargo xtask deny`: checks the libraries by the list in `deny.toml`, with cargo-deny.
//!
//! cargo-deny loads the database of known faults from the network, and the libraries of other systems; so no test runs it.
//! This verb installs nothing: without cargo-deny it prints the command that installs it. The tests check licences,
//! duplicates and sources by the same list without it (`tests/tests/tidy_libraries.rs`).

use anyhow::{Result, bail};

use crate::cargo;
use crate::missing::MissingProgram;

/// Checks the libraries.
///
/// # Errors
/// cargo-deny is missing, or it finds a fault.
pub(crate) fn run() -> Result<()> {
    if !cargo::runs(&["deny", "--version"]) {
        bail!(MissingProgram {
            program: "cargo-deny",
            instead: "The tests check licences, duplicates and sources without it, but no advisories",
        });
    }
    cargo::run(&["deny", "--locked", "check"])
}
