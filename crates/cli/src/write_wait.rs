//! Writes to a pipe whose reader may stop reading: a signal ends a write that would wait for ever.
//!
//! A command that watches signals is not interrupted by them in a blocking write to a full pipe. So it first polls the
//! pipe together with the signals, and writes no more at once than fits. It must never take the signal: the client
//! takes it and then cancels the jobs. Used by `stdio.rs` and `output_target.rs`.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};

use bulkhead_client::{InterruptFd, Interrupted, wait_writable};

/// Bytes of one write. A pipe that polls as writable has room for a page (pipe(7)); half of it is left for bytes that
/// `Stdout` itself has buffered.
const PIECE_BYTES: usize = 2048;

/// How a write to one descriptor waits.
#[derive(Debug, Default)]
pub(crate) struct WriteWait {
    /// `None`: the write blocks.
    interrupt_fd: Option<InterruptFd>,
    is_over: bool,
}

impl WriteWait {
    /// Signals end a wait for `fd`. A regular file is always writable and needs no wait.
    pub(crate) fn with(fd: BorrowedFd<'_>, interrupt_fd: InterruptFd) -> io::Result<Self> {
        let is_plain = File::from(fd.try_clone_to_owned()?).metadata()?.is_file();
        Ok(Self { interrupt_fd: (!is_plain).then_some(interrupt_fd), is_over: false })
    }

    /// Writes some of `bytes`.
    ///
    /// # Errors
    /// As the write; [`Interrupted`], for this write and all later ones, if a signal arrived while it waited.
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

/// Whether a write was ended by a signal.
pub(crate) fn is_interrupted(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Interrupted>())
}
