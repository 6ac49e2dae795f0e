//! Signals that end a wait instead of the process, and waits for one descriptor.
//!
//! A program that must clean up after Ctrl-C makes [`Interrupts`] at its start and gives them to its client. A signal
//! then ends the client's current wait with [`crate::Error::Interrupted`], and the program decides what to do. The
//! signal handlers only write to a pipe.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use bulkhead_sys::inherited_signals;
use bulkhead_sys::poll::{self, PollTarget};
use bulkhead_sys::shortage;
use bulkhead_sys::signals::{self, Signals};

/// Unblocks all signals and undoes inherited ignoring, except of INT, QUIT and HUP; a write beyond the limit of file size
/// becomes an error. For a program of its own, first in its `main`, before it has a second thread.
///
/// # Errors
/// None that a program can meet.
pub fn start_clean() -> io::Result<()> {
    inherited_signals::start_clean()?;
    inherited_signals::survive_file_size_limit()
}

/// What to do about a write that failed with [`io::ErrorKind::FileTooLarge`]: names the limit and its value.
pub fn file_size_remedy() -> String {
    shortage::file_size_remedy()
}

/// Watches SIGINT and SIGTERM. While it lives, they do not end the process. A SIGINT that was ignored at the start, as
/// by a shell's `&`, stays ignored.
pub struct Interrupts {
    signals: Signals,
}

impl Interrupts {
    /// Sets the handlers of SIGINT and SIGTERM.
    ///
    /// # Errors
    /// The handlers cannot be set.
    pub fn new() -> io::Result<Self> {
        Ok(Self { signals: Signals::new(&[signals::INT, signals::TERM])? })
    }

    /// Whether a signal arrived since the last call.
    pub fn take(&mut self) -> bool {
        !self.signals.pending().is_empty()
    }

    /// A descriptor that becomes readable with a signal, for [`wait_writable`]. Watching it does not take the signal.
    ///
    /// # Errors
    /// The descriptor cannot be duplicated.
    pub fn fd(&self) -> io::Result<InterruptFd> {
        Ok(InterruptFd(self.signals.as_fd().try_clone_to_owned()?))
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}

impl fmt::Debug for Interrupts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Interrupts")
    }
}

/// The error of a wait that a signal ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// A descriptor that is readable from a signal until [`Interrupts::take`], or the client that owns them, has taken it.
#[derive(Debug)]
pub struct InterruptFd(OwnedFd);

/// Waits until `fd` is writable, or broken, which the next write reports.
///
/// # Errors
/// `Err(Interrupted)` inside `Ok` if a watched signal arrived; an I/O error if poll fails.
pub fn wait_writable(fd: BorrowedFd<'_>, interrupt_fd: &InterruptFd) -> io::Result<Result<(), Interrupted>> {
    loop {
        let writer = PollTarget { fd, readable: false, writable: true };
        let [seen, rung] = poll::wait([writer, PollTarget::readable(interrupt_fd.0.as_fd())], None)?;
        if rung.readable {
            return Ok(Err(Interrupted));
        }
        if seen.writable {
            return Ok(Ok(()));
        }
    }
}

/// Waits until `fd` is readable or at its end; `false` if `limit` passes first.
///
/// # Errors
/// `Err(Interrupted)` inside `Ok` if a watched signal arrived; an I/O error if poll fails.
pub fn wait_readable(
    fd: BorrowedFd<'_>,
    limit: Duration,
    mut interrupts: Option<&mut Interrupts>,
) -> io::Result<Result<bool, Interrupted>> {
    let until = Instant::now() + limit;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let signals =
            interrupts.as_deref().map_or(PollTarget::end(fd), |found| PollTarget::readable(found.as_fd()));
        let [seen, _] = poll::wait([PollTarget::readable(fd), signals], Some(left))?;
        if seen.readable {
            return Ok(Ok(true));
        }
        if interrupts.as_deref_mut().is_some_and(Interrupts::take) {
            return Ok(Err(Interrupted));
        }
        if left.is_zero() {
            return Ok(Ok(false));
        }
    }
}
