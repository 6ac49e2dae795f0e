//! Delays the death signal of the parent (PR_SET_PDEATHSIG) while a program runs.
//!
//! The kernel kills a worker when its supervisor dies; then no process would end the worker's program. So while a
//! program runs the signal is switched off and the parent's pidfd is polled instead: the program and all its
//! processes are ended first, then this process dies by the same signal. Never hold two at a time. Driven by
//! `program.rs`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::getppid;

use crate::pidfd::Process;
use crate::poll::{PollTarget, wait};

/// A parent whose death is polled for. Dropping it switches the signal on again, and raises it if the parent has died
/// meanwhile.
pub(super) struct Parent {
    process: Process,
    /// The signal that its death sends.
    signal: libc::c_int,
}

impl Parent {
    /// `None`: no signal was set, or the parent is in another pid namespace.
    pub(super) fn hold() -> io::Result<Option<Self>> {
        let mut signal: libc::c_int = 0;
        // SAFETY: PR_GET_PDEATHSIG writes one integer to the given address.
        Errno::result(unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut signal) })?;
        let parent = u32::try_from(getppid().as_raw()).unwrap_or(0);
        if signal == 0 || parent == 0 {
            return Ok(None);
        }
        // If the pid was reused, the signal has been sent already.
        let process = Process::open(parent)?;
        set_signal(0)?;
        Ok(Some(Self { process, signal }))
    }
}

impl AsFd for Parent {
    /// Readable once the parent is dead.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        // It accepts each number that it has returned.
        drop(set_signal(self.signal));
        // If the parent died before the signal was set again, the kernel sent none, so this is checked afterwards.
        let [seen] = wait([PollTarget::readable(self.as_fd())], Some(Duration::ZERO)).unwrap_or_default();
        if seen.readable {
            // SAFETY: raise takes one integer.
            unsafe { libc::raise(self.signal) };
        }
    }
}

fn set_signal(signal: libc::c_int) -> io::Result<()> {
    // SAFETY: PR_SET_PDEATHSIG takes one integer.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) })?;
    Ok(())
}
