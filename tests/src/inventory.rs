//! What a daemon has, to be compared before and after: descriptors, threads, children, boot folders, shared pages, files.
//!
//! It counts and compares; nothing here decides what may be different. Driven by the tests that kill.

use std::path::Path;
use std::time::{Duration, Instant};

use bulkhead_proto::client::places;
use bulkhead_proto::client::view::WorkerState;

use crate::daemon::{DEADLINE, Daemon, eventually};
use crate::siege::Belongings;
use crate::wire::Wire;

/// All that can be counted of a daemon at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    belongings: Belongings,
    /// Mappings of boxes, orders and other files in memory.
    shared_pages: usize,
    /// Files in its folder and below.
    files: usize,
}

impl Inventory {
    /// That of this moment.
    pub fn of(daemon: &Daemon) -> Self {
        let shared_pages = mappings(daemon).lines().filter(|line| line.contains("/memfd:")).count();
        Self { belongings: Belongings::of(daemon), shared_pages, files: files(daemon.folder()) }
    }

    /// That of a moment at which nothing moves, and no worker has a file in its folder: each removes those of its bootstrap
    /// itself. `wire` is a connection that stays: once it was answered, the daemon has seen the end of every connection
    /// that was closed before.
    pub fn at_rest(daemon: &Daemon, wire: &mut Wire) -> Self {
        eventually("nothing moves", || {
            wire.status();
            wire.status();
            let first = Self::of(daemon);
            let folders = files(&places::boot_folder(&daemon.socket()));
            (first.belongings.has_folders(folders) && first == Self::of(daemon)).then_some(first)
        })
    }

    /// Waits until the daemon has again what it had.
    ///
    /// # Panics
    /// If that does not come.
    pub fn await_again(&self, daemon: &Daemon) {
        let end = Instant::now() + DEADLINE;
        while Self::of(daemon) != *self {
            assert!(Instant::now() < end, "left: {:?}, before: {self:?}", Self::of(daemon));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Waits until so many workers are up and have nothing to do, and there are no others.
pub fn await_peace(daemon: &Daemon, workers: usize) {
    eventually("the pool is whole", || {
        let rows = daemon.workers();
        let calm = rows.iter().all(|row| matches!(row.state, WorkerState::Idle | WorkerState::Spare));
        (calm && rows.len() == workers).then_some(())
    });
}

/// The daemon's mappings, a line each.
///
/// # Panics
/// If it does not live.
pub fn mappings(daemon: &Daemon) -> String {
    std::fs::read_to_string(format!("/proc/{}/maps", daemon.pid())).expect("the daemon lives")
}

fn files(folder: &Path) -> usize {
    let below = |entry: std::fs::DirEntry| if entry.path().is_dir() { files(&entry.path()) } else { 0 };
    std::fs::read_dir(folder).map_or(0, |entries| entries.flatten().map(|entry| 1 + below(entry)).sum())
}
