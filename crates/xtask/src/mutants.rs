//! `cargo xtask mutants link | core ROOM | --in-diff [OPTION ...]`: changes the code in small ways, one at a time, and says
//! which change no test notices, with cargo-mutants.
//!
//! `link` is the whole crate, `core ROOM` one room of the core, `--in-diff` the lines that differ from where the branch left
//! `main`. Further options go to cargo-mutants (`--shard 0/8`, `--list`). It works on a copy of the tree, and its findings stand
//! in `target/mutants.out`. Without cargo-mutants it prints the command that installs it. What is known of survivors stands in
//! `docs/testing.md`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::cargo;
use crate::missing::MissingProgram;

/// What is to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mutated {
    /// The worker channel.
    Link,
    /// A room of the core.
    Room(String),
    /// The lines that differ from `main`.
    Diff,
}

/// Runs cargo-mutants on what the arguments name.
///
/// # Errors
/// There is no such room, cargo-mutants is missing, no difference can be made, or a change is noticed by no test.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let (mutated, options) = read(arguments, &rooms(&cargo::workspace().join("crates/core/src"))?)?;
    if !cargo::runs(&["mutants", "--version"]) {
        bail!(MissingProgram {
            program: "cargo-mutants",
            instead: "docs/testing.md says what earlier runs found",
        });
    }
    let place = match mutated {
        Mutated::Link => vec!["--package".to_owned(), "bulkhead-link".to_owned()],
        Mutated::Room(room) => {
            let files = format!("crates/core/src/{room}/**");
            vec!["--package".to_owned(), "bulkhead-core".to_owned(), "--file".to_owned(), files]
        }
        Mutated::Diff => vec!["--in-diff".to_owned(), diff()?],
    };
    let place: Vec<&str> = place.iter().chain(options).map(String::as_str).collect();
    cargo::run(&[&["mutants", "--output", "target"], &place[..]].concat())
}

/// The names of the rooms of the core, from its folders.
fn rooms(core: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(core).context("read the folder of the core")? {
        let entry = entry.context("read the folder of the core")?;
        if entry.path().is_dir() {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    found.sort();
    Ok(found)
}

/// Parses what is to be changed; the rest is for cargo-mutants.
fn read<'a>(arguments: &'a [String], rooms: &[String]) -> Result<(Mutated, &'a [String])> {
    let words: Vec<&str> = arguments.iter().take(2).map(String::as_str).collect();
    match words.as_slice() {
        ["link", ..] => Ok((Mutated::Link, &arguments[1..])),
        ["--in-diff", ..] => Ok((Mutated::Diff, &arguments[1..])),
        ["core", room] => {
            let is_known = rooms.iter().any(|known| known == room);
            ensure!(is_known, "the core has no room {room}; it has {}", rooms.join(", "));
            Ok((Mutated::Room((*room).to_owned()), &arguments[2..]))
        }
        ["core"] => bail!("give a room of the core, one of {}", rooms.join(", ")),
        _ => bail!("give link, core and a room, or --in-diff; options of cargo-mutants may follow"),
    }
}

/// Writes what differs from where the branch left `main` into a file, and gives its path.
fn diff() -> Result<String> {
    let base = git(&["merge-base", "main", "HEAD"])?;
    let text = git(&["diff", base.trim()])?;
    ensure!(!text.is_empty(), "nothing differs from main");
    let file = cargo::workspace().join("target/mutants.diff");
    std::fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    Ok(file.display().to_string())
}

fn git(arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("git");
    let output = command.args(arguments).current_dir(cargo::workspace()).output();
    let output = output.context("git could not be started")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`git {}` failed: {}", arguments.join(" "), error.trim());
    String::from_utf8(output.stdout).context("git printed what is no UTF-8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_code_and_options_are_read() {
        let rooms = ["job".to_owned(), "worker".to_owned()];
        let read = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            super::read(&words, &rooms)
                .map(|(mutated, options)| (mutated, options.to_vec()))
                .map_err(|error| error.to_string())
        };
        assert_eq!(read(&["link"]), Ok((Mutated::Link, vec![])));
        assert_eq!(read(&["--in-diff", "--list"]), Ok((Mutated::Diff, vec!["--list".to_owned()])));
        let shard = vec!["--shard".to_owned(), "0/8".to_owned()];
        assert_eq!(read(&["core", "job", "--shard", "0/8"]), Ok((Mutated::Room("job".to_owned()), shard)));
        for (words, fault) in [
            (&[][..], "give link"),
            (&["core"], "one of job, worker"),
            (&["core", "kitchen"], "no room kitchen; it has job, worker"),
            (&["proto"], "give link"),
        ] {
            assert!(read(words).unwrap_err().contains(fault), "{words:?}");
        }
    }

    #[test]
    fn the_rooms_of_the_core_are_found() {
        let rooms = rooms(&cargo::workspace().join("crates/core/src")).expect("the core is there");
        assert!(["job", "machine", "turn", "worker"].iter().all(|room| rooms.iter().any(|one| one == room)));
    }
}
