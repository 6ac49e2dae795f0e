//! The outer process: passes on signals and reports, reaps, and leaves as the inner process did.
//!
//! It waits in poll(2) for its signals, which are all blocked and read from a signalfd, and for the reports of the inner
//! process. It must never block elsewhere: a service manager or a reader of standard error that does not read delays no
//! signal. It returns errors to nobody: a failed wait ends it, and the inner process stops then. Called by `outer.rs`.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc::{self, c_int};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::SignalFd;
use nix::sys::socket::{MsgFlags, recv};

use super::{INIT_PID, say};
use crate::descriptors::open_numbers;
use crate::exit::{ExitStatus, reap_any};
use crate::notify;
use crate::poll::{PollTarget, wait};
use crate::process::set_not_dumpable;

/// Signals of a terminal that stop a process by default.
const STOPPING: [c_int; 3] = [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
/// More than the longest report.
const REPORT_MAX_BYTES: usize = 4096;
/// What a shell adds to the number of a signal for the exit code of a process that it ended.
const SIGNAL_CODE: i32 = 128;

/// Runs the outer process until the inner one has ended. Returns the exit code to leave with.
pub(super) fn outer(inner: u32, signals: SignalFd, reports: OwnedFd, null: File) -> u8 {
    let mut outer = Outer { inner, signals, reports: Some(reports) };
    outer.let_go(null);
    match outer.serve() {
        Ok(status) => leave(status),
        Err(error) => {
            say(&format!("cannot wait for the daemon: {error}"));
            1
        }
    }
}

struct Outer {
    /// The inner process. It is our child, so its pid is not reused before it is reaped.
    inner: u32,
    signals: SignalFd,
    /// `None`: the inner process has closed its end.
    reports: Option<OwnedFd>,
}

impl Outer {
    /// Closes what this process shares with the inner one and does not need: the end of the daemon's standard output, for
    /// instance, tells a private parent that the daemon has ended.
    fn let_go(&self, null: File) {
        for stream in [libc::STDIN_FILENO, libc::STDOUT_FILENO] {
            // SAFETY: dup2 takes two integers. Nothing here reads standard input or writes standard output.
            unsafe { libc::dup2(null.as_raw_fd(), stream) };
        }
        drop(null);
        let mut kept = vec![self.signals.as_raw_fd()];
        kept.extend(self.reports.as_ref().map(AsRawFd::as_raw_fd));
        kept.sort_unstable();
        if close_beside(&kept).is_err() {
            // An old kernel or a filter without close_range(2). If /proc is missing too, they stay open.
            for open in open_numbers().unwrap_or_default() {
                if open > libc::STDERR_FILENO && !kept.contains(&open) {
                    // SAFETY: no other code of this process has it: it has one thread, and that is here.
                    unsafe { libc::close(open) };
                }
            }
        }
    }

    fn serve(&mut self) -> io::Result<ExitStatus> {
        loop {
            while let Some(signal) = self.signals.read_signal()? {
                // Signal numbers are small.
                self.hear(c_int::try_from(signal.ssi_signo).unwrap_or(0));
            }
            let ended = self.reap()?;
            // After the reaping: all reports of an inner process that has ended are there.
            self.relay();
            if let Some(status) = ended {
                return Ok(status);
            }
            let signals = PollTarget::readable(self.signals.as_fd());
            let reports = self
                .reports
                .as_ref()
                .map_or(PollTarget::end(signals.fd), |reports| PollTarget::readable(reports.as_fd()));
            wait([signals, reports], None)?;
        }
    }

    fn hear(&self, signal: c_int) {
        if signal == libc::SIGCHLD {
            return;
        }
        if let Ok(inner) = libc::pid_t::try_from(self.inner) {
            // SAFETY: kill takes two integers. An error means that the inner process is dead, which is seen next.
            unsafe { libc::kill(inner, signal) };
        }
        if STOPPING.contains(&signal) {
            stop_by(signal);
        }
    }

    /// Reaps all dead children. Returns how the inner process ended, if it is among them.
    fn reap(&self) -> io::Result<Option<ExitStatus>> {
        let mut ended = None;
        loop {
            match reap_any() {
                Ok(Some((pid, status))) if pid == self.inner => ended = Some(status),
                Ok(Some(_)) => {}
                Ok(None) => return Ok(ended),
                Err(error) if ended.is_some() && error.raw_os_error() == Some(libc::ECHILD) => {
                    return Ok(ended);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends all reports that are there to the service manager. One that the manager does not take is lost, as with
    /// sd_notify(3), and said.
    fn relay(&mut self) {
        let mut buffer = [0; REPORT_MAX_BYTES];
        while let Some(reports) = &self.reports {
            match recv(reports.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length @ 1..) => {
                    let text = String::from_utf8_lossy(&buffer[..length]);
                    if let Err(error) = notify::notify(&text) {
                        say(&format!("cannot notify the service manager: {error}"));
                    }
                }
                Err(Errno::EAGAIN | Errno::EINTR) => return,
                Ok(0) | Err(_) => self.reports = None,
            }
        }
    }
}

/// Closes all descriptors above the standard ones but these, which are sorted.
fn close_beside(kept: &[RawFd]) -> io::Result<()> {
    let mut first = libc::STDERR_FILENO + 1;
    for last in kept.iter().map(|kept| kept - 1).chain([RawFd::MAX]) {
        if first <= last {
            // SAFETY: close_range takes three integers. No other code of this process has any of these descriptors.
            Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })?;
        }
        first = last.saturating_add(2);
    }
    Ok(())
}

/// Lets this process have the default action of a signal that stops: the kernel knows whether it stops it (not if it is
/// ignored, nor in an orphaned process group, nor PID 1). Returns after SIGCONT.
fn stop_by(signal: c_int) {
    let Ok(signal) = Signal::try_from(signal) else { return };
    let alone = SigSet::from(signal);
    let _ = raise(signal);
    let _ = alone.thread_unblock();
    let _ = alone.thread_block();
}

/// Ends this process by the signal that ended the inner one, without a core file: the inner process may have left one.
/// Otherwise returns the exit code.
fn leave(status: ExitStatus) -> u8 {
    let code = match status {
        ExitStatus::Code(code) => code,
        ExitStatus::Signal { signal, .. } => {
            if std::process::id() != INIT_PID {
                die_of(signal);
            }
            SIGNAL_CODE + signal
        }
    };
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// Returns if the signal does not end this process.
fn die_of(signal: c_int) {
    let hard = getrlimit(Resource::RLIMIT_CORE).map_or(0, |(_, hard)| hard);
    // No second core beside that of the inner process: the limit keeps off a core file, and the other call what goes to
    // a pipe (core_pattern).
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, hard);
    drop(set_not_dumpable());
    // SAFETY: to set the default action runs no code of ours; KILL has none, which is an error without an effect.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    // SAFETY: raise takes one integer. The signal is blocked until the mask is emptied.
    unsafe { libc::raise(signal) };
    let _ = SigSet::empty().thread_set_mask();
}
