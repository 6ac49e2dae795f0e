//! A client's socket: read without ever waiting for what is attached, and closed where waiting does no harm.
//!
//! A client may attach a descriptor whose last close waits for an hour, and whoever closes a socket closes what still
//! lies in it. So one in which something is left goes to the disposal. It keeps its seat occupied meanwhile. Owned by
//! `connection.rs`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use bulkhead_sys::untrusted::{self, SocketRead, UntrustedFd};
use mio::net::UnixStream;

use crate::background_closer::{BackgroundCloser, CloseOwner};
use crate::user_quota::QuotaPermit;

/// Bytes of the buffer that takes what is left when a connection ends.
const LAST_READ_BYTES: usize = 16 << 10;

/// A client's socket and its seat.
#[derive(Debug)]
pub(crate) struct ClientSocket {
    inner: Option<(UnixStream, QuotaPermit)>,
    uid: u32,
    closer: BackgroundCloser,
}

impl ClientSocket {
    /// Takes over the socket of this user that was just accepted. Whatever happens from here on, it is closed as it
    /// should be.
    pub(crate) fn new(socket: UnixStream, permit: QuotaPermit, uid: u32, closer: BackgroundCloser) -> Self {
        Self { inner: Some((socket, permit)), uid, closer }
    }

    /// The socket, to be registered.
    pub(crate) fn stream(&mut self) -> &mut UnixStream {
        &mut self.inner.as_mut().expect(INNER).0
    }

    /// Reads what has come, see [`untrusted::read`].
    ///
    /// # Errors
    /// EAGAIN: there is nothing now. Anything else: the connection is over.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<SocketRead> {
        untrusted::read(self.as_fd(), buffer)
    }

    /// Reads what has come with all that is attached to it, see [`untrusted::receive`].
    ///
    /// # Errors
    /// As [`untrusted::receive`].
    pub(crate) fn receive(&self, buffer: &mut [u8], into: &mut Vec<UntrustedFd>) -> io::Result<usize> {
        untrusted::receive(self.as_fd(), buffer, into)
    }
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

const INNER: &str = "only dropping it takes the socket out";
