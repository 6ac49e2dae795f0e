//! `cargo xtask bench`: builds everything with optimisations and runs the benchmark against the tools that people use
//! today.
//!
//! The measurements stand in `tests/benches/side_by_side`; this file only provides what they need. gmpy2, the one tool
//! that must be installed, goes into a folder inside the build folder; without it, its ratios are left out and a line
//! says so.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Result;

use crate::{cargo, python, setup};

/// The Python library that factorials are compared with. Its licence is LGPL; it is used for the comparison and never
/// shipped.
const GMPY2: &str = "gmpy2==2.2.1";

/// Runs the bench with these arguments.
///
/// # Errors
/// A build or the benchmark fails.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    if let [section, rest @ ..] = arguments
        && section == "python"
    {
        return python::bench(rest);
    }
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

/// Installs gmpy2 into a folder that only the benchmark uses.
fn install(modules: &Path) -> Result<bool> {
    let mut command = Command::new("python3");
    command.args(["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--target"]);
    command.arg(modules).arg(GMPY2).stdin(Stdio::null());
    Ok(command.status().is_ok_and(|status| status.success()))
}
