//! The connection as bytes: what waits to be sent, what was read, and the descriptors that came with it.
//!
//! The socket never blocks. [`Wire::turn`] is the only wait: it sends and reads whatever the socket allows, so a
//! daemon that is blocked on us is always being read while we write. Bounds: one read beyond one frame is held, and
//! callers queue a request only when the last one has an answer or a window.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use bulkhead_proto::client::{ReplyFrame, RequestFrame};
use bulkhead_proto::codec;
use bulkhead_proto::frame::{Frames, push_frame};
use bulkhead_sys::poll::{self, Watch};
use bulkhead_sys::socket;

use crate::error::{Error, Fault};
use crate::interrupt::Interrupts;

/// Bytes read at once.
const READ_BYTES: usize = 128 << 10;
/// Descriptors that may be held for replies that are still being read. An honest daemon sends each with the first
/// byte of its reply, so there are never more than one read can bring.
const DESCRIPTORS_MAX: usize = 64;

/// A connected socket.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: UnixStream,
    outgoing: Vec<u8>,
    sent: usize,
    frames: Frames,
    descriptors: VecDeque<OwnedFd>,
    buffer: Vec<u8>,
    last_heard: Instant,
    interrupts: Option<Interrupts>,
    /// After a fault nothing of this stream makes sense any more.
    broken: bool,
}

impl Wire {
    /// Takes over a socket on which the hellos are exchanged.
    pub(crate) fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            outgoing: Vec::new(),
            sent: 0,
            frames: Frames::default(),
            descriptors: VecDeque::new(),
            buffer: vec![0; READ_BYTES],
            last_heard: Instant::now(),
            interrupts: None,
            broken: false,
        })
    }

    /// From now on these signals end a wait.
    pub(crate) fn set_interrupts(&mut self, interrupts: Option<Interrupts>) -> Option<Interrupts> {
        std::mem::replace(&mut self.interrupts, interrupts)
    }

    /// When the daemon last said anything.
    pub(crate) fn last_heard(&self) -> Instant {
        self.last_heard
    }

    /// Puts a request in line; [`Wire::turn`] sends it.
    pub(crate) fn queue(&mut self, frame: &RequestFrame) -> Result<(), Error> {
        if self.broken {
            return Err(Error::Closed { in_a_frame: false });
        }
        if self.sent == self.outgoing.len() {
            self.outgoing.clear();
            self.sent = 0;
        }
        push_frame(frame, &mut self.outgoing).map_err(Error::TooLong)
    }

    /// The next whole reply of what was read, and its size in bytes.
    pub(crate) fn next_frame(&mut self) -> Result<Option<(ReplyFrame, usize)>, Error> {
        match self.frames.next_frame() {
            Ok(None) => Ok(None),
            Ok(Some(bytes)) => match codec::decode(bytes) {
                Ok(frame) => Ok(Some((frame, bytes.len()))),
                Err(error) => Err(self.give_up(Fault::Codec(error))),
            },
            Err(oversized) => Err(self.give_up(Fault::Frame(oversized))),
        }
    }

    /// The descriptor that goes with the reply being looked at. Replies take them in the order in which they came.
    pub(crate) fn next_descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptors.pop_front()
    }

    /// Ends the use of this connection because of what the daemon sent.
    pub(crate) fn give_up(&mut self, fault: Fault) -> Error {
        self.broken = true;
        self.descriptors.clear();
        fault.into()
    }

    /// Waits until the socket takes or brings something, and does it. `false`: `until` has passed.
    pub(crate) fn turn(&mut self, until: Option<Instant>) -> Result<bool, Error> {
        if self.broken {
            return Err(Error::Closed { in_a_frame: false });
        }
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let fd = self.socket.as_fd();
        // Ready to read while it waits to write, or it and the daemon would wait for each other.
        let socket = Watch { fd, readable: true, writable: self.sent < self.outgoing.len() };
        let signals = self.interrupts.as_ref().map_or(Watch::end(fd), |found| Watch::readable(found.as_fd()));
        let [poll::Seen { readable, writable, .. }, _] = poll::wait([socket, signals], left)?;
        if self.interrupts.as_mut().is_some_and(Interrupts::take) {
            return Err(Error::Interrupted);
        }
        if writable {
            self.send()?;
        }
        if readable {
            self.read()?;
        }
        Ok(readable || writable || left.is_none_or(|left| !left.is_zero()))
    }

    /// Sends what the socket takes. A daemon that hung up may have said why: that is still to be read, so a broken
    /// pipe only drops what was to be sent, and the end is reported by the read that finds it.
    fn send(&mut self) -> Result<(), Error> {
        while self.sent < self.outgoing.len() {
            match socket::send_with_fd(self.socket.as_fd(), &self.outgoing[self.sent..], None) {
                Ok(count) => self.sent += count,
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return Ok(()),
                    ErrorKind::Interrupted => {}
                    ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => self.sent = self.outgoing.len(),
                    _ => return Err(error.into()),
                },
            }
        }
        Ok(())
    }

    /// Reads once.
    fn read(&mut self) -> Result<(), Error> {
        let mut came = Vec::new();
        let count = match socket::recv_with_fds(self.socket.as_fd(), &mut self.buffer, &mut came) {
            Ok(count) => count,
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted => return Ok(()),
                ErrorKind::ConnectionReset => 0,
                _ => return Err(error.into()),
            },
        };
        if count == 0 {
            self.broken = true;
            return Err(Error::Closed { in_a_frame: self.frames.is_partial() });
        }
        self.last_heard = Instant::now();
        self.frames.feed(&self.buffer[..count]);
        self.descriptors.extend(came);
        if self.descriptors.len() > DESCRIPTORS_MAX {
            return Err(self.give_up(Fault::StrayDescriptors(self.descriptors.len())));
        }
        Ok(())
    }
}
