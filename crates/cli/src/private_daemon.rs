//! A private daemon for one command, started when no other daemon runs. It has a folder of its own and ends with the
//! command.
//!
//! Its stdin is a pipe of this command, and it stops at the end of that pipe. So it ends and removes its folder even if
//! the command is killed. It has a process group of its own: Ctrl-C reaches only the command, which then cancels its
//! jobs. Driven by `verb/run.rs`.

use std::fs::{File, Permissions};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bulkhead_client::{DaemonClient, Error, Interrupts, ListenerTrust, OwnFolder, connect, wait_readable};

/// How long the daemon may take to accept jobs.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may take to stop before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// The line that it prints when it accepts jobs.
const READY: &[u8] = b"ready\n";
/// How many lines of its log are shown when it does not start.
const LOG_LINES: usize = 5;

/// A running private daemon. Dropping it stops it and removes its folder.
#[derive(Debug)]
pub(crate) struct PrivateDaemon {
    child: Child,
    folder: OwnFolder,
}

impl PrivateDaemon {
    /// Starts a daemon and waits until it accepts jobs. With `show_log` it logs to our stderr, else to a file in its
    /// folder.
    pub(crate) fn start(interrupts: &mut Interrupts, show_log: bool) -> Result<Self> {
        let program = find_program()?;
        let folder = make_folder()?;
        let log = if show_log {
            Stdio::inherit()
        } else {
            File::create(folder.path().join("log")).context("cannot make the private daemon's log")?.into()
        };
        let workers = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let child = Command::new(&program)
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
        let mut daemon = Self { child, folder };
        daemon.await_ready(interrupts)?;
        Ok(daemon)
    }

    /// Connects to the daemon.
    pub(crate) fn connect(&self) -> Result<DaemonClient> {
        // The folder is this user's, and so is everything in it.
        let trust = ListenerTrust::User(self.folder.owner());
        Ok(connect::connect_within(&socket_in(self.folder.path()), trust, connect::HELLO_TIMEOUT)?)
    }

    fn await_ready(&mut self, interrupts: &mut Interrupts) -> Result<()> {
        let until = Instant::now() + START_TIMEOUT;
        let mut said = Vec::new();
        while !said.ends_with(READY) {
            let stdout = self.child.stdout.as_mut().expect("it was started with a pipe");
            let left = until.saturating_duration_since(Instant::now());
            match wait_readable(stdout.as_fd(), left, Some(interrupts))? {
                Err(_) => return Err(Error::Interrupted.into()),
                Ok(false) => {
                    bail!("it did not start within {START_TIMEOUT:?}{}", self.last_words())
                }
                Ok(true) => {}
            }
            if !read_some(stdout, &mut said)? || said.len() > READY.len() {
                bail!("it ended before it accepted jobs{}", self.last_words());
            }
        }
        Ok(())
    }

    /// The last lines of its log.
    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
        if last.is_empty() { String::new() } else { format!("; the end of its log:\n{}", last.join("\n")) }
    }

    /// Closes its stdin and waits for the end of its stdout, which closes when the daemon ends.
    fn stop(&mut self) {
        drop(self.child.stdin.take());
        let ended = self.child.stdout.take().is_none_or(|mut stdout| is_ended(&mut stdout));
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

/// Waits for the end of the daemon's stdout; `false` if it does not end in time.
fn is_ended(stdout: &mut ChildStdout) -> bool {
    let until = Instant::now() + STOP_TIMEOUT;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match wait_readable(stdout.as_fd(), left, None) {
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

/// Makes the folder, in `XDG_RUNTIME_DIR` (a tmpfs) if that is this user's. The path is short, because the path of a
/// socket has a limit of 108 bytes.
fn make_folder() -> Result<OwnFolder> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let parent = runtime.filter(|folder| {
        folder.is_absolute() && folder.as_os_str().len() < 32 && OwnFolder::may_be_in(folder)
    });
    let made = tempfile::Builder::new()
        .prefix("bulkhead-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(parent.as_deref().unwrap_or(Path::new("/tmp")));
    let made = made.context("cannot make a folder for a private daemon")?;
    let own = OwnFolder::take(made.path());
    let own = own.with_context(|| format!("cannot use the new folder {}", made.path().display()))?;
    // From now on it is removed only if its path still leads to it.
    let _path = made.keep();
    Ok(own)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_folder_is_for_its_user_alone_and_short() {
        let folder = make_folder().unwrap();
        let mode = std::fs::metadata(folder.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert!(socket_in(folder.path()).as_os_str().len() < 64);
    }
}
