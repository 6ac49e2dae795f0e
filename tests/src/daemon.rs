//! A real daemon for one test, in a folder of its own.
//!
//! It is started with `--private`, so it ends when the process of the test ends, however that happens. Dropping it
//! stops it and checks that nothing of it is left: no process, no socket, no boot folder.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::time::{Duration, Instant};

use bulkhead_proto::client::places;
use bulkhead_proto::client::view::{WorkerRow, WorkerState};
use tempfile::TempDir;

/// How long a step may take before a test counts it as hung. It is long, because machines are slow and shared.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The folder of the binaries under test: the one that holds this test's own folder.
///
/// # Panics
/// They were not built: `cargo build --workspace` builds them; `cargo xtask test` does so itself.
pub fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a test knows its own path");
    let folder = own.parent().and_then(Path::parent).expect("tests lie two folders down");
    let path = folder.join(name);
    assert!(path.is_file(), "{} is not built: run `cargo build --workspace` first", path.display());
    path
}

/// The settings with which a daemon is started.
#[derive(Clone, Debug)]
pub struct Setup {
    /// `--workers`.
    pub workers: u16,
    /// `--enable-chaos`.
    pub chaos: bool,
    /// Text of a config file.
    pub config: String,
    /// A command to which the daemon's command is appended, and which replaces itself by it (exec).
    pub through: Vec<String>,
    /// The folder of the programs; empty for the programs under test.
    pub programs: PathBuf,
}

impl Default for Setup {
    fn default() -> Self {
        Self { workers: 2, chaos: true, config: String::new(), through: Vec::new(), programs: PathBuf::new() }
    }
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    folder: TempDir,
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Daemon {
    /// Two workers, chaos enabled.
    pub fn start() -> Self {
        Self::start_with(&Setup::default())
    }

    /// Starts it with these settings; returns when it accepts jobs.
    pub fn start_with(setup: &Setup) -> Self {
        Self::start_in(new_folder(), setup)
    }

    /// The same in a folder that the test has prepared.
    pub fn start_in(folder: TempDir, setup: &Setup) -> Self {
        let mut daemon = Self::launch(folder, setup);
        daemon.await_ready();
        daemon
    }

    /// Starts it again in its folder, with all that is left there, after the one before has ended.
    pub fn start_again(&mut self, setup: &Setup) {
        let mut next = Self::spawn(self.folder.path(), setup);
        self.stdin = next.stdin.take();
        self.child = next;
        self.await_ready();
    }

    fn launch(folder: TempDir, setup: &Setup) -> Self {
        let mut child = Self::spawn(folder.path(), setup);
        let stdin = child.stdin.take();
        Self { folder, child, stdin }
    }

    fn spawn(folder: &Path, setup: &Setup) -> Child {
        let config = folder.join("bulkhead.toml");
        std::fs::write(&config, &setup.config).expect("a config file");
        let program = match setup.programs.as_os_str().is_empty() {
            true => binary("bulkhead-supervisor"),
            false => setup.programs.join("bulkhead-supervisor"),
        };
        let mut command = match setup.through.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
            None => Command::new(program),
        };
        command
            .arg("--private")
            .arg("--config")
            .arg(&config)
            .arg("--socket")
            .arg(folder.join("s"))
            .arg("--state")
            .arg(folder.join("state"))
            .arg("--workers")
            .arg(setup.workers.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(folder.join("log")).expect("a log file"));
        if setup.chaos {
            command.arg("--enable-chaos");
        }
        command.spawn().expect("the supervisor starts")
    }

    fn await_ready(&mut self) {
        let stdout = self.child.stdout.take().expect("stdout is piped");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("the supervisor says something");
        assert_eq!(line, "ready\n", "the supervisor did not get ready; its log:\n{}", self.log());
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    /// Its folder: socket, state, log.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// A `bulkhead` command for this daemon.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary("bulkhead"));
        command.arg("--socket").arg(self.socket()).args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs a `bulkhead` command to its end.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the command runs")
    }

    /// Runs a `bulkhead` command that must succeed, and returns its standard output.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.cli(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "bulkhead {arguments:?}: {} {stderr}", output.status);
        String::from_utf8(output.stdout).expect("output is text")
    }

    /// The current rows of `workers`.
    pub fn workers(&self) -> Vec<WorkerRow> {
        let rows = self.ok(&["workers", "--json"]);
        rows.lines().map(|row| serde_json::from_str(row).expect("a row of `workers --json`")).collect()
    }

    /// Waits until some worker is in `state`.
    pub fn await_worker(&self, state: WorkerState) -> WorkerRow {
        eventually(&format!("a worker is {state:?}"), || {
            self.workers().into_iter().find(|row| row.state == state)
        })
    }

    /// Every event so far, a JSON value each.
    pub fn events(&self) -> Vec<serde_json::Value> {
        let text = self.ok(&["events", "--json"]);
        text.lines().map(|line| serde_json::from_str(line).expect("an event")).collect()
    }

    /// The events of this name.
    pub fn events_named(&self, name: &str) -> Vec<serde_json::Value> {
        self.events().into_iter().filter(|event| event["event"] == name).collect()
    }

    /// Ends the daemon by `signal` and waits for it.
    pub fn end(&mut self, signal: &str) -> std::process::ExitStatus {
        send_signal(self.pid(), signal);
        self.await_end()
    }

    /// Waits for the daemon's end.
    pub fn await_end(&mut self) -> std::process::ExitStatus {
        eventually("the daemon ends", || self.child.try_wait().expect("its status can be asked"))
    }

    /// The leftovers in its folder and among the processes.
    pub fn leftovers(&self) -> Vec<String> {
        let mut left: Vec<String> = [self.socket(), places::boot_folder(&self.socket())]
            .iter()
            .filter(|path| path.exists())
            .map(|path| path.display().to_string())
            .collect();
        left.extend(processes_under(self.folder.path()));
        left
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let end = Instant::now() + DEADLINE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        let hung = matches!(self.child.try_wait(), Ok(None));
        if hung {
            drop(self.child.kill());
            drop(self.child.wait());
        }
        if std::thread::panicking() {
            eprintln!("--- log of the daemon\n{}", self.log());
        } else {
            assert!(!hung, "the daemon did not stop when its parent let go; its log:\n{}", self.log());
        }
    }
}

/// A folder for one daemon. Its name is short, because the path of a socket has a limit.
pub fn new_folder() -> TempDir {
    tempfile::Builder::new().prefix("bh-").tempdir().expect("a temporary folder")
}

/// Sends a signal, by its name, to a process that this test or its daemon started.
pub fn send_signal(pid: u32, signal: &str) {
    let status = Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status();
    assert!(status.expect("kill runs").success(), "cannot send {signal} to {pid}");
}

/// Calls `ask` again and again until it returns a value, with a long deadline against hangs.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "it never happened that {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Living processes whose environment or command line names this folder, as `pid command`.
pub fn processes_under(folder: &Path) -> Vec<String> {
    let needle = folder.as_os_str().as_encoded_bytes().to_vec();
    let holds = |bytes: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc is there").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if pid == std::process::id() {
            continue;
        }
        let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
        let (command, environment) = (read("cmdline"), read("environ"));
        if holds(&command) || holds(&environment) {
            found.push(format!("{pid} {}", String::from_utf8_lossy(&command).replace('\0', " ")));
        }
    }
    found
}
