//! Calls of cargo, by the program that runs this one; its output goes to ours.
//!
//! Every call is printed as a user could type it, with the time that it took. Driven by the verbs.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

/// Runs `cargo ARGUMENTS`, and prints the call and its time.
///
/// # Errors
/// Cargo cannot be started, or it fails; it has printed the reason then.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    run_with(arguments, &[])
}

/// The same, with these variables in its environment.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_with(arguments: &[&str], variables: &[(&str, &str)]) -> Result<()> {
    timed(arguments, |command| {
        command.envs(variables.iter().copied()).status().context("cargo could not be started")
    })
}

/// Whether `cargo ARGUMENTS` succeeds; it prints nothing.
pub(crate) fn runs(arguments: &[&str]) -> bool {
    let status = cargo().args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// As [`run`], and passes each line of its standard output to `read` too.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_reading(arguments: &[&str], mut read: impl FnMut(&str)) -> Result<()> {
    timed(arguments, |command| {
        let mut child = command.stdout(Stdio::piped()).spawn().context("cargo could not be started")?;
        let output = child.stdout.take().context("cargo has no output")?;
        for line in BufReader::new(output).split(b'\n') {
            let line = line.context("read cargo's output")?;
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            read(&line);
        }
        child.wait().context("wait for cargo")
    })
}

fn timed(arguments: &[&str], perform: impl FnOnce(&mut Command) -> Result<ExitStatus>) -> Result<()> {
    println!("$ cargo {}", arguments.join(" "));
    let begun = Instant::now();
    let status = perform(cargo().args(arguments))?;
    println!("  took {:.1} s", begun.elapsed().as_secs_f64());
    ensure!(status.success(), "`cargo {}` failed ({status})", arguments.join(" "));
    Ok(())
}

fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    command
}

/// The root of the workspace that `cargo xtask` was called in. Cargo names this crate's folder when it runs it. What the
/// compiler saw may be another checkout: cargo finds this program up to date in a build folder that was copied from there.
pub(crate) fn workspace() -> PathBuf {
    let at_run_time = std::env::var_os("CARGO_MANIFEST_DIR");
    let own = PathBuf::from(at_run_time.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into()));
    own.ancestors().nth(2).map(PathBuf::from).expect("this crate stands two folders below the root")
}

/// Where cargo puts the programs of a profile.
pub(crate) fn programs(profile: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    workspace().join(target).join(profile)
}
