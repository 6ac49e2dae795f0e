//! Virtual environments below the target folder, with packages of fixed versions.
//!
//! One holds maturin; one for each interpreter holds what the tests of the Python package need. A file in each names what is in
//! it; one with other packages is made anew. pip fetches what is missing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::interpreters::{self, Interpreter};
use crate::cargo;

const MATURIN: [&str; 1] = ["maturin==1.16.0"];
/// pytest runs the tests; numpy and cloudpickle are what users have beside the package.
const FOR_TESTS: [&str; 4] = [
    "pytest==9.2.0",
    "cloudpickle==3.1.3",
    "numpy==2.4.6; python_version >= '3.11'",
    "numpy==2.2.6; python_version < '3.11'",
];
/// The pools that the bench compares it with, and what it measures arrays with.
const FOR_BENCH: [&str; 3] = ["numpy==2.4.6", "loky==3.7.0", "pebble==5.2.3"];
/// What is the same with every interpreter: mypy checks its types; the others are what it is used with.
const FOR_ONE: [&str; 5] =
    ["mypy==2.4.1", "ipykernel==7.4.0", "coverage==7.17.5", "pytest-xdist==3.8.0", "tqdm==4.70.1"];
/// The interpreter with [`FOR_ONE`], and that of the bench.
const ONE: &str = "3.11";

/// A virtual environment.
#[derive(Debug)]
pub(super) struct VirtualEnv {
    folder: PathBuf,
}

/// The one with maturin.
///
/// # Errors
/// There is no interpreter, or pip cannot fetch it.
pub(super) fn maturin() -> Result<VirtualEnv> {
    let interpreter = interpreters::all().into_iter().flatten().next_back();
    let interpreter = interpreter.context("no CPython from 3.10 to 3.13 is here, with venv and ensurepip")?;
    provide("maturin", &interpreter, &MATURIN)
}

/// The one for the tests with this interpreter.
///
/// # Errors
/// pip cannot fetch the packages.
pub(super) fn of_tests(interpreter: &Interpreter) -> Result<VirtualEnv> {
    let for_one: &[&str] = if interpreter.version == ONE { &FOR_ONE } else { &[] };
    provide(&format!("tests-{}", interpreter.version), interpreter, &[&FOR_TESTS, for_one].concat())
}

/// The one for the bench.
///
/// # Errors
/// There is no interpreter, or pip cannot fetch the packages.
pub(super) fn of_bench() -> Result<VirtualEnv> {
    let interpreter = interpreters::all().into_iter().flatten().find(|one| one.version == ONE);
    let interpreter =
        interpreter.with_context(|| format!("no CPython {ONE} is here, with venv and ensurepip"))?;
    provide("bench", &interpreter, &FOR_BENCH)
}

fn provide(name: &str, interpreter: &Interpreter, packages: &[&str]) -> Result<VirtualEnv> {
    let folder = cargo::programs("python").join(name);
    let made = VirtualEnv { folder };
    let stamp = made.folder.join("packages.txt");
    let wanted = format!("{}\n{}\n", interpreter.program.display(), packages.join("\n"));
    if fs::read_to_string(&stamp).is_ok_and(|there| there == wanted) {
        return Ok(made);
    }
    println!("set-up: CPython {} with {}", interpreter.version, packages.join(", "));
    let mut create = Command::new(&interpreter.program);
    run(create.args(["-I", "-m", "venv", "--clear"]).arg(&made.folder))?;
    made.pip(&["--only-binary", ":all:"], packages)?;
    fs::write(&stamp, wanted).with_context(|| format!("write {}", stamp.display()))?;
    Ok(made)
}

impl VirtualEnv {
    /// One of its programs.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.folder.join("bin").join(name)
    }

    /// Installs a wheel in place of the one before, and nothing else.
    ///
    /// # Errors
    /// pip does not take it.
    pub(super) fn install_wheel(&self, wheel: &Path) -> Result<()> {
        let wheel = wheel.to_str().context("the path of the wheel is odd")?;
        self.pip(&["--force-reinstall", "--no-deps", "--no-index"], &[wheel])
    }

    fn pip(&self, options: &[&str], packages: &[&str]) -> Result<()> {
        let mut pip = Command::new(self.program("python"));
        pip.args(["-I", "-m", "pip", "install", "-q", "--disable-pip-version-check"]);
        run(pip.args(options).args(packages))
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().context("Python could not be started")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed: {}", said.trim());
    Ok(())
}
