//! What all verbs do at their beginning and their end: find the daemon, write to stdout.
//!
//! LockedStdout is buffered and locked once; whoever waits must flush before, or a reader sees results late. A closed
//! stdout is an error here and a quiet end in `exit`.

use std::io::{self, BufWriter, StdoutLock, Write};
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use bulkhead_client::InterruptFd;
use serde::Serialize;

use crate::write_wait::WriteWait;

/// Writes one line to stderr. One that is closed or full is no reason to end: nobody reads there, and the code still tells.
pub(crate) fn say(line: impl std::fmt::Display) {
    drop(io::stderr().lock().write_all(format!("{line}\n").as_bytes()));
}

/// LockedStdout, buffered; [`StdoutWriter::flush`] before anything that waits, and at the end.
pub(crate) struct StdoutWriter {
    stdout: BufWriter<LockedStdout>,
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
        Self { stdout: BufWriter::with_capacity(64 << 10, stdout) }
    }

    /// From now on a signal ends a wait for whoever reads.
    pub(crate) fn heed(&mut self, interrupt_fd: InterruptFd) -> Result<()> {
        let stdout = self.stdout.get_mut();
        stdout.write_wait = WriteWait::with(stdout.lock.as_fd(), interrupt_fd)?;
        Ok(())
    }

    /// Writes one line.
    pub(crate) fn line(&mut self, line: impl std::fmt::Display) -> Result<()> {
        writeln!(self.stdout, "{line}").context(WRITE)
    }

    /// Writes one line of JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<()> {
        serde_json::to_writer(&mut self.stdout, value).map_err(io::Error::from).context(WRITE)?;
        self.stdout.write_all(b"\n").context(WRITE)
    }

    /// Brings everything out.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.stdout.flush().context(WRITE)
    }

    /// For whoever writes bytes.
    pub(crate) fn writer(&mut self) -> &mut impl Write {
        &mut self.stdout
    }
}

const WRITE: &str = "cannot write to stdout";
