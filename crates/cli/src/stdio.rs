//! Standard output and standard error of the command.
//!
//! Stdout is locked once and buffered, so a verb must flush before it waits: else a reader sees results late. A closed
//! stdout is an error here; `exit.rs` turns it into a quiet end. Used by all verbs.

use std::fmt::Write as _;
use std::io::{self, BufWriter, StdoutLock, Write};
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use bulkhead_client::InterruptFd;
use bulkhead_proto::plain::{PlainLine, PlainText};
use serde::Serialize;

use crate::write_wait::WriteWait;

/// Writes one line to stderr, or more. A failed write is ignored: the exit code still tells how the command ended.
pub(crate) fn say(line: impl std::fmt::Display) {
    let text = line.to_string();
    drop(io::stderr().lock().write_all(format!("{}\n", PlainText(&text)).as_bytes()));
}

/// Buffered standard output. Call [`StdoutWriter::flush`] before anything that waits, and at the end.
pub(crate) struct StdoutWriter {
    stdout: BufWriter<LockedStdout>,
    /// The text of the line that is written.
    line: String,
}

struct LockedStdout {
    lock: StdoutLock<'static>,
    write_wait: WriteWait,
}

impl Write for LockedStdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_wait.write(&mut self.lock, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.lock.flush()
    }
}

impl StdoutWriter {
    pub(crate) fn new() -> Self {
        let stdout = LockedStdout { lock: io::stdout().lock(), write_wait: WriteWait::default() };
        Self { stdout: BufWriter::with_capacity(64 << 10, stdout), line: String::new() }
    }

    /// From now on a signal ends a write that waits for the reader of stdout.
    pub(crate) fn heed(&mut self, interrupt_fd: InterruptFd) -> Result<()> {
        let stdout = self.stdout.get_mut();
        stdout.write_wait = WriteWait::with(stdout.lock.as_fd(), interrupt_fd)?;
        Ok(())
    }

    /// Writes one line for people: nothing in it is obeyed by a terminal.
    pub(crate) fn line(&mut self, line: impl std::fmt::Display) -> Result<()> {
        self.line.clear();
        // Writing to a text in memory cannot fail.
        let _ = write!(self.line, "{line}");
        writeln!(self.stdout, "{}", PlainLine(&self.line)).context(WRITE)
    }

    /// Writes one line of JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<()> {
        serde_json::to_writer(&mut self.stdout, value).map_err(io::Error::from).context(WRITE)?;
        self.stdout.write_all(b"\n").context(WRITE)
    }

    /// Writes all that is buffered.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.stdout.flush().context(WRITE)
    }

    /// The buffer, to write bytes to.
    pub(crate) fn writer(&mut self) -> &mut impl Write {
        &mut self.stdout
    }
}

const WRITE: &str = "cannot write to stdout";
