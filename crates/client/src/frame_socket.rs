//! The connection as frames and bytes, in one thread: both halves, and the wait for either.
//!
//! The socket is non-blocking. [`FrameSocket::turn`] is the only wait; it sends and reads whatever the socket allows,
//! so a daemon that blocks on a write to us is read while we write. Bounds: a caller queues a request only after the last
//! one was answered or inside a window. Driven by `client.rs`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use bulkhead_proto::client::message::{ReplyFrame, RequestFrame};
use bulkhead_sys::poll::{self, PollTarget};
use bulkhead_sys::socket;

use crate::error::{Error, ProtocolError};
use crate::file::JobFile;
use crate::frame_halves::{FrameReceiver, FrameSender};
use crate::interrupt::Interrupts;

/// A connected socket.
#[derive(Debug)]
pub(crate) struct FrameSocket {
    socket: UnixStream,
    sender: FrameSender,
    receiver: FrameReceiver,
    interrupts: Option<Interrupts>,
    /// Set after a protocol error: the rest of the stream cannot be trusted.
    broken: bool,
}

impl FrameSocket {
    /// The user who called listen on the other side.
    pub(crate) fn peer_uid(&self) -> io::Result<u32> {
        Ok(socket::peer_cred(self.socket.as_fd())?.uid)
    }

    /// Takes over a socket on which the hellos were exchanged.
    pub(crate) fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            sender: FrameSender::default(),
            receiver: FrameReceiver::new(),
            interrupts: None,
            broken: false,
        })
    }

    /// A copy of the socket, and the halves with what is unsent and unread. This one is broken from then on.
    pub(crate) fn take_parts(&mut self) -> Result<(UnixStream, FrameSender, FrameReceiver), Error> {
        if self.broken {
            return Err(Error::Closed { in_a_frame: false });
        }
        let socket = self.socket.try_clone()?;
        self.broken = true;
        let receiver = std::mem::replace(&mut self.receiver, FrameReceiver::new());
        Ok((socket, std::mem::take(&mut self.sender), receiver))
    }

    /// From now on these signals end a wait. Returns the ones that were set before.
    pub(crate) fn set_interrupts(&mut self, interrupts: Option<Interrupts>) -> Option<Interrupts> {
        std::mem::replace(&mut self.interrupts, interrupts)
    }

    /// When the last bytes of the daemon arrived.
    pub(crate) fn last_heard(&self) -> Instant {
        self.receiver.last_heard()
    }

    /// Queues a request with its files; [`FrameSocket::turn`] sends it.
    pub(crate) fn queue(&mut self, frame: &RequestFrame, files: &[JobFile]) -> Result<(), Error> {
        if self.broken {
            return Err(Error::Closed { in_a_frame: false });
        }
        self.sender.queue(frame, files)
    }

    /// The next complete reply among the bytes that were read, and its size in bytes.
    pub(crate) fn next_frame(&mut self) -> Result<Option<(ReplyFrame, usize)>, Error> {
        self.receiver.next_frame().map_err(|fault| self.give_up(fault))
    }

    /// The descriptor of the current reply. Replies take descriptors in the order of their arrival.
    pub(crate) fn next_descriptor(&mut self) -> Option<OwnedFd> {
        self.receiver.next_descriptor()
    }

    /// The receiving half.
    pub(crate) fn receiver(&mut self) -> &mut FrameReceiver {
        &mut self.receiver
    }

    /// As [`FrameReceiver::check_late`].
    pub(crate) fn check_late(&mut self) -> Result<(), Error> {
        self.receiver.check_late(self.socket.as_fd()).inspect_err(|_| self.broken = true)
    }

    /// Marks the connection as broken after a protocol error, and returns the error.
    pub(crate) fn give_up(&mut self, fault: ProtocolError) -> Error {
        self.broken = true;
        self.receiver.forget();
        fault.into()
    }

    /// Waits until the socket is writable or readable, then sends and reads. `false` if `until` passes first.
    pub(crate) fn turn(&mut self, until: Option<Instant>) -> Result<bool, Error> {
        if self.broken {
            return Err(Error::Closed { in_a_frame: false });
        }
        // A new request nearly always fits the socket buffer, so poll waits only for the answer.
        self.sender.send(self.socket.as_fd())?;
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let fd = self.socket.as_fd();
        // It polls for reading while it waits to write: else client and daemon could wait for each other.
        let socket = PollTarget { fd, readable: true, writable: self.sender.unsent_bytes() > 0 };
        let signals =
            self.interrupts.as_ref().map_or(PollTarget::end(fd), |found| PollTarget::readable(found.as_fd()));
        let [poll::Readiness { readable, writable, .. }, signalled] = poll::wait([socket, signals], left)?;
        if signalled.readable && self.interrupts.as_mut().is_some_and(Interrupts::take) {
            return Err(Error::Interrupted);
        }
        if writable {
            self.sender.send(self.socket.as_fd())?;
        }
        if readable {
            self.read()?;
        }
        Ok(readable || writable || left.is_none_or(|left| !left.is_zero()))
    }

    /// Sends as much of the queued frames as the socket takes, before it is closed. No error is reported.
    pub(crate) fn send_last(&mut self) {
        if !self.broken {
            drop(self.sender.send(self.socket.as_fd()));
        }
    }

    fn read(&mut self) -> Result<(), Error> {
        match self.receiver.read(self.socket.as_fd()) {
            Err(Error::Protocol(fault)) => Err(self.give_up(fault)),
            Err(closed @ Error::Closed { .. }) => {
                self.broken = true;
                Err(closed)
            }
            read => read,
        }
    }
}
