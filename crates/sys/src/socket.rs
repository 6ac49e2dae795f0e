//! The Unix stream socket of the daemon, and the credentials of its peers.
//!
//! [`send_with_fd`] and [`recv_with_fds`] pass descriptors with bytes; supervisor and client library use them. Who
//! may connect is decided by the socket file's mode and group, and then by the credentials that the kernel reports.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr, getsockopt, sockopt::PeerCredentials,
};
use nix::unistd::{Gid, Group};

use crate::message;

/// Length of the queue of connections.
const BACKLOG: i32 = 4096;

/// The credentials of a peer, as the kernel reports them: of the process that connected, or that listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCred {
    /// The pid at the time of the connect; the process may have ended.
    pub pid: u32,
    /// The effective user.
    pub uid: u32,
    /// The effective group.
    pub gid: u32,
}

/// The credentials of the peer at the time of its connect (or listen, or socketpair).
///
/// # Errors
/// ENOTSOCK: it is no socket.
pub fn peer_cred(fd: BorrowedFd<'_>) -> io::Result<PeerCred> {
    let cred = getsockopt(&fd, PeerCredentials)?;
    Ok(PeerCred { pid: u32::try_from(cred.pid()).unwrap_or(0), uid: cred.uid(), gid: cred.gid() })
}

/// The supplementary groups of the peer at the time of its connect; there may be none.
///
/// # Errors
/// ENODATA: it is not connected. ENOTSOCK: it is no socket.
pub fn peer_groups(fd: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; 64];
    loop {
        let room = libc::socklen_t::try_from(size_of_val(&groups[..])).map_err(|_| Errno::EOVERFLOW)?;
        let mut length = room;
        // SAFETY: the buffer is ours, `length` is its size in bytes, and the kernel writes no more than that.
        let result = unsafe {
            libc::getsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let count = length as usize / size_of::<u32>();
        match Errno::result(result) {
            // The kernel reports the size that it needs.
            Err(Errno::ERANGE) if length > room => groups.resize(count, 0),
            Err(error) => return Err(error.into()),
            Ok(_) => {
                groups.truncate(count);
                return Ok(groups);
            }
        }
    }
}

/// The number of a group, or `None` if there is no such group. Can block on the network, where groups are stored
/// there.
///
/// # Errors
/// EINTR, EIO, EMFILE, ENFILE, ENOMEM: the group database cannot be read.
pub fn group_id(name: &str) -> io::Result<Option<u32>> {
    Ok(Group::from_name(name)?.map(|group| group.gid.as_raw()))
}

/// The name of a group: that of its number, or else the number. Can block as [`group_id`] can.
pub fn group_name(number: u32) -> String {
    let found = Group::from_gid(Gid::from_raw(number)).ok().flatten();
    found.map_or_else(|| number.to_string(), |group| group.name)
}

/// The effective user of this process.
pub fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// Listens at `path` with this mode and group, without blocking. The caller holds the instance lock, so a socket file
/// at the path belongs to a dead daemon and is removed. No process can connect before mode and group are set.
///
/// # Errors
/// EADDRINUSE: the file at the path is no socket. ENAMETOOLONG: the path is over 107 bytes. EPERM: this process may
/// not set that group. ENOENT, EACCES, EROFS: the folder.
pub fn listen(path: &Path, mode: u32, group: Option<u32>) -> io::Result<UnixListener> {
    remove_stale(path)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    let address = UnixAddr::new(path)?;
    socket::bind(socket.as_raw_fd(), &address)?;
    open_to(&socket, path, mode, group).inspect_err(|_| drop(std::fs::remove_file(path)))?;
    Ok(UnixListener::from(socket))
}

/// Until the listen(2) at the end, connects are refused.
fn open_to(socket: &OwnedFd, path: &Path, mode: u32, group: Option<u32>) -> io::Result<()> {
    chown(path, None, group)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode))?;
    socket::listen(socket, Backlog::new(BACKLOG)?)?;
    Ok(())
}

fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) => Err(Errno::EADDRINUSE.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Sends as many of `bytes` as the socket takes; the descriptor is attached to the first one. Never raises SIGPIPE.
///
/// # Errors
/// EAGAIN: the socket is full (a non-blocking one). EPIPE, ECONNRESET: the peer is gone. ETOOMANYREFS, ENOMEM,
/// ENOBUFS: see [`must_be_sent_later`].
pub fn send_with_fd(
    fd: BorrowedFd<'_>,
    bytes: &[u8],
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<usize> {
    message::send(fd, bytes, descriptor.as_slice(), 0)
}

/// As [`send_with_fd`], with up to 16 descriptors. They are sent with the first byte.
///
/// # Errors
/// As [`send_with_fd`]. EINVAL: there are too many. EBADF: one is not open.
pub fn send_with_fds(fd: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    message::send(fd, bytes, descriptors, 0)
}

/// Whether a send failed for lack of a resource that will be free again: the kernel's memory, or the number of
/// descriptors in flight. Nothing was sent, and the connection is intact.
pub fn must_be_sent_later(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ETOOMANYREFS | libc::ENOMEM | libc::ENOBUFS))
}

/// Receives bytes, and appends the descriptors attached to them to `into`, close-on-exec. 0 is the end.
///
/// # Errors
/// EAGAIN: nothing has arrived (a non-blocking socket). ECONNRESET: the peer is gone. `InvalidData`: more than 16
/// descriptors arrived at once, or more than this process may open; the surplus is closed, and the connection must be
/// ended.
pub fn recv_with_fds(fd: BorrowedFd<'_>, bytes: &mut [u8], into: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let received = message::receive(fd.as_fd(), bytes, Some(into))?;
    if received.control_cut {
        let text = "more descriptors came than this process can take";
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(received.bytes)
}

#[cfg(test)]
mod tests;
