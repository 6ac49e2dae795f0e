//! The connection as frames and bytes: unsent bytes, bytes that were read, and the descriptors that arrived with them.
//!
//! The socket is non-blocking. [`FrameSocket::turn`] is the only wait; it sends and reads whatever the socket allows,
//! so a daemon that blocks on a write to us is read while we write. Bounds: at most one read beyond one frame is
//! buffered, and a caller queues a request only after the last one was answered or inside a window. Driven by
//! `client.rs`.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use bulkhead_proto::client::frame::{Frames, push_frame};
use bulkhead_proto::client::message::{ReplyFrame, RequestFrame};
use bulkhead_proto::codec;
use bulkhead_sys::poll::{self, PollTarget};
use bulkhead_sys::socket;

use crate::error::{Error, ProtocolError};
use crate::file::JobFile;
use crate::interrupt::Interrupts;

/// Bytes of one read.
const READ_BYTES: usize = 128 << 10;
/// Most descriptors that are kept for replies that are not read to their end. The daemon sends each descriptor with the
/// first byte of its reply, so there are never more than one read can bring.
const DESCRIPTORS_MAX: usize = 64;

/// A connected socket.
#[derive(Debug)]
pub(crate) struct FrameSocket {
    socket: UnixStream,
    outgoing: Vec<u8>,
    sent: usize,
    /// Files to be sent with the byte at this index of `outgoing`, the first of a frame.
    attached: VecDeque<(usize, Vec<JobFile>)>,
    frames: Frames,
    descriptors: VecDeque<OwnedFd>,
    buffer: Vec<u8>,
    last_heard: Instant,
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
            outgoing: Vec::new(),
            sent: 0,
            attached: VecDeque::new(),
            frames: Frames::default(),
            descriptors: VecDeque::new(),
            buffer: vec![0; READ_BYTES],
            last_heard: Instant::now(),
            interrupts: None,
            broken: false,
        })
    }

    /// From now on these signals end a wait. Returns the ones that were set before.
    pub(crate) fn set_interrupts(&mut self, interrupts: Option<Interrupts>) -> Option<Interrupts> {
        std::mem::replace(&mut self.interrupts, interrupts)
    }

    /// When the last bytes of the daemon arrived.
    pub(crate) fn last_heard(&self) -> Instant {
        self.last_heard
    }

    /// Queues a request with its files; [`FrameSocket::turn`] sends it.
    pub(crate) fn queue(&mut self, frame: &RequestFrame, files: &[JobFile]) -> Result<(), Error> {
        if self.broken {
            return Err(Error::Closed { in_a_frame: false });
        }
        if self.sent == self.outgoing.len() {
            self.outgoing.clear();
            self.sent = 0;
        }
        let first = self.outgoing.len();
        push_frame(frame, &mut self.outgoing).map_err(Error::TooLong)?;
        if !files.is_empty() {
            self.attached.push_back((first, files.to_vec()));
        }
        Ok(())
    }

    /// The next complete reply among the bytes that were read, and its size in bytes.
    pub(crate) fn next_frame(&mut self) -> Result<Option<(ReplyFrame, usize)>, Error> {
        match self.frames.next_frame() {
            Ok(None) => Ok(None),
            Ok(Some(bytes)) => match codec::decode(bytes) {
                Ok(frame) => Ok(Some((frame, bytes.len()))),
                Err(error) => Err(self.give_up(ProtocolError::Codec(error))),
            },
            Err(oversized) => Err(self.give_up(ProtocolError::Frame(oversized))),
        }
    }

    /// The descriptor of the current reply. Replies take descriptors in the order of their arrival.
    pub(crate) fn next_descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptors.pop_front()
    }

    /// Marks the connection as broken after a protocol error, and returns the error.
    pub(crate) fn give_up(&mut self, fault: ProtocolError) -> Error {
        self.broken = true;
        self.descriptors.clear();
        fault.into()
    }

    /// Waits until the socket is writable or readable, then sends and reads. `false` if `until` passes first.
    pub(crate) fn turn(&mut self, until: Option<Instant>) -> Result<bool, Error> {
        if self.broken {
            return Err(Error::Closed { in_a_frame: false });
        }
        // A new request nearly always fits the socket buffer, so poll waits only for the answer.
        self.send()?;
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let fd = self.socket.as_fd();
        // It polls for reading while it waits to write: else client and daemon could wait for each other.
        let socket = PollTarget { fd, readable: true, writable: self.sent < self.outgoing.len() };
        let signals =
            self.interrupts.as_ref().map_or(PollTarget::end(fd), |found| PollTarget::readable(found.as_fd()));
        let [poll::Readiness { readable, writable, .. }, signalled] = poll::wait([socket, signals], left)?;
        if signalled.readable && self.interrupts.as_mut().is_some_and(Interrupts::take) {
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

    /// Sends as much of the queued frames as the socket takes, before it is closed. No error is reported.
    pub(crate) fn send_last(&mut self) {
        if !self.broken {
            drop(self.send());
        }
    }

    /// Sends as much as the socket takes. A daemon that hung up may have sent a goodbye that is still to be read. So
    /// EPIPE only drops the unsent bytes; the read that finds the end reports it.
    fn send(&mut self) -> Result<(), Error> {
        while self.sent < self.outgoing.len() {
            match self.send_some() {
                Ok(()) => {}
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return Ok(()),
                    ErrorKind::Interrupted => {}
                    ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
                        self.sent = self.outgoing.len();
                        self.attached.clear();
                    }
                    _ => return Err(error.into()),
                },
            }
        }
        Ok(())
    }

    /// Calls sendmsg once. It sends the bytes up to the next byte that has files, or from that byte on together with
    /// the files. The files go out with the first byte of their frame, however few bytes the kernel takes; the rest of
    /// the frame is sent without them.
    fn send_some(&mut self) -> io::Result<()> {
        let next = self.attached.front().map_or(usize::MAX, |(first, _)| *first);
        let (here, end) = if next == self.sent {
            (self.attached.front(), self.attached.get(1).map_or(usize::MAX, |(first, _)| *first))
        } else {
            (None, next)
        };
        let files = here.map_or(&[][..], |(_, files)| files);
        let descriptors: Vec<BorrowedFd<'_>> = files.iter().map(|one| one.file.as_fd()).collect();
        let bytes = &self.outgoing[self.sent..end.min(self.outgoing.len())];
        let count = socket::send_with_fds(self.socket.as_fd(), bytes, &descriptors)?;
        if count > 0 && !descriptors.is_empty() {
            self.attached.pop_front();
        }
        self.sent += count;
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
            return Err(self.give_up(ProtocolError::StrayDescriptors(self.descriptors.len())));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use bulkhead_proto::client::message::{Request, Submit};
    use bulkhead_proto::ids::Tag;

    use super::*;

    fn submit(tag: u32, bytes: usize) -> RequestFrame {
        let inputs = vec![vec![7; bytes].into()];
        RequestFrame { tag: Tag(tag), request: Request::Submit(Submit { inputs, ..Submit::default() }) }
    }

    fn file(text: &str) -> JobFile {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(text.as_bytes(), 0).unwrap();
        JobFile::read(text, file)
    }

    /// Frames far longer than a socket takes at once, read in small pieces.
    #[test]
    fn files_are_sent_once_and_with_the_first_byte_of_their_frame() {
        let (socket, other) = UnixStream::pair().unwrap();
        let mut frame_socket = FrameSocket::new(socket).unwrap();
        let long = (1 << 20) - 200;
        frame_socket.queue(&submit(1, 10), &[]).unwrap();
        frame_socket.queue(&submit(2, long), &[file("a"), file("b")]).unwrap();
        frame_socket.queue(&submit(3, long), &[file("c")]).unwrap();
        frame_socket.queue(&submit(4, 10), &[]).unwrap();
        frame_socket.queue(&submit(5, 10), &[file("d")]).unwrap();
        let (mut frames, mut came, mut read, mut buffer) = (Frames::default(), Vec::new(), 0, [0; 5000]);
        let mut next = 1;
        while next <= 5 {
            frame_socket.send().unwrap();
            let mut now = Vec::new();
            let count = socket::recv_with_fds(other.as_fd(), &mut buffer, &mut now).unwrap();
            came.extend(now.into_iter().map(|one| (read..read + count, File::from(one))));
            read += count;
            frames.feed(&buffer[..count]);
            while let Some(bytes) = frames.next_frame().unwrap() {
                assert_eq!(codec::decode::<RequestFrame>(bytes).unwrap().tag, Tag(next));
                next += 1;
            }
        }
        let texts: Vec<String> = came
            .iter()
            .map(|(_, file)| std::io::read_to_string(file.try_clone().unwrap()).unwrap())
            .collect();
        assert_eq!(texts, ["a", "b", "c", "d"]);
        // Each came with the read that brought the first byte of its frame, which may begin before it.
        let sizes = [(1, 10), (2, long), (3, long), (4, 10)].map(|(tag, bytes)| {
            let mut frame = Vec::new();
            push_frame(&submit(tag, bytes), &mut frame).unwrap();
            frame.len()
        });
        let firsts = [sizes[0], sizes[0], sizes[0] + sizes[1], sizes.iter().sum()];
        for ((read, _), first) in came.iter().zip(firsts) {
            assert!(read.contains(&first), "{read:?} has not {first}");
        }
        assert!(frame_socket.attached.is_empty());
    }
}
