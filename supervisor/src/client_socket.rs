//! A client's socket: reads never block on attached descriptors, and its close never blocks the loop.
//!
//! A client can attach a descriptor whose last close blocks for an hour, and closing a socket closes the descriptors
//! in its queue. So a socket with something in its queue is closed by the background closer, and keeps its share
//! of its user's account until then. Owned by `connection.rs`, and by `unread_descriptors.rs` once the
//! connection has ended.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use bulkhead_core::account::AccountId;
use bulkhead_sys::untrusted::{self, SocketRead, UntrustedFd};
use mio::net::UnixStream;

use crate::background_closer::{BackgroundCloser, CloseOwner};
use crate::shell_ledger::HeldShare;

/// Size of the buffer for the last reads when a connection ends.
const LAST_READ_BYTES: usize = 16 << 10;

/// A client's socket and its share of its user's account.
#[derive(Debug)]
pub(crate) struct ClientSocket {
    inner: Option<(UnixStream, HeldShare)>,
    uid: u32,
    closer: BackgroundCloser,
}

impl ClientSocket {
    /// Takes ownership of the socket of this user that was just accepted.
    pub(crate) fn new(socket: UnixStream, held: HeldShare, uid: u32, closer: BackgroundCloser) -> Self {
        Self { inner: Some((socket, held)), uid, closer }
    }

    /// The stream, to be registered with the poll.
    pub(crate) fn stream(&mut self) -> &mut UnixStream {
        &mut self.inner.as_mut().expect(INNER).0
    }

    /// The account of the client's user. The socket's share keeps it open.
    pub(crate) fn account(&self) -> AccountId {
        self.inner.as_ref().expect(INNER).1.account()
    }

    /// Shuts it down in both directions, and drops what lies in its own queue: its client can send nothing more, and
    /// reads what was sent, and then the end.
    pub(crate) fn keep(mut self) -> KeptSocket {
        let kept = Arc::new(self.inner.take().expect(INNER));
        if !untrusted::hang_up(kept.0.as_fd(), &mut [0; LAST_READ_BYTES]) {
            self.closer.close(CloseOwner::User(self.uid), LeftQueue(Arc::clone(&kept)));
        }
        KeptSocket(kept)
    }

    /// Reads bytes, see [`untrusted::read`].
    ///
    /// # Errors
    /// EAGAIN: nothing has arrived. Anything else: the connection has ended.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<SocketRead> {
        untrusted::read(self.as_fd(), buffer)
    }

    /// Reads bytes and the descriptors attached to them, see [`untrusted::receive`].
    ///
    /// # Errors
    /// As [`untrusted::receive`].
    pub(crate) fn receive(&self, buffer: &mut [u8], into: &mut Vec<UntrustedFd>) -> io::Result<usize> {
        untrusted::receive(self.as_fd(), buffer, into)
    }
}

/// Whether an error of a read is no fault of the client: nothing has arrived, or it has left.
pub(crate) fn is_no_fault(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::ConnectionReset
    )
}

impl AsFd for ClientSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_ref().expect(INNER).0.as_fd()
    }
}

impl Drop for ClientSocket {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take()
            && !untrusted::hang_up(inner.0.as_fd(), &mut [0; LAST_READ_BYTES])
        {
            self.closer.close(CloseOwner::User(self.uid), inner);
        }
    }
}

/// A socket that is shut down and open still, because its client has not read all that was sent. It keeps its
/// share. Its own queue is empty, or the background closer holds it too, so its drop never blocks.
#[derive(Debug)]
pub(crate) struct KeptSocket(Arc<(UnixStream, HeldShare)>);

impl AsFd for KeptSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

/// What a client sent on such a socket with descriptors, the last ones of which may be its own end: while that lies
/// here, the client's end is never closed. The drop receives and closes it, and can block.
#[derive(Debug)]
struct LeftQueue(Arc<(UnixStream, HeldShare)>);

impl Drop for LeftQueue {
    fn drop(&mut self) {
        untrusted::discard(self.0.0.as_fd(), &mut [0; LAST_READ_BYTES]);
    }
}

const INNER: &str = "only dropping it takes the socket out";
