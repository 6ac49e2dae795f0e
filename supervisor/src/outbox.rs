//! The outbox of one client: bytes in order, and descriptors at their positions among them.
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
        if descriptor.is_some() || self.pieces.is_empty() {
            let mut bytes = Vec::new();
            frame::push_frame(reply, &mut bytes)?;
            self.waiting_bytes += bytes.len();
            self.pieces.push_back(Piece { bytes, sent: 0, descriptor });
        } else if let Some(last) = self.pieces.back_mut() {
            let before = last.bytes.len();
            frame::push_frame(reply, &mut last.bytes)?;
            self.waiting_bytes += last.bytes.len() - before;
        }
        Ok(())
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

    /// Whether the last flush failed because the kernel lacked memory, or because too many of our descriptors are in
    /// flight (ETOOMANYREFS). The socket is writable then, so the poll does not report when to retry.
    pub(crate) fn is_short(&self) -> bool {
        self.short
    }

    /// Sends what the socket takes.
    ///
    /// # Errors
    /// The connection has ended.
    pub(crate) fn flush(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.flush_by(|bytes, descriptor| socket::send_with_fd(socket, bytes, descriptor))
    }

    fn flush_by(
        &mut self,
        send: impl Fn(&[u8], Option<BorrowedFd<'_>>) -> io::Result<usize>,
    ) -> io::Result<()> {
        self.short = false;
        while let Some(piece) = self.pieces.front_mut() {
            let descriptor = if piece.sent == 0 { piece.descriptor.as_ref() } else { None };
            let rest = &piece.bytes[piece.sent..];
            match send(rest, descriptor.map(|held| held.as_fd())) {
                Ok(count) => {
                    piece.sent += count;
                    self.waiting_bytes -= count;
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
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use bulkhead_proto::client::message::Reply;
    use bulkhead_proto::codec;
    use bulkhead_proto::ids::Tag;

    use super::*;

    #[test]
    fn a_reader_that_stalls_gets_every_byte_in_order_later() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut outbox = Outbox::default();
        for tag in 0..50_000 {
            outbox.push(&ReplyFrame { tag: Tag(tag), reply: Reply::Pong { pid: 1 } }, None).unwrap();
        }
        outbox.flush(ours.as_fd()).unwrap();
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
            outbox.flush(ours.as_fd()).unwrap();
        }
        assert_eq!(outbox.waiting_bytes(), 0);
    }

    #[test]
    fn a_kernel_that_is_short_ends_no_connection() {
        const ETOOMANYREFS: i32 = 109;
        const ENOMEM: i32 = 12;
        const ENOBUFS: i32 = 105;
        for short in [ETOOMANYREFS, ENOMEM, ENOBUFS] {
            let mut outbox = Outbox::default();
            outbox.push_raw(b"waits");
            outbox.flush_by(|_, _| Err(io::Error::from_raw_os_error(short))).unwrap();
            assert!(outbox.is_short() && outbox.waiting_bytes() == 5, "{short}");
            outbox.flush_by(|bytes, _| Ok(bytes.len())).unwrap();
            assert!(!outbox.is_short() && outbox.waiting_bytes() == 0, "{short}");
        }
        let mut outbox = Outbox::default();
        outbox.push_raw(b"goes");
        assert!(outbox.flush_by(|_, _| Err(io::ErrorKind::BrokenPipe.into())).is_err());
    }
}
