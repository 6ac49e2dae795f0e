//! The lane: a pair of `SOCK_SEQPACKET` sockets between the supervisor and one worker, whose standard input is one
//! end.
//!
//! Frames arrive whole and in order; a truncated frame is refused. The supervisor's end is non-blocking and receives
//! no descriptors: a frame with descriptors is reported and stays in the queue, because to receive or drop it can
//! block in a last close. The worker's end blocks and receives descriptors. Driven by the supervisor's
//! `worker_process.rs` and the worker.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socketpair, sockopt};

use crate::{message, untrusted};

/// Size of the buffer for the last reads.
const LAST_READ_BYTES: usize = 4 << 10;

/// One end of a lane.
#[derive(Debug)]
pub struct Lane {
    socket: OwnedFd,
    takes_descriptors: bool,
}

/// The result of a receive.
#[derive(Debug)]
pub enum LaneFrame {
    /// A whole frame.
    Frame {
        /// The number of bytes, at the start of the buffer. 0 is an empty frame, which no honest peer sends.
        length: usize,
        /// The descriptors attached to it.
        descriptors: Vec<OwnedFd>,
    },
    /// A frame that breaks a rule.
    Refused(LaneFault),
    /// The other end is closed and all its frames were read. A hint of death, not a proof.
    HungUp,
}

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneFault {
    /// It is longer than the buffer, and was discarded.
    Truncated,
    /// It carries descriptors although this end receives none: it stays in the queue and is reported again. Or it
    /// carries more than fit, and was discarded.
    Descriptors,
}

impl Lane {
    /// Creates a lane: our end, which is non-blocking and receives no descriptors, and the child's end, which blocks.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM: a resource is exhausted; retry later.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (socket, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        fcntl(&socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok((Self { socket, takes_descriptors: false }, theirs))
    }

    /// Takes the end that is our standard input, and puts /dev/null in its place, so that neither a task that reads
    /// standard input nor a program that a task starts has the lane.
    ///
    /// # Errors
    /// `InvalidInput`: standard input is no lane, so the supervisor did not start this process. EMFILE, ENFILE.
    pub fn from_stdin() -> io::Result<Self> {
        let stdin = io::stdin();
        // F_DUPFD_CLOEXEC from 3 on: it is never a standard descriptor.
        let socket = stdin.as_fd().try_clone_to_owned()?;
        let is_lane = nix::sys::socket::getsockname::<nix::sys::socket::UnixAddr>(socket.as_raw_fd()).is_ok()
            && getsockopt(&socket, sockopt::SockType) == Ok(SockType::SeqPacket);
        if !is_lane {
            let text = "standard input is not a lane: bulkhead-supervisor starts this program";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let null = File::open("/dev/null")?;
        // SAFETY: dup2 onto 0 closes what stood there, which nothing in this process owns as a value.
        Errno::result(unsafe { libc::dup2(null.as_raw_fd(), libc::STDIN_FILENO) })?;
        Ok(Self { socket, takes_descriptors: true })
    }

    /// Sends one frame with descriptors attached.
    ///
    /// # Errors
    /// EAGAIN: the lane is full (a non-blocking end). EPIPE, ECONNRESET: the other end is closed. ETOOMANYREFS: too
    /// many of our descriptors are in flight. EINVAL: more than 16 descriptors. EMSGSIZE.
    pub fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        message::send(self.socket.as_fd(), bytes, descriptors, 0).map(drop)
    }

    /// Receives one frame into `bytes`. The worker's end blocks until one arrives.
    ///
    /// # Errors
    /// EAGAIN: no frame has arrived (a non-blocking end). ENOMEM.
    pub fn recv(&self, bytes: &mut [u8]) -> io::Result<LaneFrame> {
        let mut descriptors = Vec::new();
        let socket = self.socket.as_fd();
        let received = if self.takes_descriptors {
            message::receive(socket, bytes, Some(&mut descriptors))
        } else {
            // No other thread reads this socket, so this receives the frame that was peeked at.
            message::peek(socket, bytes).and_then(|seen| match seen.control_cut {
                true => Ok(seen),
                false => message::receive(socket, bytes, None),
            })
        };
        let received = match received {
            // ECONNRESET is reported once, if the other end closes with unread frames of ours; its own frames are
            // still queued.
            Err(error) if is_reset_or_interrupt(&error) => return self.recv(bytes),
            other => other?,
        };
        Ok(if received.control_cut {
            LaneFrame::Refused(LaneFault::Descriptors)
        } else if received.bytes_cut {
            LaneFrame::Refused(LaneFault::Truncated)
        } else if received.bytes == 0 && self.is_hung_up()? {
            LaneFrame::HungUp
        } else {
            LaneFrame::Frame { length: received.bytes, descriptors }
        })
    }

    /// Shuts it down in both directions. Returns `true` if its queue is empty, so that a close cannot block.
    pub fn hang_up(&self) -> bool {
        untrusted::hang_up_frames(self.socket.as_fd(), &mut [0; LAST_READ_BYTES])
    }

    /// recvmsg returns 0 for an empty frame and for the end alike; poll tells them apart.
    fn is_hung_up(&self) -> io::Result<bool> {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let mut polled = [PollFd::new(self.socket.as_fd(), PollFlags::empty())];
        poll(&mut polled, PollTimeout::ZERO)?;
        Ok(polled[0].revents().is_some_and(|seen| seen.contains(PollFlags::POLLHUP)))
    }
}

