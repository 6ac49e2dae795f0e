//! `cargo xtask test`: everything that is tested, from an empty build folder to the last line.
//!
//! It adds nothing to the tests of cargo but what they need beforehand: packages and programs.

use anyhow::Result;

use crate::{cargo, setup};

/// Sets up, builds every target, runs every test.
///
/// # Errors
/// If a package is missing and cannot be installed, the build fails, or a test does.
pub(crate) fn run() -> Result<()> {
    setup::run(setup::For::Tests)?;
    // The end-to-end tests start the real programs, which `cargo test` alone need not build.
    cargo::run(&["build", "--workspace", "--all-targets"])?;
    cargo::run(&["test", "--workspace", "--no-fail-fast"])
}
