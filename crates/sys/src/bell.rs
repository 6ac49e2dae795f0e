//! A bell (eventfd) that wakes a thread of this process out of its poll: rung by any thread, any number of times.
//!
//! It is non-blocking, and only wakes: what there is to do is told elsewhere. Rings that were not heard are one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

/// The bell. Its descriptor is readable from a ring until [`Bell::hear`].
#[derive(Debug)]
pub struct Bell(EventFd);

impl Bell {
    /// A silent bell.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self(EventFd::from_value_and_flags(0, flags)?))
    }

    /// Rings it. One that has rung 2^64 times unheard stays readable.
    pub fn ring(&self) {
        // The only error of a write of 1 is EAGAIN: it is readable already.
        self.0.write(1).ok();
    }

    /// Takes all rings so far; `false`: there was none.
    pub fn hear(&self) -> bool {
        loop {
            match self.0.read() {
                Ok(_) => return true,
                Err(Errno::EINTR) => {}
                Err(_) => return false,
            }
        }
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::poll;

    #[test]
    fn rings_that_were_not_heard_are_one() {
        let bell = Bell::new().unwrap();
        assert!(!poll::wait_readable(bell.as_fd(), Duration::ZERO).unwrap() && !bell.hear());
        bell.ring();
        bell.ring();
        assert!(poll::wait_readable(bell.as_fd(), Duration::ZERO).unwrap());
        assert!(bell.hear() && !bell.hear());
        assert!(!poll::wait_readable(bell.as_fd(), Duration::ZERO).unwrap());
    }

    #[test]
    fn a_ring_wakes_a_thread_that_waits() {
        let bell = Bell::new().unwrap();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| poll::wait_readable(bell.as_fd(), Duration::from_secs(60)).unwrap());
            bell.ring();
            assert!(waits.join().unwrap());
        });
    }
}
