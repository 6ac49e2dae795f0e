//! Signals as events: each handler sets a flag and writes a byte to a socket pair, and the loop acts on the flag.
//!
//! Handlers decide nothing. Signals of one number that arrive before the loop reads them are one. INT, QUIT and HUP
//! that were ignored at the start stay ignored (`inherited_signals.rs`).
//!
//! Behind an outer process (`outer.rs`) a signal to the whole group or cgroup arrives twice: from its sender, and passed
//! on by the outer process. The handlers count both ways apart, and the higher count is what was sent. So a signal to
//! both is one, and a second one to either is a second one. Used by the supervisor's loop, the client and `program.rs`.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::libc::siginfo_t;
use signal_hook::{SigId, consts, low_level};

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

/// Signals whose being ignored is a user's wish.
const STAY_IGNORED: [i32; 3] = [consts::SIGINT, consts::SIGQUIT, consts::SIGHUP];

/// Catches some signals until it is dropped. Its descriptor is readable after one of them arrived.
#[derive(Debug)]
pub struct Signals {
    wakes: UnixStream,
    caught: Vec<Caught>,
    left_ignored: Vec<i32>,
    handlers: Vec<SigId>,
}

/// How often one signal arrived.
#[derive(Debug)]
struct Caught {
    signal: i32,
    counts: Arc<Counts>,
    /// How many arrivals were reported.
    told: u32,
}

/// Arrivals of one signal, by the way they came.
#[derive(Debug, Default)]
struct Counts {
    direct: AtomicU32,
    passed_on: AtomicU32,
}

impl Signals {
    /// Catches `signals` from now on, for the whole process. INT, QUIT and HUP are left alone if they are ignored.
    ///
    /// # Errors
    /// EINVAL: one of them cannot be caught. EMFILE, ENFILE: no descriptor is free.
    pub fn new(signals: &[i32]) -> io::Result<Self> {
        Self::behind(None, signals)
    }

    /// The same in a process to which the process `outer` passes on its own signals.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn behind(outer: Option<u32>, signals: &[i32]) -> io::Result<Self> {
        let (wakes, writer) = UnixStream::pair()?;
        wakes.set_nonblocking(true)?;
        let mut all = Self { wakes, caught: Vec::new(), left_ignored: Vec::new(), handlers: Vec::new() };
        for &signal in signals {
            if STAY_IGNORED.contains(&signal) && is_ignored(signal)? {
                all.left_ignored.push(signal);
                continue;
            }
            let counts = Arc::new(Counts::default());
            // Handlers of one signal run in the order of their registration: it is counted before the byte is written.
            all.handlers.push(count(signal, outer, Arc::clone(&counts))?);
            all.handlers.push(low_level::pipe::register(signal, writer.try_clone()?)?);
            all.caught.push(Caught { signal, counts, told: 0 });
        }
        Ok(all)
    }

    /// Those that were asked for and are not caught, because the parent of this process had them ignored.
    pub fn left_ignored(&self) -> &[i32] {
        &self.left_ignored
    }

    /// The signals that arrived since the last call, each number once, in the order given to [`Self::new`].
    pub fn pending(&mut self) -> Vec<i32> {
        // The bytes are read before the counts: a later signal leaves a new byte, which causes the next call.
        while matches!(self.wakes.read(&mut [0; 64]), Ok(64)) {}
        self.caught.iter_mut().filter_map(Caught::news).collect()
    }
}

impl Caught {
    /// The signal, if it was sent since the last call.
    fn news(&mut self) -> Option<i32> {
        let direct = self.counts.direct.load(Ordering::SeqCst);
        let sent = direct.max(self.counts.passed_on.load(Ordering::SeqCst));
        (std::mem::replace(&mut self.told, sent) != sent).then_some(self.signal)
    }
}

/// Registers the handler that counts.
fn count(signal: i32, outer: Option<u32>, counts: Arc<Counts>) -> io::Result<SigId> {
    let is_passed_on = move |info: &siginfo_t| {
        // SAFETY: a signal with such a code comes from a process, whose number it carries.
        info.si_code <= 0 && outer.is_some_and(|outer| unsafe { info.si_pid() }.cast_unsigned() == outer)
    };
    let handler = move |info: &siginfo_t| {
        let count = if is_passed_on(info) { &counts.passed_on } else { &counts.direct };
        count.fetch_add(1, Ordering::SeqCst);
    };
    // SAFETY: the handler adds to a number and does nothing else.
    unsafe { signal_hook_registry::register_sigaction(signal, handler) }
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
            assert_eq!(signals.left_ignored(), [INT]);
            assert_eq!(signals.pending(), []);
        });
    }

    /// A test process is its own outer process here.
    #[test]
    fn a_signal_that_comes_twice_is_one() {
        let direct = Counts::default();
        let mut caught = Caught { signal: TERM, counts: Arc::new(direct), told: 0 };
        let mut told = |direct: u32, passed_on: u32| {
            caught.counts.direct.fetch_add(direct, Ordering::SeqCst);
            caught.counts.passed_on.fetch_add(passed_on, Ordering::SeqCst);
            caught.news().is_some()
        };
        assert!(told(1, 0) && !told(0, 1), "to the whole group, read in between");
        assert!(told(1, 1), "a second one, read at once");
        assert!(told(0, 1) && told(0, 1), "to the outer process alone");
        assert!(!told(0, 0));
    }

    #[test]
    fn who_passes_on_is_known() {
        in_child("signals::tests::who_passes_on_is_known", || {
            let mut signals = Signals::behind(Some(std::process::id()), &[TERM]).unwrap();
            low_level::raise(TERM).unwrap();
            assert_eq!(signals.pending(), [TERM]);
            let counts = &signals.caught[0].counts;
            let seen = (&counts.direct, &counts.passed_on);
            assert_eq!((seen.0.load(Ordering::SeqCst), seen.1.load(Ordering::SeqCst)), (0, 1));
        });
    }

    #[test]
    fn a_signal_that_cannot_be_caught_is_an_error() {
        // For KILL, STOP and others the library panics instead of returning an error; a number beyond all returns
        // one.
        assert!(Signals::new(&[1000]).is_err());
    }
}
