//! CPython's own tests of executors as Debian packages them: for the system's CPython 3.11, which comes without them.
//!
//! apt-get downloads the package and checks its SHA-256 by Debian's signed lists. It is unpacked below the target folder, and never
//! installed nor part of the project. Without it the tests that use it skip themselves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::cargo;

/// The version of CPython that it belongs to.
pub(super) const VERSION: &str = "3.11";
const PACKAGE: &str = "libpython3.11-testsuite";
/// The folder of the tests in the package, and the file that is run.
const INSIDE: &str = "usr/lib/python3.11/test";
const FILE: &str = "test_concurrent_futures.py";

/// The folder of the tests, if they were fetched.
pub(super) fn folder() -> Option<PathBuf> {
    Some(place().join(INSIDE)).filter(|folder| folder.join(FILE).is_file())
}

/// Fetches them if they are missing.
///
/// # Errors
/// This is no Debian with CPython 3.11, or the network is not there.
pub(super) fn fetch() -> Result<()> {
    if folder().is_some() {
        return Ok(());
    }
    println!("set-up: fetching {PACKAGE}");
    let place = place();
    let partial = place.with_extension("partial");
    let fetched = fs::create_dir_all(&partial).context("make the folder").and_then(|()| unpack(&partial));
    let moved = fetched.and_then(|unpacked| {
        if place.exists() {
            fs::remove_dir_all(&place).context("remove an older one")?;
        }
        fs::rename(unpacked, &place).context("move it to its place")
    });
    // Also after a failure: an incomplete download must not stay.
    fs::remove_dir_all(&partial).context("remove the partial download")?;
    moved
}

fn place() -> PathBuf {
    cargo::programs("python").join("debian-tests")
}

/// Downloads and unpacks it here. With package lists that are missing or old, tries again after they were fetched.
fn unpack(partial: &Path) -> Result<PathBuf> {
    let download = ["download", PACKAGE];
    if let Err(error) = run("apt-get", &download, partial) {
        run("apt-get", &["update"], partial)
            .and_then(|()| run("apt-get", &download, partial))
            .map_err(|_| error)?;
    }
    let names = fs::read_dir(partial).context("read the download folder")?.filter_map(Result::ok);
    let package =
        names.map(|entry| entry.path()).find(|path| path.extension().is_some_and(|end| end == "deb"));
    let package = package.context("apt-get downloaded no package")?;
    let unpacked = partial.join("unpacked");
    let words =
        [package.to_str(), unpacked.to_str()].map(|word| word.context("the target folder has an odd name"));
    let [package, unpacked_word] = words;
    run("dpkg-deb", &["-x", package?, unpacked_word?], partial)?;
    ensure!(unpacked.join(INSIDE).join(FILE).is_file(), "{PACKAGE} holds no {INSIDE}/{FILE}");
    Ok(unpacked)
}

fn run(program: &str, arguments: &[&str], folder: &Path) -> Result<()> {
    let output = Command::new(program).args(arguments).current_dir(folder).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("{program} could not be started"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{program} {}` failed: {}", arguments.join(" "), said.trim());
    Ok(())
}
