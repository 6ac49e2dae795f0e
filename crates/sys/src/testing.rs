//! What the tests of this crate share: shells to experiment on, and tests that run in a process of their own.
//!
//! Tests share one process and run side by side; whatever changes the process as a whole, or counts all of its
//! children, must run through [`in_child`]. Until a child has called exec it holds a copy of every descriptor:
//! whoever spawns does it [`spawning`], and a test that looks for a last close holds [`nobody_spawns`]. Nothing
//! here sleeps.

use std::ffi::OsString;
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

/// Longest wait of a test: only a hang meets it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

const MARK: &str = "BULKHEAD_SYS_TEST_CHILD";

static SPAWNING: RwLock<()> = RwLock::new(());

/// Runs `work`, which spawns a process and comes back when it has called exec.
pub(crate) fn spawning<T>(work: impl FnOnce() -> T) -> T {
    let _shared = SPAWNING.read();
    work()
}

/// While it is held, what is closed here is closed everywhere.
pub(crate) fn nobody_spawns() -> RwLockWriteGuard<'static, ()> {
    SPAWNING.write().unwrap_or_else(std::sync::PoisonError::into_inner)
}

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
    let shell = Spawn { program: Path::new("/bin/sh"), args: &args, env: &env, stdin: stdin.into() };
    spawning(|| spawn(shell)).unwrap()
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
    let mut test = Command::new(std::env::current_exe().unwrap());
    test.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(MARK, name);
    test.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = spawning(|| test.spawn()).unwrap().wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{}\n{text}\n{errors}", output.status);
}
