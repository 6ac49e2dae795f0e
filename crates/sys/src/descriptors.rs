//! What sockets this process has open: for libraries that make one and do not tell which.
//!
//! Only connected and unconnected `SOCK_SEQPACKET` sockets are looked at; the descriptors of others are asked
//! for their kind, which never blocks, and left alone.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::socket::{SockType, UnixAddr, getpeername, getsockname, getsockopt, sockopt};

use crate::socket::{PeerCred, peer_cred};

/// A `SOCK_SEQPACKET` socket of this process.
#[derive(Debug)]
pub struct Found {
    /// Another descriptor of the same socket: closing it closes nothing else.
    pub socket: OwnedFd,
    /// Who is on the other side; `None` while it is not connected.
    pub peer: Option<PeerCred>,
    /// The name of the other side, if it has one.
    pub peer_path: Option<PathBuf>,
    /// The name of this side, if it has one.
    pub own_path: Option<PathBuf>,
    listens: bool,
    number: RawFd,
}

/// All `SOCK_SEQPACKET` sockets of this process that do not listen.
///
/// # Errors
/// ENOENT: /proc is not there. EMFILE, ENFILE: no descriptor is to be had to look with.
pub fn sequential_sockets() -> io::Result<Vec<Found>> {
    let mut found = all()?;
    found.retain(|socket| !socket.listens);
    Ok(found)
}

/// Closes the `SOCK_SEQPACKET` sockets of this process that are neither connected nor listening, and gives
/// their count. Whoever calls it vouches that nobody in this process is about to connect one: they belong to
/// nobody then.
///
/// # Errors
/// As [`sequential_sockets`].
pub fn close_orphans() -> io::Result<usize> {
    let mut closed = 0;
    for orphan in sequential_sockets()?.into_iter().filter(|socket| socket.peer.is_none()) {
        // SAFETY: the caller vouches that nobody owns this descriptor: a socket that is neither connected nor
        // listening was made for a connect that failed and was then forgotten.
        drop(unsafe { OwnedFd::from_raw_fd(orphan.number) });
        closed += 1;
    }
    Ok(closed)
}

/// Makes a socket return EAGAIN instead of waiting, for everybody who has a descriptor of it.
///
/// # Errors
/// None that a sane kernel gives.
pub fn set_nonblocking(socket: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlag::from_bits_truncate(fcntl(socket, FcntlArg::F_GETFL)?);
    fcntl(socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Bytes that may wait on a new socket of this process before it takes no more, as the kernel counts them.
///
/// # Errors
/// EMFILE, ENFILE: no descriptor is to be had to look with.
pub fn default_send_buffer() -> io::Result<usize> {
    let (socket, _other) = std::os::unix::net::UnixDatagram::pair()?;
    Ok(getsockopt(&socket, sockopt::SndBuf)?)
}

fn all() -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()) else {
            continue;
        };
        if is_sequential(number)
            && let Some(socket) = look(number)?
        {
            found.push(socket);
        }
    }
    Ok(found)
}

/// Cheap, and harmless on whatever descriptor stands there.
fn is_sequential(number: RawFd) -> bool {
    let mut kind: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes one int into a variable of ours; a number that is no socket is an error.
    let result = unsafe {
        libc::getsockopt(number, libc::SOL_SOCKET, libc::SO_TYPE, (&raw mut kind).cast(), &raw mut length)
    };
    result == 0 && kind == libc::SOCK_SEQPACKET
}

/// `None`: the number is closed by now, or somebody else's.
fn look(number: RawFd) -> io::Result<Option<Found>> {
    // SAFETY: fcntl on a number that is not open is an error and touches nothing.
    let copy = match Errno::result(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) }) {
        // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
        Ok(copy) => unsafe { OwnedFd::from_raw_fd(copy) },
        Err(Errno::EBADF) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // The number may have become another descriptor in between: everything is asked of the copy.
    if getsockopt(&copy, sockopt::SockType) != Ok(SockType::SeqPacket) {
        return Ok(None);
    }
    let Ok(own) = getsockname::<UnixAddr>(copy.as_raw_fd()) else { return Ok(None) };
    let peer_name = getpeername::<UnixAddr>(copy.as_raw_fd());
    let peer = if peer_name.is_ok() { Some(peer_cred(copy.as_fd())?) } else { None };
    Ok(Some(Found {
        peer,
        peer_path: peer_name.ok().and_then(|name| name.path().map(Path::to_owned)),
        own_path: own.path().map(Path::to_owned),
        listens: getsockopt(&copy, sockopt::AcceptConn)?,
        socket: copy,
        number,
    }))
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{AddressFamily, Backlog, SockFlag, bind, connect, listen, socket};

    use super::*;
    use crate::testing::in_child;

    fn unconnected() -> OwnedFd {
        socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap()
    }

    #[test]
    fn a_connection_is_found_by_name_and_peer_and_only_orphans_are_closed() {
        in_child(
            "descriptors::tests::a_connection_is_found_by_name_and_peer_and_only_orphans_are_closed",
            || {
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join("server");
                let server = unconnected();
                bind(server.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
                listen(&server, Backlog::new(1).unwrap()).unwrap();
                let client = unconnected();
                connect(client.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
                let (_lane, _other) = crate::lane::Lane::pair().unwrap();
                // Nobody owns this one.
                let orphan = std::os::fd::IntoRawFd::into_raw_fd(unconnected());

                let found = sequential_sockets().unwrap();
                let ours: Vec<_> =
                    found.iter().filter(|found| found.peer_path.as_deref() == Some(&path)).collect();
                assert_eq!(ours.len(), 1);
                assert_eq!(ours[0].peer.unwrap().pid, std::process::id());
                assert_eq!(ours[0].number, client.as_raw_fd());
                set_nonblocking(ours[0].socket.as_fd()).unwrap();
                let flags = OFlag::from_bits_truncate(fcntl(&client, FcntlArg::F_GETFL).unwrap());
                assert!(flags.contains(OFlag::O_NONBLOCK));
                drop(found);

                assert_eq!(close_orphans().unwrap(), 1);
                assert_eq!(close_orphans().unwrap(), 0);
                assert!(!is_sequential(orphan), "it is open still");
                assert_eq!(sequential_sockets().unwrap().len(), 3, "the client, and both ends of the lane");
            },
        );
    }

    #[test]
    fn the_send_buffer_is_that_of_the_machine() {
        let text = std::fs::read_to_string("/proc/sys/net/core/wmem_default").unwrap();
        assert_eq!(default_send_buffer().unwrap().to_string(), text.trim());
    }
}
