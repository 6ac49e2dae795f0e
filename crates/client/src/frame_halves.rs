//! The two halves of a connection: the bytes that are to be sent with their files, and the bytes that came with their
//! descriptors.
//!
//! Neither waits, and neither knows the other: `frame_socket.rs` has both in one thread, `session.rs` gives them to two.
//! Bounds: the receiver buffers at most one read beyond one frame; what is queued is bounded by the caller.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use bulkhead_proto::client::frame::{Frames, push_frame};
use bulkhead_proto::client::message::{Reply, ReplyFrame, RequestFrame};
use bulkhead_proto::client::outcome::ResultBlock;
use bulkhead_proto::codec;
use bulkhead_proto::ids::JobId;
use bulkhead_proto::limits::BLOCK_CHECK_MS;
use bulkhead_sys::poll::{self, PollTarget};
use bulkhead_sys::socket;

use crate::error::{Error, ProtocolError};
use crate::file::JobFile;
use crate::read_arenas::{FreedNumbers, ReadArenas};

/// Bytes of one read.
const READ_BYTES: usize = 128 << 10;
/// Most descriptors that are kept for replies that are not read to their end. The daemon sends each descriptor with the
/// first byte of its reply, so there are never more than one read can bring.
const DESCRIPTORS_MAX: usize = 64;

/// Requests that are to be sent.
#[derive(Debug, Default)]
pub(crate) struct FrameSender {
    outgoing: Vec<u8>,
    sent: usize,
    /// Files to be sent with the byte at this index of `outgoing`, the first of a frame.
    attached: VecDeque<(usize, Vec<JobFile>)>,
}

impl FrameSender {
    /// Queues a request with its files.
    pub(crate) fn queue(&mut self, frame: &RequestFrame, files: &[JobFile]) -> Result<(), Error> {
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

    /// How many bytes are queued and not sent.
    pub(crate) fn unsent_bytes(&self) -> usize {
        self.outgoing.len() - self.sent
    }

    /// Drops the frames that were not sent.
    pub(crate) fn forget(&mut self) {
        self.sent = self.outgoing.len();
        self.attached.clear();
    }

    /// Sends as much as the socket takes. A daemon that hung up may have sent a goodbye that is still to be read. So
    /// EPIPE only drops the unsent bytes; the read that finds the end reports it.
    pub(crate) fn send(&mut self, socket: BorrowedFd<'_>) -> Result<(), Error> {
        while self.sent < self.outgoing.len() {
            match self.send_some(socket) {
                Ok(()) => {}
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return Ok(()),
                    ErrorKind::Interrupted => {}
                    ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => self.forget(),
                    _ => return Err(error.into()),
                },
            }
        }
        Ok(())
    }

    /// Calls sendmsg once. It sends the bytes up to the next byte that has files, or from that byte on together with
    /// the files. The files go out with the first byte of their frame, however few bytes the kernel takes; the rest of
    /// the frame is sent without them.
    fn send_some(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let next = self.attached.front().map_or(usize::MAX, |(first, _)| *first);
        let (here, end) = if next == self.sent {
            (self.attached.front(), self.attached.get(1).map_or(usize::MAX, |(first, _)| *first))
        } else {
            (None, next)
        };
        let files = here.map_or(&[][..], |(_, files)| files);
        let descriptors: Vec<BorrowedFd<'_>> = files.iter().map(|one| one.file.as_fd()).collect();
        let bytes = &self.outgoing[self.sent..end.min(self.outgoing.len())];
        let count = socket::send_with_fds(socket, bytes, &descriptors)?;
        if count > 0 && !descriptors.is_empty() {
            self.attached.pop_front();
        }
        self.sent += count;
        Ok(())
    }
}

/// Replies that came.
#[derive(Debug)]
pub(crate) struct FrameReceiver {
    frames: Frames,
    descriptors: VecDeque<OwnedFd>,
    arenas: Box<ReadArenas>,
    buffer: Vec<u8>,
    last_heard: Instant,
    /// When the last read began, which brought the end of each reply that is whole and was not taken.
    read_began: Instant,
    /// A block was copied so late that the daemon may have ended the connection and used it again.
    is_late: bool,
}

/// See [`BLOCK_CHECK_MS`].
const BLOCK_CHECK: Duration = Duration::from_millis(BLOCK_CHECK_MS);

impl FrameReceiver {
    /// Nothing has come.
    pub(crate) fn new() -> Self {
        Self {
            frames: Frames::default(),
            descriptors: VecDeque::new(),
            arenas: Box::default(),
            buffer: vec![0; READ_BYTES],
            last_heard: Instant::now(),
            read_began: Instant::now(),
            is_late: false,
        }
    }

    /// When the last bytes of the daemon arrived.
    pub(crate) fn last_heard(&self) -> Instant {
        self.last_heard
    }

    /// The next complete reply among the bytes that were read, and its size in bytes.
    pub(crate) fn next_frame(&mut self) -> Result<Option<(ReplyFrame, usize)>, ProtocolError> {
        loop {
            let Some(bytes) = self.frames.next_frame().map_err(ProtocolError::Frame)? else {
                return Ok(None);
            };
            match codec::decode(bytes).map_err(ProtocolError::Codec)? {
                ReplyFrame { reply: Reply::ArenaGone { arena }, .. } => self.arenas.forget(arena),
                frame => return Ok(Some((frame, bytes.len()))),
            }
        }
    }

