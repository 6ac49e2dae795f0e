//! The source package, which pip takes where no wheel fits: it builds nothing and says why.
//!
//! `python/sdist/make.py` writes it; the tests of `python/tests/test_sdist.py` prove what pip shows of it on other systems.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::interpreters;
use super::venv;
use crate::cargo;

/// Makes the source package of the same version beside a wheel; its path.
///
/// # Errors
/// Python fails, or the wheel has an odd name.
pub(super) fn beside(wheel: &Path) -> Result<PathBuf> {
    let folder = wheel.parent().context("the wheel lies in no folder")?;
    let name = wheel.file_name().and_then(|name| name.to_str()).context("the wheel has an odd name")?;
    let version = name.split('-').nth(1).with_context(|| format!("{name} names no version"))?;
    let script = cargo::workspace().join("python/sdist/make.py");
    let mut command = Command::new(venv::maturin()?.program("python"));
    let output = command.arg("-I").arg(script).arg(folder).arg(version).stdin(Stdio::null()).output();
    let output = output.context("Python could not be started")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the source package could not be made: {}", said.trim());
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

/// Proves what pip shows of this package on macOS, Windows, and Linux with another C library.
///
/// # Errors
/// There is no interpreter with pytest, or a test fails.
pub(super) fn prove(package: &Path) -> Result<()> {
    let interpreter = interpreters::all().into_iter().flatten().next_back();
    let environment = venv::of_tests(&interpreter.context("no CPython is here, with venv and ensurepip")?)?;
    let mut command = Command::new(environment.program("python"));
    // The rest of the tests needs the package installed.
    command.args(["-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", "tests/test_sdist.py"]);
    command.current_dir(cargo::workspace().join("python")).env("BULKHEAD_SDIST", package);
    let status =
        command.env("PYTHONDONTWRITEBYTECODE", "1").status().context("pytest could not be started")?;
    ensure!(status.success(), "the source package does not say why it cannot be built ({status})");
    Ok(())
}
