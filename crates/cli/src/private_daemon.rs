//! A daemon for one command, when no other is there: it lives in a folder of its own and dies with the command.
//!
//! It reads a pipe of ours as its stdin and stops when that ends, so it goes even if this command is killed, and takes
//! its folder with it. It is
//! in a process group of its own: Ctrl-C is for this command, which then takes its jobs back in order.

use std::fs::{File, Permissions};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bulkhead_client::{DaemonClient, Error, Interrupts, connect, wait_readable};
use tempfile::TempDir;

/// How long the daemon may take to come up.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take to leave before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// What it says when it takes jobs.
const READY: &[u8] = b"ready\n";
/// Lines of its log that are shown when it does not come up.
const LOG_LINES: usize = 5;

/// A running private daemon. Dropping it stops it and removes its folder.
#[derive(Debug)]
pub(crate) struct PrivateDaemon {
    child: Child,
    folder: TempDir,
}

impl PrivateDaemon {
    /// Starts one and waits until it takes jobs. With `show_log` it logs to our stderr, else to a file in its folder.
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

    /// A connection to it.
    pub(crate) fn connect(&self) -> Result<DaemonClient> {
        Ok(connect::connect(&socket_in(self.folder.path()))?)
    }

    fn await_ready(&mut self, interrupts: &mut Interrupts) -> Result<()> {
        let until = Instant::now() + START_PATIENCE;
        let mut said = Vec::new();
        while !said.ends_with(READY) {
            let stdout = self.child.stdout.as_mut().expect("it was started with a pipe");
            let left = until.saturating_duration_since(Instant::now());
            match wait_readable(stdout.as_fd(), left, Some(interrupts))? {
                Err(_) => return Err(Error::Interrupted.into()),
                Ok(false) => {
                    bail!("it did not come up within {START_PATIENCE:?}{}", self.last_words())
                }
                Ok(true) => {}
            }
            if !read_some(stdout, &mut said)? || said.len() > READY.len() {
                bail!("it ended before it took jobs{}", self.last_words());
            }
        }
        Ok(())
    }

    /// The end of its log.
    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
        if last.is_empty() { String::new() } else { format!("; it said:\n{}", last.join("\n")) }
    }

    /// Closes its stdin and waits for the end of its stdout, which comes with its own end.
    fn stop(&mut self) {
        drop(self.child.stdin.take());
        let ended = self.child.stdout.take().is_none_or(|mut stdout| is_ended(&mut stdout));
        if !ended {
            log::warn!("private daemon did not stop, killing it pid={}", self.child.id());
            // It may have died this very moment; the wait below tells.
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

/// Waits for the end of its stdout; `false` if that does not come in time.
fn is_ended(stdout: &mut ChildStdout) -> bool {
    let until = Instant::now() + STOP_PATIENCE;
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

/// Reads what is there; `false` at the end.
fn read_some(stdout: &mut ChildStdout, into: &mut Vec<u8>) -> Result<bool> {
    let mut buffer = [0; 256];
    let count = stdout.read(&mut buffer).context("cannot read from the private daemon")?;
    into.extend_from_slice(&buffer[..count]);
    Ok(count > 0)
}

fn socket_in(folder: &Path) -> PathBuf {
    folder.join("s")
}

/// A short path, since that of a socket has a limit; on tmpfs where the user has one.
fn make_folder() -> Result<TempDir> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let parent =
        runtime.filter(|folder| folder.is_absolute() && folder.is_dir() && folder.as_os_str().len() < 32);
    tempfile::Builder::new()
        .prefix("bulkhead-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(parent.as_deref().unwrap_or(Path::new("/tmp")))
        .context("cannot make a folder for a private daemon")
}

/// `bulkhead-supervisor` beside this program, or in PATH.
fn find_program() -> Result<PathBuf> {
    const NAME: &str = "bulkhead-supervisor";
    let own = std::env::current_exe().context("cannot tell where this program is")?;
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
