//! `cargo xtask wheel`, the tests of the Python package, and its bench.
//!
//! A wheel holds the package, its native half, and the daemon, stripped, which the package starts by its path: all three of one
//! build. maturin makes it, of a fixed version, in a virtual environment below the target folder (`python/venv.rs`). The tests
//! install a wheel of their own profile into a virtual environment for each interpreter (`python/interpreters.rs`), and say
//! which they did not find.

mod debian_tests;
mod interpreters;
mod pytest_summary;
mod source_package;
mod venv;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, bail, ensure};

use crate::cargo;
use interpreters::Interpreter;
pub(crate) use pytest_summary::PytestSummary;

/// Largest wheel of a release.
const WHEEL_MAX_BYTES: u64 = 2_500_000;
/// Where the daemon is put for maturin, from the root.
const BIN: &str = "python/python/bulkhead/bin";
const SUPERVISOR: &str = "bulkhead-supervisor";

/// How a wheel is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WheelProfile {
    Release,
    /// That of the tests.
    Dev,
}

impl WheelProfile {
    /// Its name for cargo, and the folder of its programs.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Release => ("release", "release"),
            Self::Dev => ("dev", "debug"),
        }
    }

    /// The arguments by which cargo builds the daemon. The tests' profile takes the features of the whole workspace, because the tests
    /// have built the libraries with these: with the daemon's own features cargo would build fifteen of them again.
    fn supervisor(self) -> &'static [&'static str] {
        match self {
            Self::Release => &["--package", SUPERVISOR],
            Self::Dev => &["--workspace", "--bin", SUPERVISOR],
        }
    }
}

/// Builds the wheel of a release, and the source package that stands for it where it does not fit; prints the paths and the size.
///
/// # Errors
/// A step fails, the wheel is too large, or the source package does not say on other systems why it builds nothing.
pub(crate) fn wheel() -> Result<()> {
    let (wheel, _lock) = build(WheelProfile::Release)?;
    let bytes = fs::metadata(&wheel).context("read the size of the wheel")?.len();
    println!("{} has {bytes} bytes, {WHEEL_MAX_BYTES} are allowed", wheel.display());
    ensure!(bytes <= WHEEL_MAX_BYTES, "the wheel is too large");
    let source = source_package::beside(&wheel)?;
    println!("{} says why, where the wheel does not fit", source.display());
    source_package::prove(&source)
}

/// Makes the virtual environments that building and testing needs. If that fails, prints a line and goes on: the tests that
/// need them skip themselves.
pub(crate) fn fetch() {
    if let Err(error) = venv::maturin() {
        println!("set-up: no maturin, the tests of the Python package skip themselves: {error:#}");
        return;
    }
    for interpreter in interpreters::all().iter().flatten() {
        if let Err(error) = venv::of_tests(interpreter) {
            println!("set-up: no packages for the tests with CPython {}: {error:#}", interpreter.version);
        }
    }
    if let Err(error) = debian_tests::fetch() {
        println!("set-up: no tests of Debian's CPython {}: {error:#}", debian_tests::VERSION);
    }
}

/// Runs the tests of the Python package with every interpreter; `arguments` go to pytest.
///
/// # Errors
/// The wheel cannot be built. What fails in the tests is in the summary.
pub(crate) fn test(arguments: &[&str]) -> Result<PytestSummary> {
    if let Err(error) = venv::maturin() {
        return Ok(PytestSummary::skipped("of any version", &format!("no maturin: {error:#}")));
    }
    let (wheel, _lock) = build(WheelProfile::Dev)?;
    let mut summary = PytestSummary::default();
    // Most tests wait for a process; so four interpreters beside each other hardly take longer than the slowest of them.
    let run = |version: &str, interpreter: Option<Interpreter>| match interpreter {
        None => Ok(PytestSummary::skipped(version, "it is not here")),
        Some(interpreter) => run_tests(&interpreter, &wheel, arguments),
    };
    let ended: Vec<Result<PytestSummary>> = thread::scope(|scope| {
        let run = &run;
        let found = interpreters::VERSIONS.into_iter().zip(interpreters::all());
        let threads: Vec<_> =
            found.map(|(version, interpreter)| scope.spawn(move || run(version, interpreter))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| bail!("a run of the tests panicked")))
            .collect()
    });
    for one in ended {
        summary.add(one?);
    }
    Ok(summary)
}

