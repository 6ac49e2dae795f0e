//! A private daemon for one command, started when no other daemon runs. It has a folder of its own and ends with the
//! command.
//!
//! Its stdin is a pipe of this command, and it stops at the end of that pipe. So it ends and removes its folder even if
//! the command is killed. It has a process group of its own: Ctrl-C reaches only the command, which then cancels its
//! jobs, and waits for the grace of their programs; a second Ctrl-C kills the daemon and with it the programs.
//!
//! Its stdout is a pipe as well, on which it says one line: `ready`, or `failed ERRNO TEXT`. The text reaches this command
//! though the disk of the log is full. If that is the reason, the next place is tried (`private_place.rs`). Driven by
//! `verb/run.rs`.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, bail};
use bulkhead_client::{DaemonClient, Interrupts, ListenerTrust, OwnFolder, connect, wait_readable};
use bulkhead_proto::plain::Plain;

use crate::private_place;
use crate::stdio::say;

/// How long the daemon may take to accept jobs.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may take to stop before it is killed, beside the grace of its programs.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// The line that it prints when it accepts jobs.
const READY: &[u8] = b"ready\n";
/// The beginning of the line that it prints if it cannot start.
const FAILED: &str = "failed ";
/// The longest such line.
const LINE_MAX_BYTES: usize = 8 << 10;
/// How many lines of its log are shown when it does not start.
const LOG_LINES: usize = 5;

/// How a private daemon is started and stopped.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PrivateOptions {
    /// It logs to our stderr, else to a file in its folder.
    pub(crate) show_log: bool,
    /// Nothing is said about places that have no room.
    pub(crate) quiet: bool,
    /// The grace that its jobs ask for: it may take so much longer to stop.
    pub(crate) grace: Duration,
}

/// A running private daemon. Dropping it stops it and removes its folder.
#[derive(Debug)]
pub(crate) struct PrivateDaemon {
    child: Child,
    folder: OwnFolder,
    grace: Duration,
    interrupts: Option<Interrupts>,
}

/// Why a daemon did not start in one place.
enum StartFailure {
    /// The place does not suit: the next one may.
    Place(Error),
    /// No place would do.
    Any(Error),
}

impl From<Error> for StartFailure {
    fn from(error: Error) -> Self {
        Self::Any(error)
    }
}

/// The failure of something in a place: the error of a system call decides what it is.
fn failed_in(error: io::Error, what: &'static str) -> StartFailure {
    let is_about_place = private_place::is_about_place(&error);
    let error = Error::from(error).context(what);
    if is_about_place { StartFailure::Place(error) } else { StartFailure::Any(error) }
}

impl PrivateDaemon {
    /// Starts a daemon in the first place that has room for it, and waits until it accepts jobs.
    pub(crate) fn start(interrupts: &mut Interrupts, options: PrivateOptions) -> Result<Self> {
        let program = find_program()?;
        let mut refused: Vec<String> = Vec::new();
        for place in private_place::all() {
            match Self::start_in(&place, &program, interrupts, options) {
                Ok(daemon) => {
                    if !refused.is_empty() && !options.quiet {
                        let (place, why) = (place.display(), refused.join("; "));
                        say(format_args!("bulkhead: the folder of the private daemon is in {place}: {why}"));
                    }
                    return Ok(daemon);
                }
                Err(StartFailure::Place(error)) => refused.push(format!("{}: {error:#}", place.display())),
                Err(StartFailure::Any(error)) => return Err(error),
            }
        }
        bail!(
            "no place has room for its folder: {}; set TMPDIR to a folder that has, with a path below 32 bytes",
            refused.join("; ")
        )
    }

