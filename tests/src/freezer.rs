//! A control group in which processes cannot die: the freezer of cgroup v1, where SIGKILL waits for the thaw.
//!
//! The freezer of cgroup v2 lets SIGKILL through, so it is of no use here. Dropping the group thaws and removes it, so
//! that a failed test leaves no process frozen. Driven by the tests.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::daemon::eventually;

const ROOT: &str = "/sys/fs/cgroup/freezer";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// One group, empty at first.
#[derive(Debug)]
pub struct Freezer(PathBuf);

impl Freezer {
    /// A new one.
    ///
    /// # Errors
    /// Why the machine has none, or this user may not make one.
    pub fn new() -> Result<Self, String> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(ROOT).join(format!("bulkhead-test-{}-{number}", std::process::id()));
        let usable = std::fs::exists(format!("{ROOT}/cgroup.procs")).unwrap_or(false)
            && std::fs::create_dir(&path).is_ok();
        if !usable {
            return Err(format!("no cgroup v1 freezer at {ROOT}, or no right to use it"));
        }
        Ok(Self(path))
    }

    fn set(&self, state: &str) {
        std::fs::write(self.0.join("freezer.state"), state).expect("the group is ours");
    }

    /// Freezes these processes, and waits until they are.
    pub fn freeze(&self, pids: &[u32]) {
        for pid in pids {
            std::fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("the process lives");
        }
        self.set("FROZEN");
        eventually("all are frozen", || {
            let state = std::fs::read_to_string(self.0.join("freezer.state")).expect("the group is ours");
            (state.trim() == "FROZEN").then_some(())
        });
    }

    /// Thaws them: they go on, or die.
    pub fn thaw(&self) {
        self.set("THAWED");
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        self.thaw();
        let end = std::time::Instant::now() + crate::daemon::DEADLINE;
        // The group can be removed only when its last process is gone.
        while std::fs::remove_dir(&self.0).is_err() && std::time::Instant::now() < end {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}
