//! `cargo xtask fuzz TARGET [SECONDS]`: runs a fuzz target with libFuzzer and the address sanitizer.
//!
//! It begins with the checked-in corpus, which it never writes; new inputs go into the build folder. It installs
//! nothing: without cargo-fuzz it prints the command that installs it. The targets themselves stand in
//! `tests/src/fuzz.rs`.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::cargo;
use crate::missing::MissingProgram;

/// The length of a run in seconds, if the arguments give none.
const USUAL_SECONDS: u32 = 60;
/// The folder of the cargo-fuzz project, relative to the root.
const PROJECT: &str = "tests/fuzz";

/// Runs the target that the arguments name.
///
/// # Errors
/// There is no such target, cargo-fuzz is missing, the build fails, or the target finds a failure.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let project = cargo::workspace().join(PROJECT);
    let (target, seconds) = read(arguments, &targets(&project)?)?;
    if !cargo::runs(&["fuzz", "--version"]) {
        bail!(MissingProgram {
            program: "cargo-fuzz",
            instead: "The tests run the same targets without it, on their seeds and mutations of them",
        });
    }
    // So the target is built with the versions that are shipped; cargo adds libFuzzer.
    std::fs::copy(cargo::workspace().join("Cargo.lock"), project.join("Cargo.lock"))
        .with_context(|| format!("copy Cargo.lock into {PROJECT}"))?;
    let build = cargo::programs("fuzz");
    let found = build.join("corpus").join(&target);
    std::fs::create_dir_all(&found).with_context(|| format!("make {}", found.display()))?;
    let (build, found) = (build.display().to_string(), found.display().to_string());
    let (seeds, time) = (format!("tests/corpus/{target}"), format!("-max_total_time={seconds}"));
    let place = ["--fuzz-dir", PROJECT, "--target-dir", &build, &target];
    // The sanitizer's flags are unstable; with this variable a stable compiler accepts them.
    let unstable = [("RUSTC_BOOTSTRAP", "1")];
    // A step of its own, so that a failed build is not reported as a failure of the target.
    cargo::run_with(&[&["fuzz", "build"], &place[..]].concat(), &unstable)?;
    let options = [&found, &seeds, "--", &time, "-max_len=8192", "-print_final_stats=1"];
    cargo::run_with(&[&["fuzz", "run"], &place[..], &options].concat(), &unstable).with_context(|| {
        format!("once the fault is fixed, add the input on which {target} failed to {seeds}")
    })
}

/// The names of the targets, from the files of their programs.
fn targets(project: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(project.join("targets")).context("read the folder of the targets")? {
        let path = entry.context("read the folder of the targets")?.path();
        found.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    found.sort();
    Ok(found)
}

/// Parses the target and the seconds.
fn read(arguments: &[String], targets: &[String]) -> Result<(String, u32)> {
    let (target, seconds) = match arguments {
        [target] => (target, None),
        [target, seconds] => (target, Some(seconds)),
        _ => bail!("give a target, one of {}, and optionally a number of seconds", targets.join(", ")),
    };
    ensure!(targets.contains(target), "there is no target {target}; there are {}", targets.join(", "));
    let number = |text: &String| text.parse().ok().filter(|number| *number > 0);
    let seconds = match seconds {
        None => USUAL_SECONDS,
        Some(text) => number(text)
            .with_context(|| format!("{text} is no number of seconds: give a whole number from 1"))?,
    };
    Ok((target.clone(), seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_and_its_time_are_read() {
        let targets = ["lane".to_owned(), "ring".to_owned()];
        let read = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            super::read(&words, &targets).map_err(|error| error.to_string())
        };
        assert_eq!(read(&["ring"]), Ok(("ring".to_owned(), USUAL_SECONDS)));
        assert_eq!(read(&["lane", "5"]), Ok(("lane".to_owned(), 5)));
        for (words, fault) in [
            (&[][..], "one of lane, ring"),
            (&["rings"], "no target rings; there are lane, ring"),
            (&["ring", "0"], "0 is no number of seconds"),
            (&["ring", "5", "6"], "give a target"),
        ] {
            assert!(read(words).unwrap_err().contains(fault), "{words:?}");
        }
    }
}
