//! Puts programs into folders of a test, so that they can be run at once.
//!
//! The kernel refuses to run a file that any process has open for writing (ETXTBSY). A child that another test's thread
//! starts at that moment inherits this process' descriptors until its exec, so a file that this process writes may still
//! be open in that child afterwards. Therefore this process never opens a program for writing: `install` of coreutils
//! writes it, in a process of its own that has ended when these functions return.

use std::path::Path;
use std::process::Command;

/// Copies a program to `to`, with mode 0755.
///
/// # Panics
/// It cannot be copied.
pub fn copy_program(from: &Path, to: &Path) {
    install(from, to, 0o755);
}

/// Makes a script of this text and mode.
///
/// # Panics
/// It cannot be written.
pub fn write_program(to: &Path, text: &str, mode: u32) {
    let mut draft = to.as_os_str().to_owned();
    draft.push(".text");
    std::fs::write(&draft, text).expect("a file for the text");
    install(Path::new(&draft), to, mode);
    std::fs::remove_file(&draft).expect("the text is there");
}

fn install(from: &Path, to: &Path, mode: u32) {
    let mut command = Command::new("install");
    let output = command.arg("-m").arg(format!("{mode:o}")).arg(from).arg(to).output();
    let output = output.expect("install runs, it is part of coreutils");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cannot install {} as {}: {said}", from.display(), to.display());
}
