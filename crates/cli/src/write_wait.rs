//! Output to whoever may stop reading: a write that would wait for ever ends with a signal.
//!
//! Signals that a command watches end none of its waits by themselves, a write to a pipe that nobody empties among them. So
//! room is waited for first, beside the signals, and no more is written at once than fits. It must never hear a
//! signal in the place of the client, which takes the jobs back. Driven by whatever holds stdout or a file.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};

use bulkhead_client::{InterruptFd, Interrupted, wait_writable};

/// What fits a pipe that has room at all (pipe(7): a page), half of it for what stdout itself may have held back.
const PIECE_BYTES: usize = 2048;

/// How writes to one descriptor wait.
#[derive(Debug, Default)]
pub(crate) struct WriteWait {
    /// `None`: for as long as it takes.
    interrupt_fd: Option<InterruptFd>,
    is_over: bool,
}

impl WriteWait {
    /// With signals that end a wait for `fd`. A plain file keeps nobody waiting.
    pub(crate) fn with(fd: BorrowedFd<'_>, interrupt_fd: InterruptFd) -> io::Result<Self> {
        let is_plain = File::from(fd.try_clone_to_owned()?).metadata()?.is_file();
        Ok(Self { interrupt_fd: (!is_plain).then_some(interrupt_fd), is_over: false })
    }

    /// Writes some of `bytes`.
    ///
    /// # Errors
    /// As the write; [`Interrupted`], now and from now on, once a signal came while it waited.
    pub(crate) fn write(&mut self, into: &mut (impl Write + AsFd), bytes: &[u8]) -> io::Result<usize> {
        let Some(interrupt_fd) = &self.interrupt_fd else { return into.write(bytes) };
        if self.is_over || wait_writable(into.as_fd(), interrupt_fd)?.is_err() {
            self.is_over = true;
            return Err(io::Error::other(Interrupted));
        }
        let count = into.write(&bytes[..bytes.len().min(PIECE_BYTES)])?;
        into.flush()?;
        Ok(count)
    }
}

/// Whether a write ended with a signal.
pub(crate) fn is_interrupted(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Interrupted>())
}
