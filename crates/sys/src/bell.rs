//! A bell (eventfd) that wakes a thread out of its poll: rung by any thread, also of another process that has its
//! descriptor, any number of times.
//!
//! It only wakes: it does not say what there is to do. Both processes have one open file description, so either can clear
//! O_NONBLOCK and take rings of the other: no call here relies on that flag where it must not block. Used by the client's
//! session, and as the doorbell of a worker.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::resource::{Resource, getrlimit};

/// The lowest number of an adopted bell, if the limit of descriptors allows it. The kernel's table of this size takes 8 KiB.
const HIGH_NUMBER: u64 = 1000;

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
        // There is no error while it is open.
        self.try_ring().ok();
    }

    /// Rings it, in a process where other code may have closed its descriptor.
    ///
    /// # Errors
    /// EBADF: that code has.
    pub fn try_ring(&self) -> io::Result<()> {
        match self.0.write(1) {
            // EAGAIN: it has rung 2^64 times, and is readable.
            Ok(_) | Err(Errno::EAGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the bell that another process has made, and moves it to a high descriptor number: code in this process that
    /// closes a number which it does not own seldom meets it, and a file that is opened then does not get that number, so no
    /// ring is written into it.
    ///
    /// # Errors
    /// EMFILE: no such number is free. ENOMEM.
    pub fn adopt(passed: OwnedFd) -> io::Result<Self> {
        let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let lowest = i32::try_from((soft / 2).min(HIGH_NUMBER)).expect("at most HIGH_NUMBER");
        let descriptor = fcntl(&passed, FcntlArg::F_DUPFD_CLOEXEC(lowest))?;
        // SAFETY: fcntl has just made it, and nothing else owns it.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        // SAFETY: it is owned; reads and writes alone follow, which do no harm to what is no eventfd.
        Ok(Self(unsafe { EventFd::from_owned_fd(descriptor) }))
    }

    /// Takes all rings so far. Returns their number. Never blocks.
    pub fn hear(&self) -> u64 {
        let mut rings = 0_u64;
        let buffer = libc::iovec { iov_base: (&raw mut rings).cast(), iov_len: size_of::<u64>() };
        loop {
            // With RWF_NOWAIT it does not wait, whatever the flags of the file are (eventfd has it since Linux 5.8).
            // SAFETY: the buffer lives through the call and has room for the eight bytes that an eventfd gives.
            let read = unsafe {
                libc::preadv2(self.0.as_fd().as_raw_fd(), &raw const buffer, 1, -1, libc::RWF_NOWAIT)
            };
            match Errno::result(read) {
                Ok(_) => return rings,
                Err(Errno::EINTR) => {}
                // EAGAIN: none.
                Err(_) => return 0,
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
    fn rings_that_were_not_heard_are_counted() {
        let bell = Bell::new().unwrap();
        assert!(!poll::wait_readable(bell.as_fd(), Duration::ZERO).unwrap());
        assert_eq!(bell.hear(), 0);
        bell.ring();
        bell.ring();
        assert!(poll::wait_readable(bell.as_fd(), Duration::ZERO).unwrap());
        assert_eq!((bell.hear(), bell.hear()), (2, 0));
        assert!(!poll::wait_readable(bell.as_fd(), Duration::ZERO).unwrap());
    }

    #[test]
    fn an_adopted_bell_is_the_same_bell_far_from_numbers_that_an_open_takes() {
        let bell = Bell::new().unwrap();
        let adopted = Bell::adopt(bell.as_fd().try_clone_to_owned().unwrap()).unwrap();
        adopted.try_ring().unwrap();
        assert_eq!(bell.hear(), 1);
        let number = adopted.as_fd().as_raw_fd();
        let opened = std::fs::File::open("/dev/null").unwrap();
        assert!(number >= 512 && opened.as_raw_fd() < 512, "{number} {opened:?}");
        assert_eq!(fcntl(&adopted, FcntlArg::F_GETFD).unwrap(), libc::FD_CLOEXEC);
    }

    /// Hangs if the read relies on the flag.
    #[test]
    fn to_hear_never_blocks_whatever_the_other_process_does_with_its_descriptor() {
        let bell = Bell::new().unwrap();
        let theirs = bell.as_fd().try_clone_to_owned().unwrap();
        fcntl(&theirs, FcntlArg::F_SETFL(nix::fcntl::OFlag::empty())).unwrap();
        let (told, heard) = std::sync::mpsc::channel();
        let hears = std::thread::spawn(move || {
            told.send(bell.hear()).unwrap();
            bell.ring();
            told.send(bell.hear()).unwrap();
        });
        let none = heard.recv_timeout(crate::testing::PATIENCE);
        if none.is_err() {
            // Ends the read that blocks.
            nix::unistd::write(&theirs, &1_u64.to_ne_bytes()).unwrap();
        }
        hears.join().unwrap();
        assert_eq!((none, heard.recv()), (Ok(0), Ok(1)));
    }

    #[test]
    fn a_ring_of_a_bell_that_other_code_closed_is_an_error() {
        crate::testing::in_child("bell::tests::a_ring_of_a_bell_that_other_code_closed_is_an_error", || {
            let bell = std::mem::ManuallyDrop::new(Bell::new().unwrap());
            nix::unistd::close(bell.as_fd().as_raw_fd()).unwrap();
            assert_eq!(bell.try_ring().unwrap_err().raw_os_error(), Some(libc::EBADF));
        });
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
