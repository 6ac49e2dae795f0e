//! Calls to cargo: the one that runs us, with its output where ours goes.
//!
//! Every call is printed as one could type it, with the time it took. Driven by the verbs.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

/// Runs `cargo ARGUMENTS` and says what and how long.
///
/// # Errors
/// If cargo cannot be started or fails; it has said why itself.
pub(crate) fn run(arguments: &[&str]) -> Result<()> {
    println!("$ cargo {}", arguments.join(" "));
    let begun = Instant::now();
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(program)
        .args(arguments)
        .current_dir(workspace())
        .status()
        .context("cargo could not be started")?;
    ensure!(status.success(), "`cargo {}` failed ({status})", arguments.join(" "));
    println!("  took {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// The root of the workspace.
fn workspace() -> PathBuf {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).map(PathBuf::from).expect("this crate stands two folders below the root")
}

/// Where cargo puts the programs of a profile.
pub(crate) fn programs(profile: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    workspace().join(target).join(profile)
}