fn run_tests(interpreter: &Interpreter, wheel: &Path, arguments: &[&str]) -> Result<PytestSummary> {
    let environment = match venv::of_tests(interpreter) {
        Ok(environment) => environment,
        Err(error) => return Ok(PytestSummary::skipped(interpreter.version, &format!("{error:#}"))),
    };
    environment.install_wheel(wheel)?;
    let tests = cargo::workspace().join("python");
    let cache = cargo::programs("python").join(format!("pytest-{}", interpreter.version));
    // Its own program, not `python -m`: the tests see the installed package, not the folder beside them.
    let mut command = Command::new(environment.program("pytest"));
    command.args(["-q", "-rs", "--color=no", "tests"]);
    command.arg("-o").arg(format!("cache_dir={}", cache.display()));
    command.args(arguments).current_dir(tests).env_remove("PYTHONPATH").env("PYTHONDONTWRITEBYTECODE", "1");
    if let Some(folder) = debian_tests::folder().filter(|_| interpreter.version == debian_tests::VERSION) {
        command.env("BULKHEAD_CPYTHON_TESTS", folder);
    }
    PytestSummary::of(interpreter.version, &mut command)
}

/// Runs `python/bench/run.py` with the wheel of a release and the pools that it is compared with; `arguments` go to the script.
///
/// # Errors
/// The wheel cannot be built, or pip cannot fetch the pools. A figure that misses its aim is no error.
pub(crate) fn bench(arguments: &[String]) -> Result<()> {
    let (wheel, _lock) = build(WheelProfile::Release)?;
    let environment = venv::of_bench()?;
    environment.install_wheel(&wheel)?;
    let script = cargo::workspace().join("python/bench/run.py");
    let mut command = Command::new(environment.program("python"));
    command.arg(script).args(arguments).env_remove("PYTHONPATH").env("PYTHONDONTWRITEBYTECODE", "1");
    let status = command.status().context("Python could not be started")?;
    ensure!(status.success(), "the bench failed ({status})");
    Ok(())
}

/// Builds the daemon and the wheel; gives its path, and the lock to hold as long as the wheel and what it is installed into are used: another
/// build in this tree places its daemon in the same folder and empties that of the wheels.
fn build(profile: WheelProfile) -> Result<(PathBuf, File)> {
    let maturin = venv::maturin()?;
    let lock = only_builder()?;
    let (name, folder) = profile.names();
    cargo::run(&[&["build", "--profile", name], profile.supervisor()].concat())?;
    place_supervisor(&cargo::programs(folder).join(SUPERVISOR))?;
    let wheels = cargo::programs("python").join(format!("wheels-{name}"));
    // Only the new one is there afterwards.
    if wheels.exists() {
        fs::remove_dir_all(&wheels).with_context(|| format!("empty {}", wheels.display()))?;
    }
    let root = cargo::workspace();
    let mut command = Command::new(maturin.program("maturin"));
    // Deflate at its best: the wheel is near its bound.
    command.args(["build", "--locked", "--strip", "--compression-level", "9", "--profile", name]);
    if profile == WheelProfile::Dev {
        // It runs on this machine alone.
        command.args(["--compatibility", "linux"]);
    }
    command.args(["--manifest-path", "python/Cargo.toml", "--out"]).arg(&wheels).current_dir(&root);
    println!("$ maturin build --profile {name}");
    let status = command.status().context("maturin could not be started")?;
    ensure!(status.success(), "maturin failed ({status})");
    Ok((only_file(&wheels)?, lock))
}

/// Waits until no other process builds a wheel in this tree; the lock, which ends with the file.
fn only_builder() -> Result<File> {
    let path = cargo::programs("python").join("wheel.lock");
    let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    if file.try_lock().is_err() {
        println!("another build of a wheel in this tree is under way: waiting for it");
        file.lock().with_context(|| format!("lock {}", path.display()))?;
    }
    Ok(file)
}

/// Puts the stripped daemon where maturin takes the package from.
fn place_supervisor(built: &Path) -> Result<()> {
    let folder = cargo::workspace().join(BIN);
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let (partial, place) = (folder.join("partial"), folder.join(SUPERVISOR));
    let status = Command::new("strip").arg("-o").args([&partial, built]).status();
    let status = status.context("strip (of binutils) could not be started")?;
    ensure!(status.success(), "strip {} failed ({status})", built.display());
    fs::rename(&partial, &place).with_context(|| format!("place {}", place.display()))
}

fn only_file(folder: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    match (paths.pop(), paths.is_empty()) {
        (Some(path), true) => Ok(path),
        _ => bail!("maturin made no wheel, or several, in {}", folder.display()),
    }
}
