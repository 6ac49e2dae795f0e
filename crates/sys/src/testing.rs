//! What the tests of this crate share: shells to experiment on, and tests that run in a process of their own.
//!
//! Tests share one process and run side by side; whatever changes the process as a whole, or counts all of its
//! children, must run through [`in_child`]. Nothing here sleeps.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::exit::{ExitStatus, Reap, Which, wait_now};
use crate::pidfd::Process;
use crate::poll::wait_readable;
use crate::spawn::{Spawn, spawn};

/// Longest wait of a test: only a hang meets it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

const MARK: &str = "BULKHEAD_SYS_TEST_CHILD";

/// A shell in a group of its own, whose standard input never ends while the test lives.
pub(crate) fn shell(script: &str) -> Process {
    let (ours, theirs) = UnixStream::pair().unwrap();
    std::mem::forget(ours);
    shell_on(script, theirs)
}

/// A shell with this standard input.
pub(crate) fn shell_on(script: &str, stdin: UnixStream) -> Process {
    let args = ["-c".into(), script.into()];
    let env = [("PATH", OsString::from("/usr/bin:/bin"))];
    spawn(Spawn { program: Path::new("/bin/sh"), args: &args, env: &env, stdin: stdin.into() }).unwrap()
}

/// Waits for the end of a process of this test and reaps it.
pub(crate) fn reap(process: &Process) -> ExitStatus {
    assert!(wait_readable(process.as_fd(), PATIENCE).unwrap(), "it lives");
    wait_now(Which::Pidfd(process.as_fd()), Reap::Yes).unwrap().unwrap()
}

/// Runs `body` in a process of its own: this test binary, started again for this one test. `name` is the
/// test's full path without the crate.
pub(crate) fn in_child(name: &str, body: impl FnOnce()) {
    if std::env::var_os(MARK).is_some_and(|mark| mark == name) {
        return body();
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(MARK, name)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{}\n{text}\n{errors}", output.status);
}
