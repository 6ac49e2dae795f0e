//! Reading a socket whose other side may attach descriptors that nobody here wants.
//!
//! Not asking for them is not enough. The kernel closes what it drops on behalf of whoever reads, and of whoever
//! closes the socket, and such a close may wait for as long as its maker likes (a TCP connection that lingers, a file
//! system in user space). So each message is looked at where it lies and taken only if nothing is attached; a socket
//! with something attached is left as it is, for a thread that may wait to close it. Driven by the supervisor's loop.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::libc;
use nix::sys::socket::{Shutdown, setsockopt, shutdown, sockopt};

use crate::message;

/// Reads of [`hang_up`] before it gives up: more than fits the buffers of a socket that nobody has enlarged.
const LAST_READS: usize = 64;

/// What a read brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gulp {
    /// So many bytes, at the start of the buffer; 0 is the end.
    Bytes(usize),
    /// Descriptors are attached to what comes next. It was not taken, and never is: reading on says the same.
    Attached,
}

/// To be called once for a stream, before its first read: bytes sent out of band stand where they were sent. Else a
/// read that passes one drops it, and what is attached to it, without showing it first.
///
/// # Errors
/// ENOTSOCK: it is no socket.
pub fn prepare(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(setsockopt(&socket, sockopt::OobInline, &true)?)
}

/// Reads what has come, as far as nothing is attached to it. Never waits for what was attached.
///
/// # Errors
/// EAGAIN: there is nothing now (a socket that does not block). ECONNRESET: the other side is gone.
pub fn read(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Gulp> {
    let seen = message::peek(socket, buffer)?;
    if seen.control_cut {
        return Ok(Gulp::Attached);
    }
    // Nobody else reads here: these bytes are still first, and a message never gets descriptors later.
    let taken = message::receive(socket, &mut buffer[..seen.bytes], None)?;
    Ok(Gulp::Bytes(taken.bytes))
}

/// Ends a connection in both directions. `true`: nothing is left in it that a close could wait for. `false`: close it
/// where it does no harm to wait.
pub fn hang_up(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> bool {
    // From now on the other side can send nothing; an error says that it is gone already.
    let _gone = shutdown(socket.as_raw_fd(), Shutdown::Both);
    for _ in 0..LAST_READS {
        match read(socket.as_fd(), buffer) {
            Ok(Gulp::Bytes(0)) => return true,
            Ok(Gulp::Bytes(_)) => {}
            Ok(Gulp::Attached) => return false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Reported only once nothing is left to be read.
            Err(error) => return error.raw_os_error() == Some(libc::ECONNRESET),
        }
    }
    false
}

#[cfg(test)]
mod tests;
