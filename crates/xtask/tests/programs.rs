//! Verbs that need a program which may not be installed: what they say without it, what they run with it, and the exit
//! codes of both.
//!
//! The cargo-deny here is a script: the real one asks the network.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A new folder for programs.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    drop(std::fs::remove_dir_all(&folder));
    std::fs::create_dir_all(&folder).expect("make the folder of programs");
    folder
}

/// Runs `cargo xtask ARGUMENTS` where this folder holds all programs but cargo.
fn xtask(arguments: &[&str], folder: &Path) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_xtask"));
    program.args(arguments).env("CARGO", env!("CARGO")).env("CARGO_HOME", folder).env("PATH", folder);
    program.output().expect("the program of this package can be started")
}

#[test]
fn a_missing_program_has_an_exit_code_of_its_own() {
    let empty = folder("nothing");
    for (arguments, program) in
        [(&["deny"][..], "cargo-deny"), (&["fuzz", "frames"], "cargo-fuzz"), (&["book"], "mdbook")]
    {
        let output = xtask(arguments, &empty);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(127), "{told}");
        assert!(told.contains(&format!("{program} is not installed")), "{told}");
        assert!(told.contains(&format!("\n    cargo install --locked {program}\n")), "{told}");
    }
    let usage = String::from_utf8_lossy(&xtask(&["help"], &empty).stdout).into_owned();
    assert!(usage.contains("127"), "{usage}");
}

/// A shell writes the script: this process never holds it open for writing, so no fork of another test can keep it from
/// being started.
#[test]
fn deny_runs_cargo_deny_and_ends_as_it_does() {
    let programs = folder("scripts");
    let script = programs.join("cargo-deny");
    for (end, code) in [(0, 0), (4, 1)] {
        let text = format!("#!/bin/sh\ncase $2 in --version) exit ;; esac\necho \"given: $*\"\nexit {end}\n");
        let mut shell = Command::new("/bin/sh");
        let written =
            shell.arg("-c").arg("printf %s \"$2\" >\"$1\"").arg("sh").arg(&script).arg(text).status();
        assert!(written.expect("a shell can be started").success(), "write the script");
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("make it a program");
        let output = xtask(&["deny"], &programs);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(told.contains("given: deny --locked check\n"), "{told}");
    }
}
