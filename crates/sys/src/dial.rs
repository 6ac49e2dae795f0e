//! Connects to a Unix stream socket without blocking.
//!
//! The standard library's connect blocks while the listener's queue is full, which a stopped daemon's can be for
//! ever; this one returns `WouldBlock`. Used by the client, and by the supervisor at its start.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

/// A connected socket, in blocking mode.
///
/// # Errors
/// `NotFound` or `ConnectionRefused`: no process listens. `WouldBlock`: the listener's queue is full.
/// `PermissionDenied` and other errors of connect(2); an error too if the path does not fit an address.
pub fn dial(path: &Path) -> io::Result<UnixStream> {
    let address = UnixAddr::new(path)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), &address)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_full_queue_is_said_and_not_waited_for() {
        let _quiet = crate::testing::nobody_spawns();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        assert_eq!(dial(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        let listener = UnixListener::bind(&path).unwrap();
        let mut held = Vec::new();
        let full = loop {
            match dial(&path) {
                Ok(stream) => held.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        drop(listener);
        assert_eq!(dial(&path).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
