//! The demo's own daemon: started in a folder of its own, used only through the `bulkhead` command.
//!
//! However the demo ends, also if it is killed, the daemon's standard input closes, so the daemon stops, and the shell
//! that started it removes the folder. Nothing is left behind.

use std::fs::DirBuilder;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// The limit of each step. No step takes nearly as long; it only ends a hang.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The shell script that runs the daemon and then removes its folder, also if the demo is gone.
const SHELL: &str = r#"folder=$1; shift; "$@"; code=$?; rm -rf "$folder"; exit $code"#;

/// A running daemon.
pub(crate) struct Daemon {
    shell: Child,
    said: Receiver<String>,
    log: Receiver<String>,
    programs: PathBuf,
    folder: PathBuf,
}

impl Daemon {
    /// Starts the daemon of `programs` with two workers and `chaos` enabled; returns when it accepts jobs.
    ///
    /// # Errors
    /// The daemon cannot be started or does not become ready; the error has the end of its log.
    pub(crate) fn start(programs: &Path) -> Result<Self> {
        let folder = Path::new("/tmp").join(format!("bulkhead-demo-{}", std::process::id()));
        DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("make {}", folder.display()))?;
        let spawned = Command::new("sh")
            .args(["-c", SHELL, "demo"])
            .arg(&folder)
            .arg(programs.join("bulkhead-supervisor"))
            .arg("--socket")
            .arg(folder.join("s"))
            .arg("--state")
            .arg(folder.join("state"))
            .args(["--workers", "2", "--enable-chaos", "--private"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0) // Ctrl-C is for the demo alone; the daemon then stops in order
            .spawn();
        let mut shell = spawned.inspect_err(|_| _ = std::fs::remove_dir_all(&folder)).context("start sh")?;
        let said = lines(shell.stdout.take());
        let log = lines(shell.stderr.take());
        let daemon = Self { shell, said, log, programs: programs.to_owned(), folder };
        match daemon.said.recv_timeout(DEADLINE) {
            Ok(line) if line == "ready" => Ok(daemon),
            said => bail!("the daemon did not become ready: it said {said:?}\n{}", daemon.last_log_lines()),
        }
    }

    /// A `bulkhead` command for this daemon.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join("bulkhead"));
        command.arg("--socket").arg(self.folder.join("s")).args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs a `bulkhead` command to its end, whatever its exit code.
    ///
    /// # Errors
    /// The command cannot be started or takes longer than the deadline.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<Output> {
        let command = self.command(arguments);
        let seconds = DEADLINE.as_secs().to_string();
        let output = Command::new("timeout")
            .args(["--signal=KILL", &seconds])
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("start bulkhead {}", arguments.join(" ")))?;
        ensure!(output.status.code() != Some(137), "`bulkhead {}` took too long", arguments.join(" "));
        Ok(output)
    }

    /// Runs a `bulkhead` command that must succeed, and returns its standard output.
    ///
    /// # Errors
    /// As [`Self::ask`], or the command fails; the error has its standard error and the end of the daemon's log.
    pub(crate) fn tell(&self, arguments: &[&str]) -> Result<String> {
        let output = self.ask(arguments)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "`bulkhead {}` failed ({}): {said}\n{}",
            arguments.join(" "),
            output.status,
            self.last_log_lines()
        );
        String::from_utf8(output.stdout)
            .with_context(|| format!("output of bulkhead {}", arguments.join(" ")))
    }

    /// Stops the daemon and checks that nothing of it is left.
    ///
    /// # Errors
    /// The daemon does not stop, fails, or leaves its folder behind.
    pub(crate) fn stop(mut self) -> Result<()> {
        ensure!(self.end(), "the daemon did not stop when asked\n{}", self.last_log_lines());
        let status = self.shell.wait().context("wait for the daemon")?;
        ensure!(status.success(), "the daemon failed ({status})\n{}", self.last_log_lines());
        ensure!(!self.folder.exists(), "{} was left behind", self.folder.display());
        Ok(())
    }

    /// Closes its standard input and waits for the end of its output; `false` if that takes too long.
    fn end(&mut self) -> bool {
        drop(self.shell.stdin.take());
        loop {
            match self.said.recv_timeout(DEADLINE) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return true,
                Err(RecvTimeoutError::Timeout) => return false,
            }
        }
    }

    fn last_log_lines(&self) -> String {
        let lines: Vec<String> = self.log.try_iter().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !self.end() {
            // The process group of the shell: the shell and the supervisor, with which its workers end.
            let group = format!("-{}", self.shell.id());
            _ = Command::new("kill").args(["-KILL", "--", &group]).status();
            _ = std::fs::remove_dir_all(&self.folder);
        }
        _ = self.shell.wait();
    }
}

/// The lines of a pipe as they arrive, read by a thread that ends with the pipe.
fn lines(pipe: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, receiver) = channel();
    if let Some(pipe) = pipe {
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
    }
    receiver
}
