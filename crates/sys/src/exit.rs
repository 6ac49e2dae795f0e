//! How a process ended, from the kernel's wait status.
//!
//! It calls waitid(2), not waitpid(2): it can check a dead child without reaping it, and wait for exactly the process
//! behind a pidfd. The system call is made directly, because nix's wrapper fails for a process that a realtime signal
//! ended, after reaping it. Used by `tree.rs`, `strays.rs`, `descendants_end.rs`, `stops.rs` and `outer/run.rs`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// It exited with this code.
    Code(i32),
    /// A signal killed it.
    Signal {
        /// The signal's number.
        signal: i32,
        /// Whether the kernel wrote a core file.
        core: bool,
    },
}

/// The children to ask for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Which<'a> {
    /// Any child.
    Any,
    /// The process behind this pidfd.
    Pidfd(BorrowedFd<'a>),
    /// The child with this process id.
    Pid(u32),
    /// Any child in this process group.
    Group(u32),
}

impl Which<'_> {
    /// The first two arguments of waitid(2).
    pub(crate) fn as_wait_arguments(self) -> (libc::idtype_t, libc::id_t) {
        match self {
            Self::Any => (libc::P_ALL, 0),
            Self::Pidfd(fd) => {
                let fd = libc::id_t::try_from(fd.as_raw_fd()).expect("an open descriptor is not negative");
                (libc::P_PIDFD, fd)
            }
            Self::Pid(pid) => (libc::P_PID, pid),
            Self::Group(group) => (libc::P_PGID, group),
        }
    }
}

/// Whether to reap a dead child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reap {
    /// Reap it, which frees its pid.
    Yes,
    /// Leave it: its pid stays reserved.
    No,
}

/// Blocks until some child is dead, and does not reap it.
///
/// # Errors
/// ECHILD: we have none. EINTR: a signal was handled.
pub(crate) fn wait_for_any() -> io::Result<()> {
    // SAFETY: a siginfo_t is not asked for, which waitid allows.
    let result = unsafe { libc::waitid(libc::P_ALL, 0, std::ptr::null_mut(), libc::WEXITED | libc::WNOWAIT) };
    Errno::result(result)?;
    Ok(())
}

/// Checks for a dead child; `None`: such children exist and all are alive. Never blocks.
///
/// # Errors
/// ECHILD: there is no such child.
pub(crate) fn wait_now(which: Which<'_>, reap: Reap) -> io::Result<Option<ExitStatus>> {
    let (kind, id) = which.as_wait_arguments();
    let keep = if reap == Reap::No { libc::WNOWAIT } else { 0 };
    Ok(ask(kind, id, keep)?.map(|(_, status)| status))
}

/// Reaps any dead child, also one that does not raise SIGCHLD. Returns its pid and how it ended; `None`: all children are
/// alive. Never blocks.
///
/// # Errors
/// ECHILD: we have none.
pub(crate) fn reap_any() -> io::Result<Option<(u32, ExitStatus)>> {
    ask(libc::P_ALL, 0, libc::__WALL)
}

/// The pid of a dead child, and how it ended.
fn ask(kind: libc::idtype_t, id: libc::id_t, options: libc::c_int) -> io::Result<Option<(u32, ExitStatus)>> {
    // SAFETY: all-zero bytes are a valid siginfo_t: it is plain data for the kernel to fill.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is a siginfo_t of our own that lives through the call.
    let result = unsafe { libc::waitid(kind, id, &raw mut info, libc::WEXITED | libc::WNOHANG | options) };
    Errno::result(result)?;
    // SAFETY: waitid succeeded, so the fields of a SIGCHLD are filled, or still zero when no child was dead.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    let status = match info.si_code {
        libc::CLD_EXITED => ExitStatus::Code(status),
        code => ExitStatus::Signal { signal: status, core: code == libc::CLD_DUMPED },
    };
    Ok(u32::try_from(pid).ok().filter(|pid| *pid != 0).map(|pid| (pid, status)))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::time::Duration;

    use super::*;
    use crate::poll::wait_readable;
    use crate::testing::shell;

    fn ended(script: &str) -> ExitStatus {
        let process = shell(script);
        assert!(wait_readable(process.as_fd(), Duration::from_secs(30)).unwrap());
        let seen = wait_now(Which::Pidfd(process.as_fd()), Reap::No).unwrap().unwrap();
        assert_eq!(wait_now(Which::Pid(process.pid()), Reap::Yes).unwrap(), Some(seen), "a look changed it");
        let error = wait_now(Which::Pidfd(process.as_fd()), Reap::Yes).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECHILD));
        seen
    }

    #[test]
    fn every_end_keeps_its_number() {
        assert_eq!(ended("exit 7"), ExitStatus::Code(7));
        assert_eq!(ended("ulimit -c 0; kill -SEGV $$"), ExitStatus::Signal { signal: 11, core: false });
        assert_eq!(ended("kill -KILL $$"), ExitStatus::Signal { signal: 9, core: false });
        assert_eq!(ended("kill -40 $$"), ExitStatus::Signal { signal: 40, core: false });
    }

    #[test]
    fn a_living_child_is_not_waited_for() {
        let process = shell("read line");
        assert_eq!(wait_now(Which::Pid(process.pid()), Reap::Yes).unwrap(), None);
        process.kill(libc::SIGKILL).unwrap();
        assert!(wait_readable(process.as_fd(), Duration::from_secs(30)).unwrap());
        assert!(wait_now(Which::Pid(process.pid()), Reap::Yes).unwrap().is_some());
    }
}
