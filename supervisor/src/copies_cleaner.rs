//! Removes the folders in which dead workers had copies of files (`worker/src/exec/copies.rs`).
//!
//! A worker locks its folder, so one whose lock is free belongs to nobody that lives. The daemon removes those when it
//! starts and ends, and after each proven death of a worker. The disk may block for ever, so a thread removes them: at
//! most one while the loop runs, however many workers die. Driven by `setup.rs` and `worker_table`.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bulkhead_proto::worker::copies::FOLDER_PREFIX;
use bulkhead_sys::clock;
use bulkhead_sys::locked_folder::remove_all_abandoned;

use crate::rate_limit::{self, LineAbout};

/// How long the end of the daemon waits for the disk.
const END_WAIT: Duration = Duration::from_secs(5);
/// No thread runs.
const IDLE: u8 = 0;
/// The thread runs.
const RUNNING: u8 = 1;
/// The thread runs, and will look once more.
const AGAIN: u8 = 2;

/// Removes the folders of dead workers in one place.
#[derive(Clone, Debug)]
pub(crate) struct CopiesCleaner {
    place: PathBuf,
    state: Arc<AtomicU8>,
}

impl CopiesCleaner {
    pub(crate) fn new(place: PathBuf) -> Self {
        Self { place, state: Arc::default() }
    }

    /// Where workers make their folders.
    pub(crate) fn place(&self) -> &Path {
        &self.place
    }

    /// Removes them before it returns.
    pub(crate) fn clean(&self) {
        match remove_all_abandoned(&self.place, FOLDER_PREFIX) {
            Ok(0) => {}
            Ok(count) => {
                if rate_limit::may_log(LineAbout::Workers, clock::monotonic_ns()) {
                    log::info!(
                        "removed copies of dead workers count={count} folder={}",
                        self.place.display()
                    );
                }
            }
            Err(error) => {
                log::warn!(
                    "cannot look for copies of dead workers folder={} error={error}",
                    self.place.display()
                );
            }
        }
    }

    /// Removes them in a thread, and waits for it no longer than [`END_WAIT`]: the daemon is ending, and the next one
    /// removes what is left.
    pub(crate) fn clean_at_end(&self) {
        let (ended, wait) = mpsc::channel();
        let this = self.clone();
        let work = move || {
            this.clean();
            let _ = ended.send(());
        };
        if std::thread::Builder::new().name("clean-copies".to_owned()).spawn(work).is_ok() {
            let _ = wait.recv_timeout(END_WAIT);
        }
    }

    /// Has a thread remove them.
    pub(crate) fn clean_in_thread(&self) {
        let next = |state| Some(if state == IDLE { RUNNING } else { AGAIN });
        if self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, next) != Ok(IDLE) {
            return;
        }
        let this = self.clone();
        let work = move || {
            loop {
                this.clean();
                if this.state.fetch_sub(1, Ordering::AcqRel) == RUNNING {
                    return;
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name("clean-copies".to_owned()).spawn(work) {
            self.state.store(IDLE, Ordering::Release);
            log::warn!("cannot start a thread that removes copies of dead workers error={error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_removes_what_is_there_whenever_it_is_asked() {
        let place = tempfile::tempdir().unwrap();
        let cleaner = CopiesCleaner::new(place.path().to_owned());
        for _ in 0..50 {
            std::fs::create_dir_all(place.path().join(format!("{FOLDER_PREFIX}0/a"))).unwrap();
            cleaner.clean_in_thread();
        }
        while cleaner.state.load(Ordering::Acquire) != IDLE {
            std::thread::yield_now();
        }
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    }
}
