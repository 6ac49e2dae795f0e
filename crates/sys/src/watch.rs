//! poll(2) for a client: one socket to read and write, one signal pipe, and a deadline.
//!
//! [`crate::poll`] waits for reading alone; a client must be ready to read while it waits to write, or it and the
//! daemon would wait for each other.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};

/// A descriptor, and what to wait for.
#[derive(Clone, Copy, Debug)]
pub struct Watch<'a> {
    /// The descriptor.
    pub fd: BorrowedFd<'a>,
    /// Wake when it can be read.
    pub readable: bool,
    /// Wake when it can be written.
    pub writable: bool,
}

impl<'a> Watch<'a> {
    /// Waits for something to read.
    pub fn readable(fd: BorrowedFd<'a>) -> Self {
        Self { fd, readable: true, writable: false }
    }
}

/// What a watched descriptor is ready for. A hang-up or an error counts as both, where they were asked for: the
/// next read or write tells which it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// A read would not block.
    pub readable: bool,
    /// A write would not block.
    pub writable: bool,
}

/// Waits until one of the descriptors is ready, a signal was handled, or `timeout` has passed (`None`: never).
/// Gives what was seen of each, in their order; nothing at all is ready after a signal or the timeout.
///
/// # Errors
/// ENOMEM; EINVAL: more descriptors than may be open.
pub fn wait(watched: &[Watch<'_>], timeout: Option<Duration>) -> io::Result<Vec<Seen>> {
    let mut polled: Vec<PollFd<'_>> =
        watched.iter().map(|watch| PollFd::new(watch.fd, interest(watch))).collect();
    match nix::poll::poll(&mut polled, timeout.map_or(PollTimeout::NONE, round_up)) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(watched.iter().zip(&polled).map(|(watch, polled)| seen(watch, polled)).collect())
}

fn interest(watch: &Watch<'_>) -> PollFlags {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::POLLIN, watch.readable);
    flags.set(PollFlags::POLLOUT, watch.writable);
    flags
}

fn seen(watch: &Watch<'_>, polled: &PollFd<'_>) -> Seen {
    let flags = polled.revents().unwrap_or(PollFlags::empty());
    let over = flags.intersects(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL);
    Seen {
        readable: watch.readable && (over || flags.contains(PollFlags::POLLIN)),
        writable: watch.writable && (over || flags.contains(PollFlags::POLLOUT)),
    }
}

/// Whole milliseconds, never too short: rounding down would make the caller spin through the last one.
fn round_up(timeout: Duration) -> PollTimeout {
    let ms = timeout.as_nanos().div_ceil(1_000_000);
    PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_byte_and_a_hang_up_are_both_readable() {
        let _quiet = crate::testing::nobody_spawns();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let watch = [Watch { fd: ours.as_fd(), readable: true, writable: true }];
        assert_eq!(wait(&watch, None).unwrap(), [Seen { readable: false, writable: true }]);
        theirs.write_all(b"x").unwrap();
        assert!(wait(&watch, None).unwrap()[0].readable);
        drop(theirs);
        assert!(wait(&[Watch::readable(ours.as_fd())], None).unwrap()[0].readable);
    }

    #[test]
    fn the_timeout_is_rounded_up_to_milliseconds() {
        assert_eq!(round_up(Duration::from_nanos(1)).as_millis(), Some(1));
        assert_eq!(round_up(Duration::ZERO).as_millis(), Some(0));
        assert_eq!(round_up(Duration::from_secs(u64::MAX)), PollTimeout::MAX);
    }

    #[test]
    fn nothing_is_ready_when_the_timeout_has_passed() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let seen = wait(&[Watch::readable(ours.as_fd())], Some(Duration::from_millis(1))).unwrap();
        assert_eq!(seen, [Seen { readable: false, writable: false }]);
    }
}
