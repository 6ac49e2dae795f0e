//! Reading a socket whose other side may attach descriptors of any kind, without ever waiting for one.
//!
//! The kernel closes what it drops on behalf of whoever reads, and of whoever closes the socket, and such a close may
//! wait for as long as its maker likes (a TCP connection that lingers, a file system in user space). So each message is
//! looked at where it lies. If nothing is attached it is taken; if something is, the caller either takes all of it, or
//! leaves it for a thread that may wait to close the socket. What is taken is [`UntrustedFd`]: asked for next to nothing,
//! and dropped only where waiting does no harm. Driven by the supervisor's loop.

mod descriptor;

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::libc;
use nix::sys::socket::{Shutdown, setsockopt, shutdown, sockopt};

use crate::message;

pub(crate) use descriptor::unless_untrusted;
pub use descriptor::{Access, UntrustedFd};

/// Most descriptors that one message can have, and that [`receive`] needs to be free before it is called.
pub const ATTACHED_MAX: usize = message::ATTACHED_MAX;

/// Reads of [`hang_up`] before it gives up: more than fits the buffers of a socket that nobody has enlarged.
const LAST_READS: usize = 64;

/// What a read brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketRead {
    /// So many bytes, at the start of the buffer; 0 is the end.
    Bytes(usize),
    /// Descriptors are attached to what comes next. It was not taken: reading on says the same, and [`receive`] takes
    /// it.
    Attached,
}

/// To be called once for a stream, before its first read: bytes sent out of band stand where they were sent. Else a
/// read that passes one drops it, and what is attached to it, without showing it first.
///
/// # Errors
/// ENOTSOCK: it is no socket.
pub fn set_inline_oob(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(setsockopt(&socket, sockopt::OobInline, &true)?)
}

/// Reads what has come, as far as nothing is attached to it. Never waits for what was attached.
///
/// # Errors
/// EAGAIN: there is nothing now (a socket that does not block). ECONNRESET: the other side is gone.
pub fn read(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<SocketRead> {
    let seen = message::peek(socket, buffer)?;
    if seen.control_cut {
        return Ok(SocketRead::Attached);
    }
    // Nobody else reads here: these bytes are still first, and a message never gets descriptors later.
    let taken = message::receive(socket, &mut buffer[..seen.bytes], None)?;
    Ok(SocketRead::Bytes(taken.bytes))
}

/// Reads what has come up to the first message with descriptors attached, that one included, and appends them to
/// `into`. The caller sees to it that [`ATTACHED_MAX`] more can be opened: one that cannot be is closed by the kernel
/// before this returns, which may wait.
///
/// # Errors
/// EAGAIN, ECONNRESET: as [`read`]. EMFILE: there was no room for all of them, in spite of the caller; those for which
/// there was are in `into`, the connection is of no use any more.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8], into: &mut Vec<UntrustedFd>) -> io::Result<usize> {
    let received = descriptor::take_in(into, |into| message::receive_all(socket, buffer, into))?;
    if received.control_cut {
        return Err(io::Error::from_raw_os_error(libc::EMFILE));
    }
    Ok(received.bytes)
}

/// Ends a connection in both directions. `true`: nothing is left in it that a close could wait for. `false`: close it
/// where it does no harm to wait.
pub fn hang_up(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> bool {
    // From now on the other side can send nothing; an error says that it is gone already.
    let _gone = shutdown(socket.as_raw_fd(), Shutdown::Both);
    for _ in 0..LAST_READS {
        match read(socket.as_fd(), buffer) {
            Ok(SocketRead::Bytes(0)) => return true,
            Ok(SocketRead::Bytes(_)) => {}
            Ok(SocketRead::Attached) => return false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Reported only once nothing is left to be read.
            Err(error) => return error.raw_os_error() == Some(libc::ECONNRESET),
        }
    }
    false
}

/// The same for a `SOCK_SEQPACKET` socket, where an empty frame reads like the end, and something may be attached to it.
pub fn hang_up_frames(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> bool {
    if !hang_up(socket, buffer) {
        return false;
    }
    // With this set a frame shows control data (who sent it), and the end shows none.
    setsockopt(&socket, sockopt::PassCred, &true).is_ok()
        && message::peek(socket, buffer).is_ok_and(|seen| seen.bytes == 0 && !seen.control_cut)
}

#[cfg(test)]
mod tests;
