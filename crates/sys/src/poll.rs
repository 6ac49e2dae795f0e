//! poll(2): all waits for descriptors outside the supervisor, whose loop has its own epoll.
//!
//! Workers wait here for their channel and lane, clients for their socket and a signal pipe, tests instead of
//! sleeping. A wait that a signal interrupts reports that nothing is ready; the caller decides whether to wait again.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};

/// A descriptor, and the events to wait for.
#[derive(Clone, Copy, Debug)]
pub struct PollTarget<'a> {
    /// The descriptor.
    pub fd: BorrowedFd<'a>,
    /// Wake when it can be read.
    pub readable: bool,
    /// Wake when it can be written.
    pub writable: bool,
}

impl<'a> PollTarget<'a> {
    /// Waits until it is readable.
    pub fn readable(fd: BorrowedFd<'a>) -> Self {
        Self { fd, readable: true, writable: false }
    }

    /// Waits only for a hang-up. Used to keep a place in an array of targets.
    pub fn end(fd: BorrowedFd<'a>) -> Self {
        Self { fd, readable: false, writable: false }
    }
}

/// What a descriptor is ready for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Reading was asked for, and a read would not block: there are bytes, the end, or an error.
    pub readable: bool,
    /// Writing was asked for, and a write would not block.
    pub writable: bool,
    /// The other side is gone; bytes that it sent may still be unread.
    pub hung_up: bool,
}

/// Waits until one of the descriptors is ready or hung up, a signal was handled, or `timeout` has passed (`None`:
/// never). Returns the readiness of each, in their order; after a signal or the timeout none is ready.
///
/// # Errors
/// ENOMEM; EINVAL: more descriptors than may be open.
pub fn wait<const N: usize>(
    watched: [PollTarget<'_>; N],
    timeout: Option<Duration>,
) -> io::Result<[Readiness; N]> {
    let mut polled = watched.map(|watch| PollFd::new(watch.fd, interest(watch)));
    match nix::poll::poll(&mut polled, timeout.map_or(PollTimeout::NONE, round_up)) {
        Ok(_) => {}
        // The results of poll(2) after a signal are not specified.
        Err(Errno::EINTR) => return Ok([Readiness::default(); N]),
        Err(error) => return Err(error.into()),
    }
    let mut at = 0;
    Ok(watched.map(|watch| {
        let found = seen(watch, &polled[at]);
        at += 1;
        found
    }))
}

/// Waits until `fd` is readable (a dead process, a frame, the end of a stream), and continues after signals. Returns
/// `false` if `limit` passed.
///
/// # Errors
/// ENOMEM.
pub fn wait_readable(fd: BorrowedFd<'_>, limit: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let [seen] = wait([PollTarget::readable(fd)], Some(left))?;
        if seen.readable || left.is_zero() {
            return Ok(seen.readable);
        }
    }
}

fn interest(watch: PollTarget<'_>) -> PollFlags {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::POLLIN, watch.readable);
    flags.set(PollFlags::POLLOUT, watch.writable);
    flags
}

fn seen(watch: PollTarget<'_>, polled: &PollFd<'_>) -> Readiness {
    let flags = polled.revents().unwrap_or(PollFlags::empty());
    // The next read or write reports which of these it is.
    let hung_up = flags.intersects(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL);
    Readiness {
        readable: watch.readable && (hung_up || flags.contains(PollFlags::POLLIN)),
        writable: watch.writable && (hung_up || flags.contains(PollFlags::POLLOUT)),
        hung_up,
    }
}

/// Rounds up to whole milliseconds: rounding down would make the caller spin through the last one.
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
    fn bytes_and_hang_ups_are_both_readable_and_told_apart() {
        let _quiet = crate::testing::nobody_spawns();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let both = PollTarget { fd: ours.as_fd(), readable: true, writable: true };
        let expected = Readiness { readable: false, writable: true, hung_up: false };
        assert_eq!(wait([both], None).unwrap(), [expected]);
        assert!(!wait_readable(ours.as_fd(), Duration::from_millis(1)).unwrap());
        theirs.write_all(b"x").unwrap();
        let expected = Readiness { readable: true, writable: false, hung_up: false };
        assert_eq!(wait([PollTarget::readable(ours.as_fd())], None).unwrap(), [expected]);
        drop(theirs);
        assert_eq!(
            wait([PollTarget::readable(ours.as_fd())], None).unwrap(),
            [Readiness { hung_up: true, ..expected }]
        );
    }

    #[test]
    fn each_of_several_is_seen_in_its_place() {
        let (first, _theirs) = UnixStream::pair().unwrap();
        let (second, mut writer) = UnixStream::pair().unwrap();
        writer.write_all(b"x").unwrap();
        let seen =
            wait([PollTarget::readable(first.as_fd()), PollTarget::readable(second.as_fd())], None).unwrap();
        assert_eq!(seen.map(|seen| seen.readable), [false, true]);
        let seen = wait([PollTarget::end(second.as_fd())], Some(Duration::ZERO)).unwrap();
        assert_eq!(seen, [Readiness::default()], "what is there to read is not asked for");
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
        let seen = wait([PollTarget::readable(ours.as_fd())], Some(Duration::from_millis(1))).unwrap();
        assert_eq!(seen, [Readiness::default()]);
    }
}
