//! The outbox of one client: bytes in order, and descriptors at their positions among them.
//!
//! The bytes lie in pieces of at most [`PIECE_BYTES`], and a piece that was sent is freed at once: the outbox of a
//! client that reads all the time, and never quite everything, holds what is unsent and at most one piece beside it.
//!
//! It never blocks. Its size is bounded by its callers: the core limits the credit of each client, and
//! `connection.rs` reads nothing from a client whose outbox is over the mark. Owned by `connection.rs`.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use bulkhead_proto::client::frame::{self, Oversized};
use bulkhead_proto::client::message::ReplyFrame;
use bulkhead_sys::socket;

use crate::output_store::OutputFile;
use crate::unread_descriptors::DescriptorGate;

/// Most bytes of one piece; less than a socket takes at once.
const PIECE_BYTES: usize = 64 << 10;
/// The queue of an empty outbox keeps room for so many pieces.
const PIECES_KEPT: usize = 8;
/// A send costs at least as much as that of so many bytes.
const SEND_MIN_BYTES: usize = 4 << 10;

/// Bytes that are sent together; the descriptor is attached to the first one.
#[derive(Debug)]
struct Piece {
    bytes: Vec<u8>,
    sent: usize,
    descriptor: Option<Rc<OutputFile>>,
}

/// The queue of one client.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pieces: VecDeque<Piece>,
    waiting_bytes: usize,
    short: bool,
}

impl Outbox {
    /// Appends a reply.
    ///
    /// # Errors
    /// [`Oversized`] if it fits no frame; nothing is appended then.
    pub(crate) fn push(
        &mut self,
        reply: &ReplyFrame,
        descriptor: Option<Rc<OutputFile>>,
    ) -> Result<(), Oversized> {
        let last = self.pieces.back_mut().filter(|_| descriptor.is_none());
        match last.filter(|last| last.bytes.len() < PIECE_BYTES) {
            Some(last) => {
                let before = last.bytes.len();
                frame::push_frame(reply, &mut last.bytes)?;
                self.waiting_bytes += last.bytes.len() - before;
            }
            None => {
                let mut bytes = Vec::new();
                frame::push_frame(reply, &mut bytes)?;
                self.waiting_bytes += bytes.len();
                if let Some(last) = self.pieces.back_mut() {
                    // Nothing is appended to it any more.
                    last.bytes.shrink_to_fit();
                }
                self.pieces.push_back(Piece { bytes, sent: 0, descriptor });
            }
        }
        self.cut_last();
        Ok(())
    }

    /// Cuts what is over [`PIECE_BYTES`] off the last piece, into pieces of their own.
    fn cut_last(&mut self) {
        let Some(last) = self.pieces.back_mut().filter(|last| last.bytes.len() >= PIECE_BYTES) else {
            return;
        };
        let rest = last.bytes.split_off(PIECE_BYTES);
        last.bytes.shrink_to_fit();
        for bytes in rest.chunks(PIECE_BYTES) {
            self.pieces.push_back(Piece { bytes: bytes.to_vec(), sent: 0, descriptor: None });
        }
    }

    /// Appends raw bytes (a hello).
    pub(crate) fn push_raw(&mut self, bytes: &[u8]) {
        self.waiting_bytes += bytes.len();
        self.pieces.push_back(Piece { bytes: bytes.to_vec(), sent: 0, descriptor: None });
    }

    /// The number of unsent bytes.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// The bytes that it holds: a piece is freed when all of it was sent.
    pub(crate) fn held_bytes(&self) -> usize {
        self.waiting_bytes + self.pieces.front().map_or(0, |piece| piece.sent)
    }

    /// Whether the last flush failed because the kernel lacked memory, or because too many of our descriptors are in
    /// flight (ETOOMANYREFS). The socket is writable then, so the poll does not report when to retry.
    pub(crate) fn is_short(&self) -> bool {
        self.short
    }