fn is_reset_or_interrupt(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted)
}

impl AsFd for Lane {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::memfd::output_file;

    /// Both ends, the second as a worker's.
    fn pair() -> (Lane, Lane) {
        let (ours, theirs) = Lane::pair().unwrap();
        (ours, Lane { socket: theirs, takes_descriptors: true })
    }

    fn frame(lane: &Lane, bytes: &mut [u8]) -> (usize, Vec<OwnedFd>) {
        match lane.recv(bytes).unwrap() {
            LaneFrame::Frame { length, descriptors } => (length, descriptors),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn frames_keep_their_borders_and_descriptors() {
        let (ours, theirs) = pair();
        let file = output_file("passed").unwrap();
        ours.send(b"setup", &[file.as_fd(), file.as_fd()]).unwrap();
        ours.send(b"more", &[]).unwrap();
        let mut bytes = [0; 64];
        let (length, descriptors) = frame(&theirs, &mut bytes);
        assert_eq!((&bytes[..length], descriptors.len()), (&b"setup"[..], 2));
        for descriptor in &descriptors {
            let flags = fcntl(descriptor, FcntlArg::F_GETFD).unwrap();
            assert_eq!(flags, libc::FD_CLOEXEC);
        }
        let (length, descriptors) = frame(&theirs, &mut bytes);
        assert_eq!((&bytes[..length], descriptors.len()), (&b"more"[..], 0));
    }

    #[test]
    fn a_cut_frame_is_refused_and_the_next_one_is_whole() {
        let (ours, theirs) = pair();
        theirs.send(&[1; 65], &[]).unwrap();
        theirs.send(&[2; 64], &[]).unwrap();
        let mut bytes = [0; 64];
        assert!(matches!(ours.recv(&mut bytes).unwrap(), LaneFrame::Refused(LaneFault::Truncated)));
        assert_eq!(frame(&ours, &mut bytes).0, 64);
        assert_eq!(bytes, [2; 64]);
    }

    #[test]
    fn no_descriptor_comes_up_and_none_is_dropped_by_a_read() {
        let _quiet = crate::testing::nobody_spawns();
        let (ours, theirs) = pair();
        let (watched, passed) = std::os::unix::net::UnixStream::pair().unwrap();
        theirs.send(&[0; 65], &[passed.as_fd()]).unwrap();
        drop(passed);
        let is_closed = || crate::poll::wait_readable(watched.as_fd(), std::time::Duration::ZERO).unwrap();
        for _ in 0..3 {
            let refused = ours.recv(&mut [0; 64]).unwrap();
            assert!(matches!(refused, LaneFrame::Refused(LaneFault::Descriptors)), "{refused:?}");
        }
        // The frame is its only holder, so the end of the stream would show that it was closed.
        assert!(!is_closed(), "a read has dropped it");
        drop(ours);
        assert!(is_closed(), "it came to stay");
    }

    /// Takes an hour if a read drops the descriptor.
    #[test]
    fn a_receive_does_not_wait_for_a_connection_that_lingers() {
        let _last_closes = crate::testing::nobody_spawns();
        let (ours, theirs) = pair();
        let (lingers, reader) = crate::hostile_peer::lingering().unwrap();
        theirs.send(b"x", &[lingers.as_fd()]).unwrap();
        drop(lingers);
        let (told, received) = std::sync::mpsc::channel();
        let receiver = std::thread::spawn(move || {
            told.send(matches!(ours.recv(&mut [0; 8]), Ok(LaneFrame::Refused(LaneFault::Descriptors))))
                .unwrap();
            ours
        });
        let right = received.recv_timeout(crate::testing::PATIENCE);
        // Now the lingering close ends.
        drop(reader);
        drop(receiver.join().unwrap());
        assert_eq!(right, Ok(true), "it waited, or took what came");
    }

    /// Files of clients are sent on lanes: closing the sending end must not close them.
    #[test]
    fn what_was_sent_is_dropped_by_the_end_that_it_was_sent_to() {
        let _quiet = crate::testing::nobody_spawns();
        let (ours, theirs) = pair();
        let (watched, passed) = std::os::unix::net::UnixStream::pair().unwrap();
        let is_closed = || crate::poll::wait_readable(watched.as_fd(), std::time::Duration::ZERO).unwrap();
        ours.send(b"never read", &[passed.as_fd()]).unwrap();
        drop(passed);
        drop(ours);
        assert!(!is_closed(), "our end has dropped it");
        drop(theirs);
        assert!(is_closed(), "nobody has dropped it");
        let (ours, theirs) = pair();
        let (watched, passed) = std::os::unix::net::UnixStream::pair().unwrap();
        drop(theirs);
        assert!(ours.send(b"to nobody", &[passed.as_fd()]).is_err());
        let is_closed = crate::poll::wait_readable(watched.as_fd(), std::time::Duration::ZERO).unwrap();
        assert!(!is_closed, "a send that fails closes nothing that its sender holds");
        drop(passed);
    }

    #[test]
    fn urgent_frames_do_not_exist() {
        let (_ours, theirs) = pair();
        let sent =
            crate::hostile_peer::send(theirs.as_fd(), b"!", &[], crate::hostile_peer::SendMode::Urgent);
        assert_eq!(sent.unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
    }

    #[test]
    fn ours_never_blocks_and_full_is_told() {
        let (ours, theirs) = pair();
        assert_eq!(ours.recv(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let mut sent = 0;
        let full = loop {
            match ours.send(b"x", &[]) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        for _ in 0..sent {
            assert_eq!(frame(&theirs, &mut [0; 8]).0, 1);
        }
    }

    #[test]
    fn a_hang_up_comes_after_what_was_sent() {
        let _quiet = crate::testing::nobody_spawns();
        let (ours, theirs) = pair();
        ours.send(b"never read", &[]).unwrap();
        theirs.send(b"", &[]).unwrap();
        theirs.send(b"last words", &[]).unwrap();
        let mut bytes = [0; 64];
        assert_eq!(frame(&ours, &mut bytes).0, 0, "an empty frame is no hang-up");
        drop(theirs);
        assert_eq!(frame(&ours, &mut bytes).0, 10);
        assert!(matches!(ours.recv(&mut bytes).unwrap(), LaneFrame::HungUp));
        assert!(matches!(ours.recv(&mut bytes).unwrap(), LaneFrame::HungUp));
        assert_eq!(ours.send(b"x", &[]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_standard_input_that_is_no_lane_is_refused() {
        crate::testing::in_child("lane::tests::a_standard_input_that_is_no_lane_is_refused", || {
            assert_eq!(Lane::from_stdin().unwrap_err().kind(), io::ErrorKind::InvalidInput);
        });
    }
}