    fn start_in(
        place: &Path,
        program: &Path,
        interrupts: &mut Interrupts,
        options: PrivateOptions,
    ) -> Result<Self, StartFailure> {
        let folder = private_place::make_folder(place)
            .map_err(|error| failed_in(error, "cannot make a folder for a private daemon"))?;
        let log = if options.show_log {
            Stdio::inherit()
        } else {
            let made = File::create(folder.path().join("log"));
            made.map_err(|error| failed_in(error, "cannot make the private daemon's log"))?.into()
        };
        let workers = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let child = Command::new(program)
            .args(["--private", "--own-folder", "--workers", &workers.to_string(), "--socket"])
            .arg(socket_in(folder.path()))
            .arg("--state")
            .arg(folder.path().join("state"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        log::info!("private daemon started pid={} folder={}", child.id(), folder.path().display());
        let mut daemon = Self { child, folder, grace: options.grace, interrupts: None };
        daemon.await_ready(interrupts)?;
        Ok(daemon)
    }

    /// Connects to the daemon.
    pub(crate) fn connect(&self) -> Result<DaemonClient> {
        // The folder is this user's, and so is everything in it.
        let trust = ListenerTrust::User(self.folder.owner());
        Ok(connect::connect_within(&socket_in(self.folder.path()), trust, connect::HELLO_TIMEOUT)?)
    }

    fn await_ready(&mut self, interrupts: &mut Interrupts) -> Result<(), StartFailure> {
        let until = Instant::now() + START_TIMEOUT;
        let mut said = Vec::new();
        while !said.ends_with(READY) {
            let stdout = self.child.stdout.as_mut().expect("it was started with a pipe");
            let left = until.saturating_duration_since(Instant::now());
            match wait_readable(stdout.as_fd(), left, Some(interrupts)).map_err(Error::from)? {
                Err(_) => return Err(Error::from(bulkhead_client::Error::Interrupted).into()),
                Ok(false) => {
                    return Err(
                        anyhow!("it did not start within {START_TIMEOUT:?}{}", self.last_words()).into()
                    );
                }
                Ok(true) => {}
            }
            if !read_some(stdout, &mut said)? || said.len() > LINE_MAX_BYTES {
                return Err(self.did_not_start(&said));
            }
        }
        Ok(())
    }

    /// Why it ended before it accepted jobs: what it said on its stdout, else the end of its log.
    fn did_not_start(&self, said: &[u8]) -> StartFailure {
        let said = String::from_utf8_lossy(said);
        let reason = said.trim_end().strip_prefix(FAILED).and_then(|reason| reason.split_once(' '));
        let Some((code, text)) = reason else {
            return anyhow!("it ended before it accepted jobs{}", self.last_words()).into();
        };
        let error = anyhow!("it did not start: {}", Plain(text));
        match code.parse().map(io::Error::from_raw_os_error) {
            // The folder is there and is ours: ENOENT is about another file, and EPERM about a call.
            Ok(cause) if matches!(cause.raw_os_error(), Some(1 | 2)) => StartFailure::Any(error),
            Ok(cause) if private_place::is_about_place(&cause) => StartFailure::Place(error),
            _ => StartFailure::Any(error),
        }
    }

    /// The last lines of its log.
    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
        if last.is_empty() { String::new() } else { format!("; the end of its log:\n{}", last.join("\n")) }
    }

    /// From now on a signal ends the wait for its stop: it is killed.
    pub(crate) fn heed(&mut self, interrupts: Option<Interrupts>) {
        self.interrupts = interrupts;
    }

    /// Closes its stdin and waits for the end of its stdout, which closes when the daemon ends.
    fn stop(&mut self) {
        drop(self.child.stdin.take());
        let (patience, mut interrupts) = (STOP_TIMEOUT + self.grace, self.interrupts.take());
        let stdout = self.child.stdout.take();
        let ended = stdout.is_none_or(|mut stdout| is_ended(&mut stdout, patience, interrupts.as_mut()));
        if !ended {
            log::warn!("private daemon did not stop, killing it pid={}", self.child.id());
            // A failed kill is ignored: the daemon may have ended just now, and the wait below reaps it.
            drop(self.child.kill());
        }
        if let Err(error) = self.child.wait() {
            log::warn!("private daemon cannot be reaped pid={} error={error}", self.child.id());
        }
    }
}

impl Drop for PrivateDaemon {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Waits for the end of the daemon's stdout; `false` if it does not end in time, or a signal came.
fn is_ended(stdout: &mut ChildStdout, patience: Duration, mut interrupts: Option<&mut Interrupts>) -> bool {
    let until = Instant::now() + patience;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match wait_readable(stdout.as_fd(), left, interrupts.as_deref_mut()) {
            Ok(Ok(true)) => {}
            _ => return false,
        }
        if !matches!(read_some(stdout, &mut Vec::new()), Ok(true)) {
            return true;
        }
    }
}

/// Reads once; `false` at the end.
fn read_some(stdout: &mut ChildStdout, into: &mut Vec<u8>) -> Result<bool> {
    let mut buffer = [0; 256];
    let count = stdout.read(&mut buffer).context("cannot read from the private daemon")?;
    into.extend_from_slice(&buffer[..count]);
    Ok(count > 0)
}

fn socket_in(folder: &Path) -> PathBuf {
    folder.join("s")
}

/// `bulkhead-supervisor` beside this program, or in PATH.
fn find_program() -> Result<PathBuf> {
    const NAME: &str = "bulkhead-supervisor";
    let own = std::env::current_exe().context("cannot find the path of this program")?;
    let beside = own.with_file_name(NAME);
    let in_path = std::env::var_os("PATH").unwrap_or_default();
    std::iter::once(beside)
        .chain(std::env::split_paths(&in_path).map(|folder| folder.join(NAME)))
        .find(|path| path.is_file())
        .with_context(|| format!("there is no {NAME} beside {} or in PATH", own.display()))
}
