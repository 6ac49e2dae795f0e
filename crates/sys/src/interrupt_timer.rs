//! A timer that interrupts blocking system calls of one thread, again and again.
//!
//! It is for the close of untrusted descriptors: the close of a TCP connection with SO_LINGER ends at a signal. The
//! signal's handler does nothing, and the signal goes to the thread that started the timer alone (SIGEV_THREAD_ID).
//! Calls that the kernel does not let a signal interrupt go on blocking. Driven by the supervisor's
//! `background_closer.rs`.

use std::io;

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigEvent, SigHandler, SigSet, SigevNotify, Signal, sigaction};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use nix::unistd::gettid;

/// Time between two signals in nanoseconds, and so the longest wait that the timer cannot end.
const EVERY_NS: libc::c_long = 10_000_000;
/// Used for nothing else in this process.
const SIGNAL: Signal = Signal::SIGALRM;

/// Interrupts the thread that started it until it is dropped.
#[derive(Debug)]
pub struct InterruptTimer {
    _timer: Timer,
}

impl InterruptTimer {
    /// Starts the timer for this thread. The same thread must drop it.
    ///
    /// # Errors
    /// EAGAIN, ENOMEM: no timer is available.
    pub fn start() -> io::Result<Self> {
        // No SA_RESTART: an interrupted call returns.
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

    /// Without the timer this test takes an hour.
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
