//! Splits a daemon that could take strangers for its own: one that is PID 1, or has children when it starts.
//!
//! A daemon ends each child that belongs to no living worker, and a subreaper gets the orphans below it. A parent that
//! starts a program in the background and then execs the daemon leaves it a child that was never a job; PID 1 gets the
//! orphans of all processes of its namespace. So such a process forks first: the outer process keeps those children, and
//! the inner one is the daemon.
//!
//! The outer process is no subreaper, kills nobody, and has nothing open that somebody could wait for the end of: only
//! standard error, and /dev/null as standard input and output. If it is killed, the inner one stops in order. Called
//! once, by the supervisor's `lib.rs`, before there is a second thread.

//! # Between the two
//!
//! ```text
//!  outer (the pid that was started)              inner (the daemon, a subreaper)
//!  children from before, orphans of strangers    spawner, workers, their orphans
//!  signals ------------ kill(2) ---------------> handlers (signals.rs tells them from direct ones)
//!  NOTIFY_SOCKET <----- socket pair ------------ reports to the service manager
//!  pidfd -------------- readable at its end ---> stops in order
//!  leaves with its code <------- waitid(2) ----- ends
//! ```
//!
//! | the outer process | does |
//! |---|---|
//! | gets a signal | passes it on; TSTP, TTIN and TTOU stop it too, so that its shell sees it stopped |
//! | gets a report | sends it to the service manager, which with NotifyAccess=main hears the main process alone |
//! | has a dead child | reaps it |
//! | sees the inner one dead | sends the last reports and leaves: with its exit code, by its signal, or as PID 1, which no signal of its own ends, with 128 + the signal's number |

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socketpair};
use nix::unistd::{ForkResult, fork};

use crate::call_filter::refused;
use crate::notify;
use crate::pidfd::Process;

mod run;

/// The pid of the first process of a namespace.
const INIT_PID: u32 = 1;

/// What this process is after [`split`].
#[derive(Debug)]
pub enum SplitSide {
    /// The daemon, which needs no outer process.
    Whole,
    /// The daemon, below an outer process.
    Inner(OuterProcess),
    /// The outer process, and the daemon has ended: the exit code to leave with.
    Ended(u8),
}

/// The outer process, as the inner one sees it. Its descriptor is readable after the outer process has died.
#[derive(Debug)]
pub struct OuterProcess {
    process: Process,
    reports: OwnedFd,
}

impl OuterProcess {
    /// Its pid, the sender of the signals that it passes on.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// As [`notify::notify`], by way of the outer process. Never blocks.
    ///
    /// # Errors
    /// EAGAIN: it does not read. EPIPE: it is dead. EMSGSIZE: the text is too long.
    pub fn notify(&self, state: &str) -> io::Result<bool> {
        if !notify::has_manager() {
            return Ok(false);
        }
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        send(self.reports.as_raw_fd(), state.as_bytes(), flags)?;
        Ok(true)
    }
}

impl AsFd for OuterProcess {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }
}

/// Splits this process if it is PID 1 or has children. The outer process returns [`SplitSide::Ended`] after the inner one has
/// ended. Must be called while the process has one thread: a fork copies no other.
///
/// # Errors
/// EAGAIN, ENOMEM, EMFILE, ENFILE: a resource is exhausted. Without errno: a filter refuses a call, by its name.
pub fn split() -> io::Result<SplitSide> {
    if std::process::id() != INIT_PID && !has_children()? {
        return Ok(SplitSide::Whole);
    }
    // All that can fail comes before the fork.
    let process = Process::open(std::process::id())?;
    let (reports, told) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    let signals = SignalFd::with_flags(&SigSet::all(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(|error| refused("signalfd(2)", error))?;
    // Blocked before the fork, so that each signal from now on waits for the outer process to pass it on.
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    // SAFETY: this is the only thread, so the child may do all that its parent may.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            before.thread_set_mask()?;
            Ok(SplitSide::Inner(OuterProcess { process, reports }))
        }
        Ok(ForkResult::Parent { child }) => {
            drop((process, reports));
            let inner = u32::try_from(child.as_raw()).expect("a process id is not negative");
            Ok(SplitSide::Ended(run::outer(inner, signals, told, null)))
        }
        Err(error) => {
            before.thread_set_mask()?;
            Err(refused("clone(2)", error))
        }
    }
}

/// Whether this process has children: living or dead, traced by others, and those that do not raise SIGCHLD.
fn has_children() -> io::Result<bool> {
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
    // SAFETY: a siginfo_t is not asked for, which waitid allows.
    match Errno::result(unsafe { libc::waitid(libc::P_ALL, 0, std::ptr::null_mut(), options) }) {
        Ok(_) => Ok(true),
        Err(Errno::ECHILD) => Ok(false),
        Err(error) => Err(refused("waitid(2)", error)),
    }
}

/// Writes a line to standard error, unless that would wait for its reader.
fn say(text: &str) {
    let stderr = io::stderr();
    let target = crate::poll::PollTarget { fd: stderr.as_fd(), readable: false, writable: true };
    // A pipe that is writable takes a line of less than PIPE_BUF (4096) bytes at once.
    if crate::poll::wait([target], Some(std::time::Duration::ZERO)).is_ok_and(|[seen]| seen.writable) {
        drop(writeln!(&stderr, "bulkhead-supervisor: {text}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{in_child, reap, shell};

    #[test]
    fn a_child_is_seen_alive_and_dead() {
        in_child("outer::tests::a_child_is_seen_alive_and_dead", || {
            assert!(!has_children().unwrap());
            let child = shell("read line");
            assert!(has_children().unwrap());
            child.kill(libc::SIGKILL).unwrap();
            assert!(crate::poll::wait_readable(child.as_fd(), crate::testing::PATIENCE).unwrap());
            assert!(has_children().unwrap(), "a dead child that is not reaped");
            reap(&child);
            assert!(!has_children().unwrap());
        });
    }
}
