//! `cargo xtask bench`: builds everything with all optimisations, then measures it beside what people use today.
//!
//! The measuring is `tests/benches/side_by_side`; this only brings what it needs. The one peer that has to be
//! installed, gmpy2, goes into a folder of the build's own; without it its ratios are left out, and that is said.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Result;

use crate::{cargo, setup};

/// The Python library that factorials are compared with; LGPL, used beside us and never shipped.
const GMPY2: &str = "gmpy2==2.2.1";

/// Runs the bench with these arguments.
///
/// # Errors
/// If something cannot be built, or the bench fails.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    setup::run(setup::Purpose::Tests)?;
    cargo::run(&["build", "--release", "--workspace"])?;
    let modules = cargo::programs("release").join("bench-python");
    if !modules.join("gmpy2").is_dir() && !install(&modules)? {
        println!("bench: {GMPY2} could not be installed; its ratios are left out");
    }
    let modules = modules.display().to_string();
    let mut words =
        vec!["bench", "-p", "bulkhead-tests", "--bench", "side_by_side", "--", "--modules", &modules];
    words.extend(arguments.iter().map(String::as_str));
    cargo::run(&words)
}

/// Puts gmpy2 where only the bench looks for it.
fn install(modules: &Path) -> Result<bool> {
    let mut command = Command::new("python3");
    command.args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--target"]);
    command.arg(modules).arg(GMPY2).stdin(Stdio::null());
    Ok(command.status().is_ok_and(|status| status.success()))
}
