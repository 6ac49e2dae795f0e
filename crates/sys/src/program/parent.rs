//! The death of the parent, held back while a program runs.
//!
//! The kernel kills a worker the moment its supervisor dies, and then nobody would be there to end what the worker's
//! program is doing. So a process that is to die with its parent watches it here instead: the program is ended first,
//! with all that it started, then the process dies as the kernel would have had it. Never hold two at a time.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::getppid;

use crate::pidfd::Process;
use crate::poll::{PollTarget, wait};

/// A parent whose death is seen instead of felt; to be felt again, late if it has come, when this is dropped.
pub(super) struct Parent {
    process: Process,
    /// What its death sends to this process.
    signal: libc::c_int,
}

impl Parent {
    /// `None`: its death means nothing to this process, or it cannot be seen from this namespace of processes.
    pub(super) fn hold() -> io::Result<Option<Self>> {
        let mut signal: libc::c_int = 0;
        // SAFETY: PR_GET_PDEATHSIG writes one integer to where it is told.
        Errno::result(unsafe { libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut signal) })?;
        let parent = u32::try_from(getppid().as_raw()).unwrap_or(0);
        if signal == 0 || parent == 0 {
            return Ok(None);
        }
        // A number that is somebody else's by now would mean that the signal has come already.
        let process = Process::open(parent)?;
        set_signal(0)?;
        Ok(Some(Self { process, signal }))
    }
}

impl AsFd for Parent {
    /// Readable once it is dead.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        // It takes every signal's number that it has given.
        drop(set_signal(self.signal));
        // One that died before that was set again sent nothing; it is asked for after.
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
