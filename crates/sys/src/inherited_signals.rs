//! What a process inherits of its parent's signals, and what our programs keep of that.
//!
//! A signal mask and ignored signals survive fork and exec. A parent that blocks TERM starts a daemon that no TERM
//! stops, and one that ignores CHLD takes the exit statuses of our children. So each program of ours calls
//! [`start_clean`] first in its `main`, before it has a second thread. It must never catch or reset INT, QUIT or HUP
//! that were ignored: `nohup` and a shell's `&` ignore them for a program that shall outlive its terminal. Called by
//! the supervisor, the worker library and the command.

use std::io;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction};

/// Ignored signals that stay ignored: those of `nohup` and `&`, those of a shell's job control, and PIPE, which the
/// Rust runtime ignores itself.
const KEPT: [libc::c_int; 7] =
    [libc::SIGINT, libc::SIGQUIT, libc::SIGHUP, libc::SIGPIPE, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];

/// The highest signal number of Linux on x86 and ARM.
const SIGNAL_MAX: libc::c_int = 64;

/// Unblocks all signals of the calling thread, and gives each ignored signal its default action, except `KEPT`.
///
/// # Errors
/// None for valid arguments.
pub fn start_clean() -> io::Result<()> {
    for signal in (1..=SIGNAL_MAX).filter(|signal| !KEPT.contains(signal)) {
        // EINVAL: the C library keeps this number for itself.
        if is_ignored(signal).unwrap_or(false) {
            // SAFETY: to set the default action runs no code.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
    SigSet::empty().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    Ok(())
}

/// Lets a write beyond the limit of file size (RLIMIT_FSIZE) fail with EFBIG; by default XFSZ ends the process. It is
/// caught, not ignored, so that a child starts with the default action again.
///
/// # Errors
/// None for valid arguments.
pub fn survive_file_size_limit() -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler does nothing.
    unsafe { sigaction(Signal::SIGXFSZ, &action) }?;
    Ok(())
}

/// Whether a signal is ignored, for instance because `nohup` started this process with HUP ignored.
///
/// # Errors
/// EINVAL: there is no such signal.
pub fn is_ignored(signal: i32) -> io::Result<bool> {
    // SAFETY: all-zero bytes are a valid sigaction: the default one.
    let mut now: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: with a null pointer for the new action it only writes the present one to the given address.
    Errno::result(unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut now) })?;
    Ok(now.sa_sigaction == libc::SIG_IGN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::in_child;

    fn ignore(signal: i32) {
        // SAFETY: to ignore a signal runs no code.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }

    #[test]
    fn what_a_parent_blocked_or_ignored_is_undone() {
        in_child("inherited_signals::tests::what_a_parent_blocked_or_ignored_is_undone", || {
            SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK).unwrap();
            for signal in [libc::SIGCHLD, libc::SIGTERM, libc::SIGALRM, libc::SIGXFSZ, 40] {
                ignore(signal);
            }
            start_clean().unwrap();
            assert_eq!(SigSet::thread_get_mask().unwrap(), SigSet::empty());
            for signal in [libc::SIGCHLD, libc::SIGTERM, libc::SIGALRM, libc::SIGXFSZ, 40] {
                assert!(!is_ignored(signal).unwrap(), "{signal} is still ignored");
            }
        });
    }

    #[test]
    fn what_nohup_and_a_shell_ignored_stays_so() {
        in_child("inherited_signals::tests::what_nohup_and_a_shell_ignored_stays_so", || {
            KEPT.into_iter().for_each(ignore);
            start_clean().unwrap();
            for signal in KEPT {
                assert!(is_ignored(signal).unwrap(), "{signal} is no longer ignored");
            }
            assert!(is_ignored(1000).is_err(), "there is no such signal");
        });
    }

    #[test]
    fn a_write_beyond_the_limit_is_an_error_and_no_death() {
        in_child("inherited_signals::tests::a_write_beyond_the_limit_is_an_error_and_no_death", || {
            use std::io::Write;
            survive_file_size_limit().unwrap();
            let mut file = tempfile::tempfile().unwrap();
            crate::process::limit_file_size(Some(10)).unwrap();
            let error = file.write_all(&[0; 100]).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EFBIG));
        });
    }
}
