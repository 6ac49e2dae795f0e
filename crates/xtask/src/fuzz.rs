//! `cargo xtask fuzz TARGET [SECONDS]`: runs a fuzz target with libFuzzer and the address sanitizer.
//!
//! It begins from the checked-in corpus, which it never writes; what it finds beside lies in the build folder. It
//! installs nothing: without cargo-fuzz it says how to get it. The targets themselves stand in `tests/src/fuzz.rs`.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::cargo;

/// How long a run takes that was not told.
const USUAL_SECONDS: u32 = 60;
/// The project of cargo-fuzz, from the root.
const PROJECT: &str = "tests/fuzz";

/// Runs the target that the arguments name.
///
/// # Errors
/// If there is no such target, cargo-fuzz is missing, the build fails, or the target does.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let project = cargo::workspace().join(PROJECT);
    let (target, seconds) = read(arguments, &targets(&project)?)?;
    ensure!(
        cargo::runs(&["fuzz", "--version"]),
        "cargo-fuzz is not there; run:\n\n    cargo install --locked cargo-fuzz\n"
    );
    // The versions that are shipped; cargo adds libFuzzer's to them.
    std::fs::copy(cargo::workspace().join("Cargo.lock"), project.join("Cargo.lock"))
        .with_context(|| format!("copy Cargo.lock into {PROJECT}"))?;
    let build = cargo::programs("fuzz");
    let found = build.join("corpus").join(&target);
    std::fs::create_dir_all(&found).with_context(|| format!("make {}", found.display()))?;
    let (build, found) = (build.display().to_string(), found.display().to_string());
    let (seeds, time) = (format!("tests/corpus/{target}"), format!("-max_total_time={seconds}"));
    let place = ["--fuzz-dir", PROJECT, "--target-dir", &build, &target];
    // The sanitizer's flags are not stable yet; this is how a stable compiler takes them.
    let unstable = [("RUSTC_BOOTSTRAP", "1")];
    // Apart from the run, so that a build that fails is not taken for a target that does.
    cargo::run_with(&[&["fuzz", "build"], &place[..]].concat(), &unstable)?;
    let options = [&found, &seeds, "--", &time, "-max_len=8192", "-print_final_stats=1"];
    cargo::run_with(&[&["fuzz", "run"], &place[..], &options].concat(), &unstable)
        .with_context(|| format!("what {target} failed on belongs into {seeds}, once it is mended"))
}

/// The targets, by the files of their programs.
fn targets(project: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(project.join("targets")).context("read the folder of the targets")? {
        let path = entry.context("read the folder of the targets")?.path();
        found.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    found.sort();
    Ok(found)
}

/// Target and seconds.
fn read(arguments: &[String], targets: &[String]) -> Result<(String, u32)> {
    let (target, seconds) = match arguments {
        [target] => (target, None),
        [target, seconds] => (target, Some(seconds)),
        _ => bail!("say which target, one of {}, and for how many seconds", targets.join(", ")),
    };
    ensure!(targets.contains(target), "there is no target {target}; there are {}", targets.join(", "));
    let number = |text: &String| text.parse().ok().filter(|number| *number > 0);
    let seconds = match seconds {
        None => USUAL_SECONDS,
        Some(text) => number(text).with_context(|| format!("{text} is no number of seconds from 1 on"))?,
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
            (&["ring", "5", "6"], "say which target"),
        ] {
            assert!(read(words).unwrap_err().contains(fault), "{words:?}");
        }
    }
}
