//! The local socket of the daemon, and who is on the other side of a connection.
//!
//! Descriptors travel with bytes here; [`send_with_fd`] and [`recv_with_fds`] serve clients and supervisor
//! alike. Permission is a matter of the socket file's mode and group, and of the kernel's word on the peer.

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
use nix::unistd::Group;

use crate::message;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// Who connected, as the kernel says; of a listener's side, who listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCred {
    /// Process id at the time of the connect; the process may be gone.
    pub pid: u32,
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
}

/// The credentials of the other side at the time of its connect (or listen, or socketpair).
///
/// # Errors
/// ENOTSOCK: it is no socket.
pub fn peer_cred(fd: BorrowedFd<'_>) -> io::Result<PeerCred> {
    let cred = getsockopt(&fd, PeerCredentials)?;
    Ok(PeerCred { pid: u32::try_from(cred.pid()).unwrap_or(0), uid: cred.uid(), gid: cred.gid() })
}

/// The supplementary groups that the other side had at the time of its connect; may be none.
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
            // The kernel says how much it would have taken.
            Err(Errno::ERANGE) if length > room => groups.resize(count, 0),
            Err(error) => return Err(error.into()),
            Ok(_) => {
                groups.truncate(count);
                return Ok(groups);
            }
        }
    }
}

/// The number of a group, or `None` if there is no such group. May ask the network, where groups live there.
///
/// # Errors
/// EINTR, EIO, EMFILE, ENFILE, ENOMEM: the group database cannot be read.
pub fn group_id(name: &str) -> io::Result<Option<u32>> {
    Ok(Group::from_name(name)?.map(|group| group.gid.as_raw()))
}

/// The effective user of this process.
pub fn own_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// Listens at `path` with this mode and group, never blocking. The caller holds the lock of the place, so that
/// a socket file there is a dead daemon's: it is removed. Nobody can connect before mode and group are right.
///
/// # Errors
/// EADDRINUSE: something that is no socket stands at the path. ENAMETOOLONG: the path is over 107 bytes. EPERM:
/// this process may not give the file that group. ENOENT, EACCES, EROFS: the folder.
pub fn listen(path: &Path, mode: u32, group: Option<u32>) -> io::Result<UnixListener> {
    remove_stale(path)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    let address = UnixAddr::new(path)?;
    socket::bind(socket.as_raw_fd(), &address)?;
    open_to(&socket, path, mode, group).inspect_err(|_| drop(std::fs::remove_file(path)))?;
    Ok(UnixListener::from(socket))
}

/// Until the listen at the end, every connect is refused.
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

/// Sends as many of `bytes` as the socket takes; the descriptor goes with the first of them. Never raises
/// SIGPIPE.
///
/// # Errors
/// EAGAIN: the socket takes nothing now (one that does not block). EPIPE, ECONNRESET: the other side is gone.
/// ETOOMANYREFS, ENOMEM, ENOBUFS: see [`must_be_sent_later`].
pub fn send_with_fd(
    fd: BorrowedFd<'_>,
    bytes: &[u8],
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<usize> {
    message::send(fd, bytes, descriptor.as_slice(), 0)
}

/// As [`send_with_fd`], with up to 16 descriptors. They are on their way as soon as any byte is.
///
/// # Errors
/// As [`send_with_fd`]. EINVAL: there are too many. EBADF: one is not open.
pub fn send_with_fds(fd: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    message::send(fd, bytes, descriptors, 0)
}

/// Whether bytes could not be sent for want of something that comes back: the kernel's memory, or the right to have more
/// descriptors on their way before others have been received. Nothing was sent, and the connection is whole.
pub fn must_be_sent_later(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ETOOMANYREFS | libc::ENOMEM | libc::ENOBUFS))
}

/// Receives bytes, and appends the descriptors that came with them to `into`, closed on exec. 0 is the end.
///
/// # Errors
/// EAGAIN: there is nothing now (one that does not block). ECONNRESET: the other side is gone. `InvalidData`:
/// more than 16 descriptors came at once, or more than this process may open; those too many are closed, and
/// the stream is of no use any more.
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
