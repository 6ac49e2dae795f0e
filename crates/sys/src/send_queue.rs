//! The send queue of a Unix stream socket: the bytes, and the descriptors attached to them, that its peer has not
//! received.
//!
//! A descriptor in such a queue counts for its sender's user until it is received, or until the last close of the
//! peer's end frees the queue; a close of the sender's own end frees nothing. At RLIMIT_NOFILE of them every further
//! descriptor of that user fails with ETOOMANYREFS. The kernel tells the size of a queue (SIOCOUTQ), not the number of
//! descriptors in it. Whoever watches the sender's end for writing (edges) learns of each message that is received:
//! the kernel wakes it as it frees the message. It never blocks. Used by the supervisor.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc::{self, c_int};

/// Each message counts with the memory of its buffer, its head included, which alone takes more than this. Smaller
/// values come from messages that are being freed at this moment: until the kernel has woken the sender, each still
/// counts as one byte, and its descriptors are gone already.
const LEAST_MESSAGE_BYTES: c_int = 256;

/// Whether the peer has received all that was sent, or has closed its end.
///
/// # Errors
/// ENOTTY, EINVAL: it is no socket, or one that listens.
pub fn is_empty(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let mut bytes: c_int = 0;
    // SAFETY: SIOCOUTQ, which has the number of TIOCOUTQ, writes one int, and `bytes` is one that lives through the call.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) })?;
    Ok(bytes < LEAST_MESSAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
    use nix::sys::socket::{Shutdown, shutdown};

    use super::*;
    use crate::socket::send_with_fd;

    fn null() -> std::fs::File {
        std::fs::File::open("/dev/null").unwrap()
    }

    #[test]
    fn a_queue_is_empty_once_all_of_it_was_received() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        assert!(is_empty(ours.as_fd()).unwrap());
        send_with_fd(ours.as_fd(), b"ab", Some(theirs.as_fd())).unwrap();
        ours.write_all(b"c").unwrap();
        for left in [2, 1, 0] {
            theirs.read_exact(&mut [0]).unwrap();
            assert_eq!(is_empty(ours.as_fd()).unwrap(), left == 0, "{left} bytes are left");
        }
        theirs.write_all(b"x").unwrap();
        assert!(is_empty(ours.as_fd()).unwrap(), "what we have not read does not count");
        assert!(is_empty(null().as_fd()).is_err());
    }

    /// A look at what was sent (MSG_PEEK) and a shutdown of either side free nothing; the peer's close does.
    #[test]
    fn only_a_read_and_the_peers_close_empty_it() {
        let _quiet = crate::testing::nobody_spawns();
        let (ours, theirs) = UnixStream::pair().unwrap();
        send_with_fd(ours.as_fd(), b"x", Some(null().as_fd())).unwrap();
        crate::message::peek(theirs.as_fd(), &mut [0; 8]).unwrap();
        assert!(!is_empty(ours.as_fd()).unwrap());
        shutdown(ours.as_raw_fd(), Shutdown::Both).unwrap();
        assert!(!is_empty(ours.as_fd()).unwrap());
        shutdown(theirs.as_raw_fd(), Shutdown::Both).unwrap();
        assert!(!is_empty(ours.as_fd()).unwrap());
        drop(theirs);
        assert!(is_empty(ours.as_fd()).unwrap());
    }

    /// The read that empties a queue is reported as an edge for writing, and so is the peer's close; nothing else is.
    #[test]
    fn the_kernel_reports_each_message_that_is_received() {
        let _quiet = crate::testing::nobody_spawns();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET | EpollFlags::EPOLLOUT;
        epoll.add(&ours, EpollEvent::new(flags, 0)).unwrap();
        let edges = || {
            let mut events = [EpollEvent::empty(); 4];
            epoll.wait(&mut events, EpollTimeout::ZERO).unwrap()
        };
        for bytes in [&b"a"[..], b"bc", b"d"] {
            send_with_fd(ours.as_fd(), bytes, Some(null().as_fd())).unwrap();
        }
        assert_eq!((edges(), edges()), (1, 0), "the first look says that it may be written to, once");
        theirs.read_exact(&mut [0]).unwrap();
        assert_eq!((edges(), is_empty(ours.as_fd()).unwrap()), (1, false));
        theirs.read_exact(&mut [0]).unwrap();
        assert_eq!(edges(), 0, "half of a message");
        theirs.read_exact(&mut [0]).unwrap();
        assert_eq!((edges(), is_empty(ours.as_fd()).unwrap()), (1, false));
        shutdown(ours.as_raw_fd(), Shutdown::Both).unwrap();
        edges();
        drop(theirs);
        assert_eq!((edges(), is_empty(ours.as_fd()).unwrap()), (1, true));
        assert_eq!(edges(), 0, "and then it is silent");
    }
}
