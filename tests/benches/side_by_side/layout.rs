//! Who runs on which core, where daemons have their folders, and the raw sockets that round trips are compared with.
//!
//! A round trip takes several times as long between cores as on one; a figure without its layout says nothing.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bulkhead_tests::daemon::{Daemon, Setup, new_folder};

/// Where everybody runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Client, supervisor and workers share core 0.
    OneCore,
    /// Client and supervisor on core 0, workers on core 1.
    Apart,
}

impl Layout {
    /// Both, with the words that figures carry in their names.
    pub(crate) const ALL: [(Self, &'static str); 2] = [(Self::OneCore, "one_core"), (Self::Apart, "apart")];

    /// The core of the workers.
    pub(crate) fn worker_core(self) -> u32 {
        u32::from(self == Self::Apart)
    }

    /// Puts a daemon in its place, and this process.
    pub(crate) fn apply(self, daemon: &Daemon) {
        pin(daemon.pid(), 0);
        for worker in daemon.workers() {
            pin(worker.pid.expect("a worker that is there has a process"), self.worker_core());
        }
        pin(std::process::id(), 0);
    }
}

/// A file system in memory that every Linux has.
const IN_MEMORY: &str = "/dev/shm";

/// A daemon whose own folder lies in memory, as it does in service, where that is below /run.
pub(crate) fn daemon(setup: &Setup) -> Daemon {
    let folder = tempfile::Builder::new().prefix("bh-").tempdir_in(IN_MEMORY);
    Daemon::start_in(folder.unwrap_or_else(|_| new_folder()), setup)
}

/// Puts all threads of a process on one core.
pub(crate) fn pin(pid: u32, core: u32) {
    set_cores(pid, &core.to_string());
}

/// Lets this process run anywhere again.
pub(crate) fn unpin() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from).max(2);
    set_cores(std::process::id(), &format!("0-{}", cores - 1));
}

fn set_cores(pid: u32, cores: &str) {
    let output = Command::new("taskset").args(["-a", "-c", "-p", cores, &pid.to_string()]).output();
    let output = output.expect("taskset is there (util-linux)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The machine, in one line.
pub(crate) fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    let cores = info.lines().filter(|line| line.starts_with("processor")).count();
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or_default();
    format!(
        "machine: {cores} cores,{}; load before the run {load}; 2 workers; medians",
        &model[model.find(':').map_or(0, |at| at + 1)..]
    )
}

/// A process that gives back what it gets, a byte at a time: this program, called with `echo`.
pub(crate) struct Echo {
    child: Child,
    socket: UnixStream,
}

impl Echo {
    /// Starts one on this core.
    pub(crate) fn on(core: u32) -> Self {
        let (socket, theirs) = UnixStream::pair().expect("a pair of sockets");
        let own = std::env::current_exe().expect("the bench knows its own path");
        let child = Command::new(own).arg("echo").stdin(Stdio::from(OwnedFd::from(theirs))).spawn();
        let mut echo = Self { child: child.expect("the bench can start itself"), socket };
        echo.round_trip();
        pin(echo.child.id(), core);
        echo
    }

    /// One byte there and back.
    pub(crate) fn round_trip(&mut self) {
        self.socket.write_all(b"x").expect("the echo reads");
        self.socket.read_exact(&mut [0]).expect("the echo answers");
    }

    /// What two round trips take, once for each of `count`.
    pub(crate) fn two_round_trips(&mut self, count: usize) -> Vec<Duration> {
        let mut spans = Vec::with_capacity(count);
        for _ in 0..count {
            let begun = Instant::now();
            self.round_trip();
            self.round_trip();
            spans.push(begun.elapsed());
        }
        spans
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        drop(self.socket.shutdown(std::net::Shutdown::Both));
        drop(self.child.wait());
    }
}

/// The other half of [`Echo`]: its socket is standard input.
pub(crate) fn echo() {
    let socket = std::io::stdin().as_fd().try_clone_to_owned().expect("standard input is open");
    let mut socket = UnixStream::from(socket);
    let mut byte = [0];
    while matches!(socket.read(&mut byte), Ok(1)) && socket.write_all(&byte).is_ok() {}
}
