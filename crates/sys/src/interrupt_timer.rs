//! A thread that does not wait for long: a timer of its own interrupts it again and again.
//!
//! For closing what a stranger made. A connection that lingers waits for up to as long as its maker said, but no longer
//! than until a signal comes; the signal here does nothing else. It reaches the thread that asked and no other. What
//! the kernel does not let a signal interrupt waits on. Driven by the supervisor's thread for disposals.

use std::io;

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, Signal, sigaction};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use nix::unistd::gettid;

/// Time between two interruptions, in nanoseconds: also the longest wait that one can end.
const EVERY_NS: libc::c_long = 10_000_000;
/// Nobody else in this process uses it.
const SIGNAL: Signal = Signal::SIGALRM;

/// As long as it lives, waits of the thread that made it are interrupted.
#[derive(Debug)]
pub struct InterruptTimer {
    _timer: Timer,
}

impl InterruptTimer {
    /// From now on this thread is interrupted, until the value is dropped, which the same thread must do.
    ///
    /// # Errors
    /// EAGAIN, ENOMEM: no timer is available.
    pub fn start() -> io::Result<Self> {
        // No SA_RESTART: what is interrupted ends.
        let action = SigAction::new(SigHandler::Handler(do_nothing), SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler does nothing, so there is nothing that it could do at a wrong moment.
        unsafe { sigaction(SIGNAL, &action) }?;
        let notify = SigevNotify::SigevThreadId { signal: SIGNAL, thread_id: gettid().as_raw(), si_value: 0 };
        let mut timer = Timer::new(ClockId::CLOCK_MONOTONIC, SigEvent::new(notify))?;
        let every = Expiration::Interval(TimeSpec::new(0, EVERY_NS));
        timer.set(every, TimerSetTimeFlags::empty())?;
        Ok(Self { _timer: timer })
    }
}

extern "C" fn do_nothing(_signal: libc::c_int) {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hostile_peer::lingering;

    /// Without it this test takes an hour.
    #[test]
    fn the_last_close_of_a_connection_that_lingers_ends_soon() {
        let kept: Vec<_> = (0..3)
            .map(|_| {
                let (odd, reader) = lingering().unwrap();
                let timer = InterruptTimer::start().unwrap();
                drop(odd);
                drop(timer);
                reader
            })
            .collect();
        assert_eq!(kept.len(), 3);
    }
}