    /// Sends what the socket takes until `left` bytes are used up; a send that is begun may be of a whole piece. A
    /// descriptor, and what is behind it, is sent only while the gate is open.
    ///
    /// # Errors
    /// The connection has ended.
    pub(crate) fn flush(
        &mut self,
        socket: BorrowedFd<'_>,
        left: &mut usize,
        gate: &mut DescriptorGate<'_>,
    ) -> io::Result<()> {
        self.flush_by(left, |bytes, file| {
            if file.is_some() && !gate.is_open(socket) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let sent = socket::send_with_fd(socket, bytes, file.map(|file| file.as_fd()))?;
            if let Some(file) = file {
                // Until it is read, its memory counts too.
                gate.count(file.hold());
            }
            Ok(sent)
        })
    }

    fn flush_by(
        &mut self,
        left: &mut usize,
        mut send: impl FnMut(&[u8], Option<&OutputFile>) -> io::Result<usize>,
    ) -> io::Result<()> {
        self.short = false;
        while let Some(piece) = self.pieces.front_mut().filter(|_| *left > 0) {
            let descriptor = if piece.sent == 0 { piece.descriptor.as_deref() } else { None };
            let rest = &piece.bytes[piece.sent..];
            match send(rest, descriptor) {
                Ok(count) => {
                    piece.sent += count;
                    self.waiting_bytes -= count;
                    *left = left.saturating_sub(count.max(SEND_MIN_BYTES));
                    if piece.sent == piece.bytes.len() {
                        self.pieces.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if socket::must_be_sent_later(&error) => {
                    self.short = true;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.pieces.shrink_to(PIECES_KEPT);
        Ok(())
    }

    /// The memory that it takes up, in bytes.
    #[cfg(test)]
    fn capacity(&self) -> usize {
        let bytes: usize = self.pieces.iter().map(|piece| piece.bytes.capacity()).sum();
        bytes + self.pieces.capacity() * size_of::<Piece>()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use bulkhead_core::account::AccountId;
    use bulkhead_proto::client::message::Reply;
    use bulkhead_proto::client::refusal::Refusal;
    use bulkhead_proto::codec;
    use bulkhead_proto::ids::{ClientId, Tag};

    use super::*;

    /// No bound.
    fn all() -> usize {
        usize::MAX
    }

    #[test]
    fn what_is_sent_at_once_is_bounded() {
        let mut outbox = Outbox::default();
        for tag in 0..40 {
            outbox.push(&rows(tag), None).unwrap();
        }
        let waiting = outbox.waiting_bytes();
        let mut left = 256 << 10;
        outbox.flush_by(&mut left, |bytes, _| Ok(bytes.len())).unwrap();
        let sent = waiting - outbox.waiting_bytes();
        assert!((256 << 10..(256 << 10) + PIECE_BYTES).contains(&sent), "{sent} of {waiting}");
        assert_eq!(left, 0);
    }

    #[test]
    fn a_reader_that_stalls_gets_every_byte_in_order_later() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut outbox = Outbox::default();
        // A long one too: it lies in several pieces.
        for tag in 0..50_000 {
            let reply = if tag == 25_000 { rows(tag) } else { pong(tag) };
            outbox.push(&reply, None).unwrap();
        }
        let mut unread = crate::unread_descriptors::for_tests(16);
        outbox.flush(ours.as_fd(), &mut all(), &mut unread.gate(ClientId(1), AccountId::SERVICE)).unwrap();
        assert!(outbox.waiting_bytes() > 0, "the socket's own buffer is smaller than that");
        let mut frames = frame::Frames::default();
        let mut expected = 0;
        let mut buffer = vec![0; 64 << 10];
        while expected < 50_000 {
            let count = theirs.read(&mut buffer).unwrap();
            frames.feed(&buffer[..count]);
            while let Some(bytes) = frames.next_frame().unwrap() {
                assert_eq!(codec::decode::<ReplyFrame>(bytes).unwrap().tag, Tag(expected));
                expected += 1;
            }
            outbox
                .flush(ours.as_fd(), &mut all(), &mut unread.gate(ClientId(1), AccountId::SERVICE))
                .unwrap();
        }
        assert_eq!(outbox.waiting_bytes(), 0);
    }

    fn pong(tag: u32) -> ReplyFrame {
        ReplyFrame { tag: Tag(tag), reply: Reply::Pong { pid: 1 } }
    }

    /// A long reply.
    fn rows(tag: u32) -> ReplyFrame {
        let name = "k".repeat(1000);
        let refused = Refusal::UnknownKind { kind: name.clone(), known: vec![name; 300] };
        ReplyFrame { tag: Tag(tag), reply: Reply::Refused(refused) }
    }

    #[test]
    fn what_was_sent_is_freed_while_more_waits() {
        for (reply, count) in [(pong(1), 20_000), (rows(1), 5)] {
            let mut outbox = Outbox::default();
            let sent = Cell::new(0_usize);
            for round in 0..50 {
                for _ in 0..count {
                    outbox.push(&reply, None).unwrap();
                }
                // The socket takes so much that one byte is left.
                let most = Cell::new(outbox.waiting_bytes() - 1);
                let take = |bytes: &[u8], _: Option<&OutputFile>| {
                    let count = bytes.len().min(most.get()).min(100_000);
                    most.set(most.get() - count);
                    sent.set(sent.get() + count);
                    if count == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(count) }
                };
                outbox.flush_by(&mut all(), take).unwrap();
                assert_eq!(outbox.waiting_bytes(), 1);
                let capacity = outbox.capacity();
                assert!(capacity <= 2 * PIECE_BYTES + 8192, "{capacity} bytes of memory in round {round}");
            }
            assert!(sent.get() > 5 << 20, "{}", sent.get());
        }
    }

    #[test]
    fn what_waits_takes_little_more_memory_than_its_bytes() {
        let mut outbox = Outbox::default();
        for round in 0..2000 {
            let reply = if round % 400 == 7 { rows(round) } else { pong(round) };
            outbox.push(&reply, None).unwrap();
            let (capacity, waiting) = (outbox.capacity(), outbox.waiting_bytes());
            assert!(capacity <= waiting + 2 * PIECE_BYTES + 8192, "{capacity} bytes of memory for {waiting}");
        }
        assert!(outbox.pieces.iter().all(|piece| piece.bytes.len() <= PIECE_BYTES));
        outbox.flush_by(&mut all(), |bytes, _| Ok(bytes.len())).unwrap();
        assert!(outbox.capacity() <= 8192, "{} bytes of memory for nothing", outbox.capacity());
    }

    #[test]
    fn a_reply_that_fits_no_frame_leaves_nothing_behind() {
        let mut outbox = Outbox::default();
        let mut long = rows(1);
        if let Reply::Refused(Refusal::UnknownKind { known, .. }) = &mut long.reply {
            *known = vec!["k".repeat(1000); 1100];
        }
        assert!(outbox.push(&long, None).is_err());
        outbox.push(&pong(1), None).unwrap();
        let before = outbox.waiting_bytes();
        assert!(outbox.push(&long, None).is_err());
        assert_eq!(outbox.waiting_bytes(), before);
    }

    #[test]
    fn a_kernel_that_is_short_ends_no_connection() {
        const ETOOMANYREFS: i32 = 109;
        const ENOMEM: i32 = 12;
        const ENOBUFS: i32 = 105;
        for short in [ETOOMANYREFS, ENOMEM, ENOBUFS] {
            let mut outbox = Outbox::default();
            outbox.push_raw(b"waits");
            outbox.flush_by(&mut all(), |_, _| Err(io::Error::from_raw_os_error(short))).unwrap();
            assert!(outbox.is_short() && outbox.waiting_bytes() == 5, "{short}");
            outbox.flush_by(&mut all(), |bytes, _| Ok(bytes.len())).unwrap();
            assert!(!outbox.is_short() && outbox.waiting_bytes() == 0, "{short}");
        }
        let mut outbox = Outbox::default();
        outbox.push_raw(b"goes");
        assert!(outbox.flush_by(&mut all(), |_, _| Err(io::ErrorKind::BrokenPipe.into())).is_err());
    }
}
