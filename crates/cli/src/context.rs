//! What all verbs do at their beginning and their end: find the daemon, write to stdout.
//!
//! Stdout is buffered and locked once; whoever waits must flush before, or a reader sees results late. A closed
//! stdout is an error here and a quiet end in `exit`.

use std::io::{self, BufWriter, StdoutLock, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result};
use bulkhead_client::{ConnectFailure, DaemonClient, InterruptFd, discovery};
use serde::Serialize;

use crate::args::Global;
use crate::patience::Patience;

impl Global {
    /// The daemon that this command talks to.
    pub(crate) fn connect(&self) -> Result<DaemonClient, ConnectFailure> {
        let client = discovery::find(self.socket.as_deref())?;
        log::info!("connected");
        Ok(client)
    }

    /// As [`Self::connect`], for a daemon that has so long for each answer.
    pub(crate) fn connect_within(&self, patience: Duration) -> Result<DaemonClient, ConnectFailure> {
        let mut client = discovery::find_within(self.socket.as_deref(), patience)?;
        client.set_reply_timeout(patience);
        Ok(client)
    }
}

/// Writes one line to stderr. One that is closed or full is no reason to end: nobody reads there, and the code still tells.
pub(crate) fn say(line: impl std::fmt::Display) {
    drop(io::stderr().lock().write_all(format!("{line}\n").as_bytes()));
}

/// Stdout, buffered; [`Out::flush`] before anything that waits, and at the end.
pub(crate) struct Out {
    stdout: BufWriter<Stdout>,
}

struct Stdout {
    lock: StdoutLock<'static>,
    patience: Patience,
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.patience.write(&mut self.lock, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.lock.flush()
    }
}

impl Out {
    pub(crate) fn new() -> Self {
        let stdout = Stdout { lock: io::stdout().lock(), patience: Patience::default() };
        Self { stdout: BufWriter::with_capacity(64 << 10, stdout) }
    }

    /// From now on a signal ends a wait for whoever reads.
    pub(crate) fn heed(&mut self, interrupt_fd: InterruptFd) -> Result<()> {
        let stdout = self.stdout.get_mut();
        stdout.patience = Patience::with(stdout.lock.as_fd(), interrupt_fd)?;
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
