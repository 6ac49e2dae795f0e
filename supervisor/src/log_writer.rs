//! The log writer: env_logger behind a bounded queue and a thread of its own.
//!
//! A stalled journald, pipe or terminal must not block the loop, so logging never waits: lines that do not fit the
//! queue are dropped and counted, and the count is logged as soon as there is room. Installed by `lib.rs`.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bulkhead_proto::plain::PlainText;

/// Lines that the queue can hold.
const QUEUE_LINES: usize = 4096;
/// How long the daemon waits at its end for the last lines to be written.
const LAST_LINES: Duration = Duration::from_secs(1);

/// An item of the queue.
enum LogMessage {
    Line(Vec<u8>),
    /// Asks for an answer when all items before it are written.
    Finish(SyncSender<()>),
}

static WRITER: Mutex<Option<SyncSender<LogMessage>>> = Mutex::new(None);

/// The sending end of the queue.
struct LogQueue {
    sender: SyncSender<LogMessage>,
    dropped: Arc<AtomicU64>,
}

impl Write for LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // Its parts may be words of workers and clients.
        let text = String::from_utf8_lossy(line);
        let plain = PlainText(&text).to_string();
        if let Err(TrySendError::Full(_)) = self.sender.try_send(LogMessage::Line(plain.into_bytes())) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts the writer thread and installs the logger. The level is `BULKHEAD_LOG`, by default `info`; time stamps are
/// left out where journald adds its own.
pub(crate) fn install() {
    let (sender, receiver) = sync_channel(QUEUE_LINES);
    let dropped = Arc::new(AtomicU64::new(0));
    let queue = LogQueue { sender: sender.clone(), dropped: Arc::clone(&dropped) };
    let mut builder = env_logger::Builder::new();
    builder.parse_filters(&std::env::var("BULKHEAD_LOG").unwrap_or_else(|_| "info".to_owned()));
    builder.format_target(false);
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.format_timestamp(None);
    } else {
        builder.format_timestamp_micros();
    }
    let spawned = std::thread::Builder::new()
        .name("log-writer".to_owned())
        .spawn(move || write_lines(&receiver, &dropped));
    if spawned.is_ok() {
        builder.target(env_logger::Target::Pipe(Box::new(queue)));
        *WRITER.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(sender);
    }
    builder.init();
    // The default panic hook writes to standard error itself, and would block on a reader that does not read.
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.to_string();
        log::error!("{}", text.replace('\n', " "));
        finish();
    }));
}

/// Waits at most [`LAST_LINES`] until all lines logged so far are written.
pub(crate) fn finish() {
    let writer = WRITER.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    let (done, wait) = sync_channel(1);
    if writer.is_some_and(|sender| sender.try_send(LogMessage::Finish(done)).is_ok()) {
        // A timeout is ignored: there is no way to report it.
        let _ = wait.recv_timeout(LAST_LINES);
    }
}

fn write_lines(lines: &Receiver<LogMessage>, dropped: &AtomicU64) {
    let mut stderr = io::stderr();
    for item in lines {
        // Errors are ignored: there is no other place to report them.
        match item {
            LogMessage::Line(line) => drop(stderr.write_all(&line)),
            LogMessage::Finish(done) => drop(done.send(())),
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            drop(writeln!(stderr, "log lines dropped because their reader is slow count={lost}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::process::{Command, Stdio};

    use bulkhead_sys::poll::wait_readable;

    use super::*;

    /// Run by `a_panic_does_not_wait_for_a_stalled_log` in a process of its own, whose standard error is not read.
    #[test]
    #[ignore = "fills its standard error: started by a_panic_does_not_wait_for_a_stalled_log"]
    fn panics_behind_a_stalled_log() {
        install();
        for line in 0..2 * QUEUE_LINES {
            log::error!(
                "line {line} of many that nobody reads, so that the pipe is full and its writer stands still"
            );
        }
        assert!(std::thread::spawn(|| panic!("nobody hears this")).join().is_err());
    }

    #[test]
    fn a_panic_does_not_wait_for_a_stalled_log() {
        let mut test = Command::new(std::env::current_exe().unwrap());
        test.args(["--exact", "log_writer::tests::panics_behind_a_stalled_log", "--ignored", "--nocapture"]);
        let mut child = test.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Its standard output ends with it; its standard error is held open and never read.
        let mut stdout = child.stdout.take().unwrap();
        loop {
            if !wait_readable(stdout.as_fd(), Duration::from_secs(60)).unwrap() {
                child.kill().unwrap();
                panic!("it waits for its log");
            }
            if stdout.read(&mut [0; 1024]).unwrap() == 0 {
                break;
            }
        }
        assert!(child.stderr.is_some() && child.wait().unwrap().success());
    }
}
