//! poll(2): the only place in this crate that waits for descriptors, and always with a limit or on request.
//!
//! Workers wait here for their channel and their lane; tests wait here instead of sleeping. The supervisor
//! has its own epoll and does not come here.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};

/// What one descriptor has to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// A read would not block: there are bytes, or the end.
    pub readable: bool,
    /// The other side is gone; what it sent before may still be there to read.
    pub hung_up: bool,
}

/// Blocks until one of the descriptors is readable or hung up, however long that takes.
///
/// # Errors
/// ENOMEM; EINVAL: more descriptors than may be open.
pub fn wait_any<const N: usize>(fds: [BorrowedFd<'_>; N]) -> io::Result<[Readiness; N]> {
    poll(fds, PollTimeout::NONE)
}

/// Waits until `fd` is readable (a dead process, a frame, the end of a stream); `false` if `limit` passed.
///
/// # Errors
/// ENOMEM.
pub fn wait_readable(fd: BorrowedFd<'_>, limit: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Round up: a limit below a millisecond must not spin.
        let left_ms = i32::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX);
        let [ready] = poll([fd], PollTimeout::try_from(left_ms).expect("it is not negative"))?;
        if ready.readable || ready.hung_up {
            return Ok(true);
        }
        if left.is_zero() {
            return Ok(false);
        }
    }
}

fn poll<const N: usize>(fds: [BorrowedFd<'_>; N], timeout: PollTimeout) -> io::Result<[Readiness; N]> {
    let mut polled = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    loop {
        match nix::poll::poll(&mut polled, timeout) {
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(polled.map(|fd| {
        let seen = fd.revents().unwrap_or(PollFlags::empty());
        Readiness {
            readable: seen.contains(PollFlags::POLLIN),
            hung_up: seen.intersects(PollFlags::POLLHUP | PollFlags::POLLERR),
        }
    }))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn bytes_and_hang_ups_are_told_apart() {
        let _quiet = crate::testing::nobody_spawns();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        assert!(!wait_readable(ours.as_fd(), Duration::from_millis(1)).unwrap());
        theirs.write_all(b"x").unwrap();
        let expected = Readiness { readable: true, hung_up: false };
        assert_eq!(wait_any([ours.as_fd()]).unwrap(), [expected]);
        drop(theirs);
        assert!(wait_any([ours.as_fd()]).unwrap()[0].hung_up);
    }
}