    /// The bytes of a block in an arena, which is freed with this. [`Self::check_late`] must follow.
    ///
    /// # Errors
    /// As [`ReadArenas::read`].
    pub(crate) fn read_block(&mut self, job: JobId, block: ResultBlock) -> Result<Vec<u8>, Error> {
        let descriptor = if block.is_attached { self.next_descriptor() } else { None };
        let bytes = self.arenas.read(job, block, descriptor);
        self.is_late |= self.read_began.elapsed() >= BLOCK_CHECK;
        bytes
    }

    /// Takes the memory of results that [`Self::read_block`] gave, for the next ones.
    pub(crate) fn reuse(&mut self, read: Vec<Vec<u8>>) {
        self.arenas.reuse(read);
    }

    /// Makes sure that blocks which were copied late were what the daemon had told of: the connection is open.
    ///
    /// # Errors
    /// [`Error::Closed`]: it is not, so what was copied since the last call may be another result.
    pub(crate) fn check_late(&mut self, socket: BorrowedFd<'_>) -> Result<(), Error> {
        if std::mem::take(&mut self.is_late) {
            let [seen] = poll::wait([PollTarget::end(socket)], Some(Duration::ZERO))?;
            if seen.hung_up {
                return Err(Error::Closed { in_a_frame: false });
            }
        }
        Ok(())
    }

    /// The blocks that were read and that the daemon was not told of.
    pub(crate) fn freed(&mut self) -> &mut FreedNumbers {
        &mut self.arenas.freed
    }

    /// The descriptor of the current reply. Replies take descriptors in the order of their arrival.
    pub(crate) fn next_descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptors.pop_front()
    }

    /// Closes the descriptors that no reply has taken.
    pub(crate) fn forget(&mut self) {
        self.descriptors.clear();
    }

    /// Reads once.
    ///
    /// # Errors
    /// [`Error::Closed`] at the end of the stream; too many descriptors; those of recvmsg(2).
    pub(crate) fn read(&mut self, socket: BorrowedFd<'_>) -> Result<(), Error> {
        let mut came = Vec::new();
        self.read_began = Instant::now();
        let count = match socket::recv_with_fds(socket, &mut self.buffer, &mut came) {
            Ok(count) => count,
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::Interrupted => return Ok(()),
                ErrorKind::ConnectionReset => 0,
                _ => return Err(error.into()),
            },
        };
        if count == 0 {
            return Err(Error::Closed { in_a_frame: self.frames.is_partial() });
        }
        self.last_heard = Instant::now();
        self.frames.feed(&self.buffer[..count]);
        self.descriptors.extend(came);
        if self.descriptors.len() > DESCRIPTORS_MAX {
            return Err(ProtocolError::StrayDescriptors(self.descriptors.len()).into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::os::unix::net::UnixStream;

    use bulkhead_proto::client::message::{Request, Submit};
    use bulkhead_proto::ids::Tag;
    use bulkhead_proto::limits::ARENA_BYTES;
    use bulkhead_sys::memfd;

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

    #[test]
    fn a_block_that_was_copied_late_is_believed_while_the_connection_is_open() {
        let (_writer, reader) = memfd::log_file("arena", ARENA_BYTES as u64).unwrap();
        let mut block = ResultBlock { block: 1, arena: 5, offset: 0, bytes: 5000, is_attached: true };
        let mut half = FrameReceiver::new();
        half.descriptors.push_back(reader);
        let began = Instant::now();
        for (is_late, is_open) in [(false, true), (true, true), (false, false), (true, false)] {
            let (socket, other) = UnixStream::pair().unwrap();
            half.read_began = if is_late { began.checked_sub(BLOCK_CHECK).unwrap() } else { Instant::now() };
            half.read_block(JobId(1), block).unwrap();
            block.is_attached = false;
            let _other = Some(other).filter(|_| is_open);
            let checked = half.check_late(socket.as_fd());
            assert_eq!(checked.is_err(), is_late && !is_open, "{is_late} {is_open}: {checked:?}");
            assert!(half.check_late(socket.as_fd()).is_ok(), "each is checked once");
        }
    }

    /// Frames far longer than a socket takes at once, read in small pieces.
    #[test]
    fn files_are_sent_once_and_with_the_first_byte_of_their_frame() {
        let (socket, other) = UnixStream::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut sender = FrameSender::default();
        let long = (1 << 20) - 200;
        sender.queue(&submit(1, 10), &[]).unwrap();
        sender.queue(&submit(2, long), &[file("a"), file("b")]).unwrap();
        sender.queue(&submit(3, long), &[file("c")]).unwrap();
        sender.queue(&submit(4, 10), &[]).unwrap();
        sender.queue(&submit(5, 10), &[file("d")]).unwrap();
        let (mut frames, mut came, mut read, mut buffer) = (Frames::default(), Vec::new(), 0, [0; 5000]);
        let mut next = 1;
        while next <= 5 {
            sender.send(socket.as_fd()).unwrap();
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
        assert!(sender.attached.is_empty());
    }
}
