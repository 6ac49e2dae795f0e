//! Signals that end a wait instead of the process, and waiting for one descriptor.
//!
//! A program that must clean up after Ctrl-C makes [`Interrupts`] before it begins and gives them to its client:
//! whatever waits then ends with [`crate::Error::Interrupted`], and the program decides. Handlers only write to a
//! pipe; nothing else happens in them.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use bulkhead_sys::poll::{self, PollTarget};
use bulkhead_sys::signals::{self, Signals};

/// SIGINT and SIGTERM, as something to wait for. While it lives they do not end the process.
pub struct Interrupts {
    signals: Signals,
}

impl Interrupts {
    /// Watches SIGINT and SIGTERM from now on.
    ///
    /// # Errors
    /// The handlers cannot be set.
    pub fn new() -> io::Result<Self> {
        Ok(Self { signals: Signals::new(&[signals::INT, signals::TERM])? })
    }

    /// Whether a signal came since the last question.
    pub fn take(&mut self) -> bool {
        !self.signals.pending().is_empty()
    }

    /// Something that writers can watch, while the signals are still told to whoever has this.
    ///
    /// # Errors
    /// No descriptor is to be had.
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

/// A wait ended because of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Rings from a signal until [`Interrupts::take`], or the client that has them, has heard it.
#[derive(Debug)]
pub struct InterruptFd(OwnedFd);

/// Waits until `fd` takes something, or is broken, which the next write tells.
///
/// # Errors
/// `Err(Interrupted)` inside `Ok` if a watched signal came; an I/O error if it cannot be waited.
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

/// Waits until `fd` has something to read or is at its end; `false` when `limit` has passed first.
///
/// # Errors
/// `Err(Interrupted)` inside `Ok` if a watched signal came; an I/O error if it cannot be waited.
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
