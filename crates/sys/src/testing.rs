//! Shared by the tests of this crate: shells to experiment on, and tests that run in a process of their own.
//!
//! Tests run side by side in one process. A test that changes the process, or counts all its children, must run
//! through [`in_child`]. Until its exec a child holds copies of all descriptors, so each spawn goes through
//! [`spawning`], and a test that watches for a last close holds [`nobody_spawns`]. Nothing here sleeps.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{RwLock, RwLockWriteGuard};
use std::time::Duration;

use crate::exit::{ExitStatus, Reap, Which, wait_now};
use crate::pidfd::Process;
use crate::poll::wait_readable;
use crate::spawn::{Spawn, spawn};

/// The longest wait of a test; only a hang reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

const MARK: &str = "BULKHEAD_SYS_TEST_CHILD";

static SPAWNING: RwLock<()> = RwLock::new(());

/// Runs `work`, which spawns a process and returns after its exec.
pub(crate) fn spawning<T>(work: impl FnOnce() -> T) -> T {
    let _shared = SPAWNING.read();
    work()
}

/// While it is held no child has copies of descriptors, so a close here is the last one.
pub(crate) fn nobody_spawns() -> RwLockWriteGuard<'static, ()> {
    SPAWNING.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A shell in its own process group, whose standard input stays open as long as the test process lives.
pub(crate) fn shell(script: &str) -> Process {
    let (ours, theirs) = UnixStream::pair().unwrap();
    std::mem::forget(ours);
    shell_on(script, theirs)
}

/// A shell with this standard input.
pub(crate) fn shell_on(script: &str, stdin: UnixStream) -> Process {
    let args = ["-c".into(), script.into()];
    let env = [("PATH".into(), "/usr/bin:/bin".into())];
    let shell = Spawn { program: Path::new("/bin/sh"), args: &args, env: &env, stdin: stdin.into() };
    spawning(|| spawn(shell)).unwrap()
}

/// Waits for the end of a process and reaps it.
pub(crate) fn reap(process: &Process) -> ExitStatus {
    assert!(wait_readable(process.as_fd(), PATIENCE).unwrap(), "it lives");
    wait_now(Which::Pidfd(process.as_fd()), Reap::Yes).unwrap().unwrap()
}

/// Runs `body` in a process of its own: starts this test binary again for this one test. `name` is the test's path
/// without the crate.
pub(crate) fn in_child(name: &str, body: impl FnOnce()) {
    if std::env::var_os(MARK).is_some_and(|mark| mark == name) {
        return body();
    }
    let mut test = Command::new(std::env::current_exe().unwrap());
    test.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(MARK, name);
    test.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = spawning(|| test.spawn()).unwrap().wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{}\n{text}\n{errors}", output.status);
    for line in text.lines().filter(|line| line.starts_with("SKIPPED ")) {
        drop(writeln!(std::io::stdout(), "\n{line}"));
    }
}
