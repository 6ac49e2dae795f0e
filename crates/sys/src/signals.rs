//! Signals as events: each handler sets a flag and writes a byte to a socket pair, and the loop acts on the flag.
//!
//! Handlers decide nothing. Signals of one number that arrive before the loop reads them are one. INT, QUIT and HUP
//! that were ignored at the start stay ignored (`inherited_signals.rs`). Used by the supervisor's loop, the client and
//! `program.rs`.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::{SigId, consts, flag, low_level};

use crate::inherited_signals::is_ignored;

/// Asks for a drain; a second one asks for a stop.
pub const TERM: i32 = consts::SIGTERM;
/// Asks for a stop at once.
pub const INT: i32 = consts::SIGINT;
/// A child died.
pub const CHLD: i32 = consts::SIGCHLD;
/// Asks the worker to check whether its task was cancelled. Ignored by default.
pub const URG: i32 = consts::SIGURG;
/// The terminal was closed.
pub const HUP: i32 = consts::SIGHUP;

/// Signals that stay ignored if they are: `nohup` and a shell's `&` ignore them.
const STAY_IGNORED: [i32; 3] = [consts::SIGINT, consts::SIGQUIT, consts::SIGHUP];

/// Catches some signals until it is dropped. Its descriptor is readable after one of them arrived.
#[derive(Debug)]
pub struct Signals {
    wakes: UnixStream,
    flags: Vec<(i32, Arc<AtomicBool>)>,
    handlers: Vec<SigId>,
}

impl Signals {
    /// Catches `signals` from now on, for the whole process. INT, QUIT and HUP are left alone if they are ignored.
    ///
    /// # Errors
    /// EINVAL: one of them cannot be caught. EMFILE, ENFILE: no descriptor is free.
    pub fn new(signals: &[i32]) -> io::Result<Self> {
        let (wakes, writer) = UnixStream::pair()?;
        wakes.set_nonblocking(true)?;
        let mut caught = Self { wakes, flags: Vec::new(), handlers: Vec::new() };
        for &signal in signals {
            if STAY_IGNORED.contains(&signal) && is_ignored(signal)? {
                continue;
            }
            let flag = Arc::new(AtomicBool::new(false));
            // Handlers of one signal run in the order of their registration: the flag is set before the byte is
            // written.
            caught.handlers.push(flag::register(signal, Arc::clone(&flag))?);
            caught.handlers.push(low_level::pipe::register(signal, writer.try_clone()?)?);
            caught.flags.push((signal, flag));
        }
        Ok(caught)
    }

    /// The signals that arrived since the last call, each number once, in the order given to [`Self::new`].
    pub fn pending(&mut self) -> Vec<i32> {
        // The bytes are read before the flags: a later signal leaves a new byte, which causes the next call.
        while matches!(self.wakes.read(&mut [0; 64]), Ok(64)) {}
        let came =
            |(signal, flag): &(i32, Arc<AtomicBool>)| flag.swap(false, Ordering::SeqCst).then_some(*signal);
        self.flags.iter().filter_map(came).collect()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wakes.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for handler in self.handlers.drain(..) {
            low_level::unregister(handler);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::poll::wait_readable;
    use crate::testing::{PATIENCE, in_child};

    #[test]
    fn signals_wake_and_are_told_once() {
        in_child("signals::tests::signals_wake_and_are_told_once", || {
            let mut signals = Signals::new(&[TERM, INT, HUP]).unwrap();
            assert!(!wait_readable(signals.as_fd(), Duration::ZERO).unwrap());
            for _ in 0..100 {
                low_level::raise(HUP).unwrap();
            }
            low_level::raise(TERM).unwrap();
            assert!(wait_readable(signals.as_fd(), PATIENCE).unwrap());
            assert_eq!(signals.pending(), [TERM, HUP]);
            assert_eq!(signals.pending(), []);
            assert!(!wait_readable(signals.as_fd(), Duration::ZERO).unwrap());
        });
    }

    #[test]
    fn what_is_ignored_is_not_caught() {
        in_child("signals::tests::what_is_ignored_is_not_caught", || {
            // SAFETY: to ignore a signal runs no code.
            unsafe { nix::libc::signal(INT, nix::libc::SIG_IGN) };
            let mut signals = Signals::new(&[TERM, INT]).unwrap();
            low_level::raise(INT).unwrap();
            assert!(is_ignored(INT).unwrap());
            assert_eq!(signals.pending(), []);
        });
    }

    #[test]
    fn a_signal_that_cannot_be_caught_is_an_error() {
        // For KILL, STOP and others the library panics instead of returning an error; a number beyond all returns
        // one.
        assert!(Signals::new(&[1000]).is_err());
    }
}
