//! Reads a socket whose peer may attach descriptors of any kind, without ever blocking on one.
//!
//! A read that drops a descriptor, or a close of the socket that it is queued in, closes it; if that was its last
//! close, it can block for as long as the peer likes (a TCP connection with SO_LINGER, a file on FUSE). So who can open
//! as many descriptors as a message carries receives all of them ([`receive`]). Who cannot, or takes none, peeks first
//! ([`read`]): a message without descriptors is read, one with descriptors stays in the queue, for a thread that may
//! block in the socket's close. A received descriptor is an [`UntrustedFd`]. Used by the supervisor, `lane.rs` and
//! `link`.

mod descriptor;

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::libc;
use nix::sys::socket::{Shutdown, setsockopt, shutdown, sockopt};

use crate::message;

pub(crate) use descriptor::unless_untrusted;
pub use descriptor::{Access, UntrustedFd};

/// Most descriptors that one message can carry, and that must be free when [`receive`] is called.
pub const ATTACHED_MAX: usize = message::ATTACHED_MAX;

/// Reads of [`hang_up`] before it gives up: enough for the buffers of a socket of default size.
const LAST_READS: usize = 64;

/// The result of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketRead {
    /// This many bytes at the start of the buffer; 0 is the end.
    Bytes(usize),
    /// Descriptors are attached to the next message. It stays in the queue until [`receive`] is called.
    Attached,
}

/// Sets SO_OOBINLINE on a stream, before its first read. Without it a read that passes an out-of-band byte drops that
/// byte and its descriptors without showing them first.
///
/// # Errors
/// ENOTSOCK: it is no socket.
pub fn set_inline_oob(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(setsockopt(&socket, sockopt::OobInline, &true)?)
}

/// Reads bytes up to the first message with descriptors. Never blocks on descriptors.
///
/// # Errors
/// EAGAIN: nothing has arrived (a non-blocking socket). ECONNRESET: the peer is gone.
pub fn read(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<SocketRead> {
    let seen = message::peek(socket, buffer)?;
    if seen.control_cut {
        return Ok(SocketRead::Attached);
    }
    // No other thread reads this socket, so the same bytes are still first, and descriptors cannot be added to a sent
    // message.
    let taken = message::receive(socket, &mut buffer[..seen.bytes], None)?;
    Ok(SocketRead::Bytes(taken.bytes))
}

/// Reads bytes up to and including the first message with descriptors, which are appended to `into`. The caller
/// ensures that [`ATTACHED_MAX`] more descriptors can be opened: the kernel closes those that it cannot install
/// before this returns, which can block.
///
/// # Errors
/// EAGAIN, ECONNRESET: as [`read`]. EMFILE: not all could be installed; `into` has the others, and the connection
/// must be ended.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8], into: &mut Vec<UntrustedFd>) -> io::Result<usize> {
    let received = descriptor::take_in(into, |into| message::receive_all(socket, buffer, into))?;
    if received.control_cut {
        return Err(io::Error::from_raw_os_error(libc::EMFILE));
    }
    Ok(received.bytes)
}

/// Shuts a connection down in both directions and reads what is queued. Returns `true` if the queue is empty, so that
/// a close cannot block; otherwise close it in a thread that may block.
pub fn hang_up(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> bool {
    // From now on the peer can send nothing; an error means that it is gone already.
    let _gone = shutdown(socket.as_raw_fd(), Shutdown::Both);
    for _ in 0..LAST_READS {
        match read(socket.as_fd(), buffer) {
            Ok(SocketRead::Bytes(0)) => return true,
            Ok(SocketRead::Bytes(_)) => {}
            Ok(SocketRead::Attached) => return false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Reported only when the queue is empty.
            Err(error) => return error.raw_os_error() == Some(libc::ECONNRESET),
        }
    }
    false
}

/// Receives all that is queued in a stream that was shut down, and closes the descriptors attached to it, which can
/// block.
pub fn discard(socket: BorrowedFd<'_>, buffer: &mut [u8]) {
    loop {
        // Descriptors that are not received are closed by the kernel before the call returns.
        match message::receive(socket, buffer, None) {
            Ok(received) if received.bytes > 0 => {}
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionReset) => {}
            Ok(_) | Err(_) => return,
        }
    }
}

/// As [`hang_up`], for a `SOCK_SEQPACKET` socket, where an empty frame looks like the end and can carry descriptors.
pub fn hang_up_frames(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> bool {
    if !hang_up(socket, buffer) {
        return false;
    }
    // With SO_PASSCRED a frame shows control data (the sender), and the end shows none.
    setsockopt(&socket, sockopt::PassCred, &true).is_ok()
        && message::peek(socket, buffer).is_ok_and(|seen| seen.bytes == 0 && !seen.control_cut)
}

#[cfg(test)]
mod tests;
