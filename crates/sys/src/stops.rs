//! Children that a signal stopped or continued.
//!
//! The kernel raises SIGCHLD for both, and keeps the last unreported change of each child. The waitid(2) here takes
//! no status of a dead child; `tree.rs` and `program.rs` reap those. The children of a child are not seen: they are its
//! own to wait for. Driven by the supervisor's `worker_table/stops.rs` and by `program.rs`.

use std::io;

use nix::errno::Errno;
use nix::libc;

use crate::exit::Which;

/// What happened to a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A signal stopped all its threads.
    Stopped {
        /// Its process id.
        pid: u32,
        /// The signal's number.
        signal: i32,
    },
    /// It was continued.
    Continued {
        /// Its process id.
        pid: u32,
    },
}

/// The next unreported change of any child; `None` if there is none. Never blocks.
///
/// # Errors
/// None for valid arguments.
pub fn next_stop() -> io::Result<Option<Stop>> {
    next_stop_of(Which::Any)
}

/// The next unreported change of one of these children; `None` if there is none. Never blocks.
pub(crate) fn next_stop_of(which: Which<'_>) -> io::Result<Option<Stop>> {
    let (kind, id) = which.as_wait_arguments();
    // SAFETY: all-zero bytes are a valid siginfo_t: it is plain data for the kernel to fill.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WSTOPPED | libc::WCONTINUED | libc::WNOHANG;
    // SAFETY: `info` is a siginfo_t of our own that lives through the call.
    let result = unsafe { libc::waitid(kind, id, &raw mut info, options) };
    match Errno::result(result) {
        // ECHILD: there is no such child.
        Err(Errno::ECHILD) => return Ok(None),
        other => other?,
    };
    // SAFETY: waitid succeeded, so the fields of a SIGCHLD are filled, or still zero when there was nothing.
    let (pid, signal) = unsafe { (info.si_pid(), info.si_status()) };
    Ok(u32::try_from(pid).ok().filter(|pid| *pid != 0).map(|pid| match info.si_code {
        libc::CLD_CONTINUED => Stop::Continued { pid },
        _ => Stop::Stopped { pid, signal },
    }))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::exit::{ExitStatus, Reap, wait_now};
    use crate::pidfd::Process;
    use crate::poll::wait_readable;
    use crate::signals::{CHLD, Signals};
    use crate::testing::{PATIENCE, in_child, shell};

    /// The next change, waiting for SIGCHLD alone.
    fn await_stop(signals: &mut Signals) -> Stop {
        loop {
            if let Some(stop) = next_stop().unwrap() {
                return stop;
            }
            assert!(wait_readable(signals.as_fd(), PATIENCE).unwrap(), "no SIGCHLD");
            signals.pending();
        }
    }

    #[test]
    fn stops_are_told_once_and_the_dead_are_left_alone() {
        in_child("stops::tests::stops_are_told_once_and_the_dead_are_left_alone", || {
            let mut signals = Signals::new(&[CHLD]).unwrap();
            assert_eq!(next_stop().unwrap(), None, "no children at all");
            let (dead, process) = (shell("exit 4"), shell("read line"));
            assert!(wait_readable(dead.as_fd(), PATIENCE).unwrap());
            let pid = process.pid();
            for signal in [libc::SIGSTOP, libc::SIGTSTP] {
                process.kill(signal).unwrap();
                assert_eq!(await_stop(&mut signals), Stop::Stopped { pid, signal });
                assert_eq!(next_stop().unwrap(), None, "told once");
                process.kill(libc::SIGCONT).unwrap();
                assert_eq!(await_stop(&mut signals), Stop::Continued { pid });
                assert_eq!(next_stop().unwrap(), None, "told once");
            }
            process.kill(libc::SIGKILL).unwrap();
            assert!(wait_readable(process.as_fd(), PATIENCE).unwrap());
            assert_eq!(next_stop().unwrap(), None, "a death is no stop");
            for (child, status) in
                [(&dead, ExitStatus::Code(4)), (&process, ExitStatus::Signal { signal: 9, core: false })]
            {
                let found = wait_now(Which::Pidfd(child.as_fd()), Reap::Yes).unwrap();
                assert_eq!(found, Some(status), "a dead child was disturbed");
            }
        });
    }

    /// Each child's changes are kept for who asks for it.
    #[test]
    fn one_child_is_asked_for_among_others() {
        in_child("stops::tests::one_child_is_asked_for_among_others", || {
            let mut signals = Signals::new(&[CHLD]).unwrap();
            let (one, other) = (shell("read line"), shell("read line"));
            let next_of = |process: &Process| next_stop_of(Which::Pidfd(process.as_fd())).unwrap();
            for process in [&other, &one] {
                process.kill(libc::SIGSTOP).unwrap();
            }
            let pid = one.pid();
            let stop = loop {
                match next_of(&one) {
                    Some(stop) => break stop,
                    None => assert!(wait_readable(signals.as_fd(), PATIENCE).unwrap(), "no SIGCHLD"),
                }
                signals.pending();
            };
            assert_eq!(stop, Stop::Stopped { pid, signal: libc::SIGSTOP });
            assert_eq!(next_of(&one), None);
            assert_eq!(await_stop(&mut signals), Stop::Stopped { pid: other.pid(), signal: libc::SIGSTOP });
            one.kill(libc::SIGKILL).unwrap();
            assert!(wait_readable(one.as_fd(), PATIENCE).unwrap());
            assert_eq!(next_of(&one), None, "a death is no stop");
            crate::testing::reap(&one);
            assert_eq!(next_of(&one), None, "it is no child any more");
            other.kill(libc::SIGKILL).unwrap();
            crate::testing::reap(&other);
        });
    }
}
