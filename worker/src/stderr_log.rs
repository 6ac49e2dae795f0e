//! The log of a worker: standard error, which it shares with its supervisor, and never waits for.
//!
//! Whoever reads it may be stalled. A worker that waited for them would take no task, or never tell that one has
//! panicked; so a line that the reader has no room for is dropped. The supervisor's log says what became of a worker.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use bulkhead_sys::poll::{self, PollTarget};

/// Standard error, as far as it takes lines at once. A pipe that says so has room for the longest of ours.
struct NonBlockingStderr;

impl Write for NonBlockingStderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut stderr = io::stderr();
        let watched = [PollTarget { fd: stderr.as_fd(), readable: false, writable: true }];
        let has_room = poll::wait(watched, Some(Duration::ZERO)).is_ok_and(|seen| seen[0].writable);
        if has_room {
            // Without a reader there is nobody to tell that there is none.
            drop(stderr.write_all(line));
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes it the process's logger; its level is that of `BULKHEAD_LOG`, `info` without it.
pub(crate) fn install() {
    let filter = std::env::var("BULKHEAD_LOG").unwrap_or_else(|_| "info".to_owned());
    let mut builder = env_logger::Builder::new();
    builder.parse_filters(&filter).format_timestamp(None).format_target(false);
    builder.target(env_logger::Target::Pipe(Box::new(NonBlockingStderr))).init();
}
