//! The log of a worker: standard error, which it shares with its supervisor. A write never waits for the reader.
//!
//! If the reader stalls, a blocking write would keep the worker from taking a task or from reporting a panic. So a line
//! is dropped if the pipe has no room for it. The supervisor's own log records how each worker ended.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use bulkhead_proto::plain::PlainText;
use bulkhead_sys::poll::{self, PollTarget};

/// Standard error, written only if poll says that it is writable. Such a pipe has room for the longest line of a
/// worker.
struct NonBlockingStderr;

impl Write for NonBlockingStderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut stderr = io::stderr();
        let watched = [PollTarget { fd: stderr.as_fd(), readable: false, writable: true }];
        let has_room = poll::wait(watched, Some(Duration::ZERO)).is_ok_and(|seen| seen[0].writable);
        if has_room {
            // Its parts may be words of a client.
            let text = String::from_utf8_lossy(line);
            let plain = PlainText(&text).to_string();
            // A failed write is ignored: without a reader there is no place to report it.
            drop(stderr.write_all(plain.as_bytes()));
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Installs the logger of the process, at the level of `BULKHEAD_LOG` or else `info`.
pub(crate) fn install() {
    let filter = std::env::var("BULKHEAD_LOG").unwrap_or_else(|_| "info".to_owned());
    let mut builder = env_logger::Builder::new();
    builder.parse_filters(&filter).format_timestamp(None).format_target(false);
    builder.target(env_logger::Target::Pipe(Box::new(NonBlockingStderr))).init();
}
