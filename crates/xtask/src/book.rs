//! `cargo xtask book`: the pages in `docs/` as a web site, built by mdBook.
//!
//! It writes into the build folder and never into the tree, and installs nothing: without mdBook it says how to get it.
//! The tests check the pages without it (`tests/tests/tidy_book.rs`, `tests/tests/reference.rs`).

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::cargo;
use crate::missing::MissingProgram;

/// The program, from the `PATH`.
const PROGRAM: &str = "mdbook";
/// The folder of the book, from the root.
const PROJECT: &str = "docs";

/// Builds the book.
///
/// # Errors
/// If mdBook is missing, or fails.
pub(crate) fn run() -> Result<()> {
    if !is_there() {
        bail!(MissingProgram {
            program: PROGRAM,
            instead: "The pages can be read without it: begin with docs/src/SUMMARY.md",
        });
    }
    let (book, site) = (cargo::workspace().join(PROJECT), cargo::programs("book"));
    println!("$ {PROGRAM} build --dest-dir {} {}", site.display(), book.display());
    let status = Command::new(PROGRAM).arg("build").arg("--dest-dir").arg(&site).arg(&book).status();
    let status = status.with_context(|| format!("{PROGRAM} could not be started"))?;
    ensure!(status.success(), "{PROGRAM} failed ({status})");
    println!("The book begins at {}", site.join("index.html").display());
    Ok(())
}

/// Whether mdBook can be run.
fn is_there() -> bool {
    let status = Command::new(PROGRAM).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
