//! Children that a signal stopped or continued.
//!
//! The kernel raises SIGCHLD for both, and keeps the last unreported change of each child. The waitid(2) here takes
//! no status of a dead child; `tree.rs` reaps those. Driven by the supervisor's `worker_table/stops.rs`.

use std::io;

use nix::errno::Errno;
use nix::libc;

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
    // SAFETY: all-zero bytes are a valid siginfo_t: it is plain data for the kernel to fill.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WSTOPPED | libc::WCONTINUED | libc::WNOHANG;
    // SAFETY: `info` is a siginfo_t of our own that lives through the call.
    let result = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, options) };
    match Errno::result(result) {
        // ECHILD: no children at all.
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
    use crate::exit::{ExitStatus, Reap, Which, wait_now};
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
}
