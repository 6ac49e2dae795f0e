//! A process, held by its pidfd, which never refers to another one even if the pid is reused.
//!
//! Dropping a [`Process`] neither kills nor reaps it; `tree.rs` does both.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;

use crate::call_filter::refused;

/// A process. Its descriptor is readable after the process has died.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    pidfd: OwnedFd,
}

impl Process {
    /// Opens a pidfd of the process that has this pid now. Only a child that is not reaped is certain to be the same
    /// process as before.
    ///
    /// # Errors
    /// ESRCH: there is no such process. EMFILE, ENFILE, ENOMEM: no descriptor is free. Without errno: a filter refuses the
    /// call, by its name.
    pub fn open(pid: u32) -> io::Result<Self> {
        // SAFETY: pidfd_open takes two integers and touches no memory of ours.
        let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let result = Errno::result(result).map_err(|error| refused("pidfd_open(2)", error))?;
        let fd = i32::try_from(result).expect("a descriptor fits 32 bits");
        // SAFETY: the kernel has just made this descriptor for us and no other code has it.
        Ok(Self { pid, pidfd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// The pid, for logs and comparisons. Signals are sent by [`Self::kill`].
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal to this process and no other. Does nothing if it is dead.
    ///
    /// # Errors
    /// EPERM: it runs as another user now. EINVAL: no such signal.
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
