//! A process that cannot be mistaken for another: its id, and a pidfd that stays its own when the id is reused.
//!
//! Dropping a [`Process`] neither kills nor reaps it: whoever spawned it keeps that duty (`tree` does both).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;

/// A process. Its descriptor is readable once the process has died.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    pidfd: OwnedFd,
}

impl Process {
    /// Takes hold of whatever process has this number now. Unless it is a child that was not reaped yet, that may be
    /// another than the one that had it before.
    ///
    /// # Errors
    /// ESRCH: nobody has it. EMFILE, ENFILE, ENOMEM: no descriptor is free.
    pub fn open(pid: u32) -> io::Result<Self> {
        // SAFETY: pidfd_open takes two integers and touches no memory of ours.
        let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let fd = i32::try_from(Errno::result(result)?).expect("a descriptor fits 32 bits");
        // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
        Ok(Self { pid, pidfd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// The process id: for logs, and to recognise it. Signals go through [`Self::kill`].
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal to this process and no other. One that is dead already is fine.
    ///
    /// # Errors
    /// EPERM: it runs as somebody else now. EINVAL: no such signal.
    pub fn kill(&self, signal: i32) -> io::Result<()> {
        // SAFETY: pidfd_send_signal takes integers and a null siginfo, which it allows.
        let result = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.pidfd.as_raw_fd(),
                signal,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        match Errno::result(result) {
            Ok(_) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::exit::{ExitStatus, Reap, Which, wait_now};
    use crate::poll::wait_readable;
    use crate::testing::shell;

    #[test]
    fn death_makes_it_readable_and_later_kills_are_fine() {
        let process = shell("read line");
        assert!(!wait_readable(process.as_fd(), Duration::ZERO).unwrap());
        process.kill(libc::SIGTERM).unwrap();
        assert!(wait_readable(process.as_fd(), Duration::from_secs(30)).unwrap());
        process.kill(libc::SIGKILL).unwrap();
        let status = wait_now(Which::Pidfd(process.as_fd()), Reap::Yes).unwrap();
        assert_eq!(status, Some(ExitStatus::Signal { signal: libc::SIGTERM, core: false }));
        process.kill(libc::SIGKILL).unwrap();
    }

    #[test]
    fn a_signal_that_does_not_exist_is_an_error() {
        let process = shell("read line");
        assert_eq!(process.kill(1000).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        process.kill(libc::SIGKILL).unwrap();
        crate::testing::reap(&process);
    }
}
