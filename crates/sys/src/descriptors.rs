//! Finds sockets of this process, for ipc-channel, which creates sockets and does not expose them.
//!
//! Only `SOCK_SEQPACKET` sockets are used; of other descriptors only the type is asked (SO_TYPE), which never blocks.
//! Driven by `link`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::socket::{UnixAddr, getpeername, getsockname, getsockopt, sockopt};

use crate::socket::{PeerCred, peer_cred};
use crate::untrusted::unless_untrusted;

/// A connected `SOCK_SEQPACKET` socket of this process.
#[derive(Debug)]
pub struct ConnectedSocket {
    /// A second descriptor of the socket, so closing it closes nothing else.
    pub socket: OwnedFd,
    /// The credentials of the peer.
    pub peer: PeerCred,
    /// The names of both ends.
    pub names: SocketNames,
}

/// The names of both ends of a connection.
#[derive(Debug)]
pub struct SocketNames {
    /// Our end's name, if it has one.
    pub own: Option<PathBuf>,
    /// The peer's name, if it has one.
    pub peer: Option<PathBuf>,
}

/// The only connected `SOCK_SEQPACKET` socket of this process whose names `is_meant` accepts. `None`: there is none,
/// or more than one. What is found is close-on-exec from then on, in both descriptors: ipc-channel accepts without.
///
/// Other threads may open and close descriptors meanwhile. Only the socket that is found is duplicated: a duplicate
/// made during the search could get a number that is still to be checked, and be taken for another socket. So only
/// one search may run at a time.
///
/// # Errors
/// ENOENT: /proc is missing. EMFILE, ENFILE: no descriptor is free to read it.
pub fn find_connection(is_meant: &dyn Fn(&SocketNames) -> bool) -> io::Result<Option<ConnectedSocket>> {
    let mut numbers = sequential_numbers()?;
    numbers.retain(|&number| names(number).is_some_and(|names| is_meant(&names)));
    let [number] = numbers[..] else { return Ok(None) };
    let found = inspect(number)?.filter(|found| is_meant(&found.names));
    if found.is_some() {
        // SAFETY: F_SETFD takes one integer. Should the number mean another file by now, no child is meant to have that.
        unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(found)
}

/// The numbers that this thread has open.
pub(crate) fn open_numbers() -> io::Result<Vec<RawFd>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir("/proc/thread-self/fd")? {
        numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()));
    }
    Ok(numbers)
}

/// Closes the `SOCK_SEQPACKET` sockets of this process that are neither connected nor listening, and returns their
/// number. The caller ensures that no thread is creating such a socket or is in [`find_connection`]; then the
/// remaining ones, untrusted ones aside, have no owner.
///
/// # Errors
/// ENOENT: /proc is missing. EMFILE, ENFILE: no descriptor is free to read it.
pub fn close_orphans() -> io::Result<usize> {
    let mut closed = 0;
    for number in sequential_numbers()? {
        closed += usize::from(unless_untrusted(number, || close_if_orphan(number)) == Some(true));
    }
    Ok(closed)
}

/// `false`: it has an owner. The number is no untrusted socket's, now or meanwhile.
fn close_if_orphan(number: RawFd) -> bool {
    let listens = option(number, libc::SO_ACCEPTCONN) != Some(0);
    let is_orphan = !listens
        && option(number, libc::SO_TYPE) == Some(libc::SOCK_SEQPACKET)
        && getpeername::<UnixAddr>(number) == Err(Errno::ENOTCONN);
    if is_orphan {
        // SAFETY: a socket that is neither connected nor listening was made for a connect that failed and was
        // then forgotten: this descriptor has no owner, as the caller ensures.
        drop(unsafe { OwnedFd::from_raw_fd(number) });
    }
    is_orphan
}

/// Sets O_NONBLOCK on a socket, for all its descriptors.
///
/// # Errors
/// None for valid arguments.
pub fn set_nonblocking(socket: BorrowedFd<'_>) -> io::Result<()> {
    let flags = OFlag::from_bits_truncate(fcntl(socket, FcntlArg::F_GETFL)?);
    fcntl(socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// The default send buffer of a socket in bytes, as the kernel counts them.
///
/// # Errors
/// EMFILE, ENFILE: no descriptor is free.
pub fn default_send_buffer() -> io::Result<usize> {
    let (socket, _other) = std::os::unix::net::UnixDatagram::pair()?;
    Ok(getsockopt(&socket, sockopt::SndBuf)?)
}

/// The descriptors that are `SOCK_SEQPACKET` sockets. All are listed before one is duplicated or closed.
fn sequential_numbers() -> io::Result<Vec<RawFd>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()));
    }
    numbers.retain(|&number| option(number, libc::SO_TYPE) == Some(libc::SOCK_SEQPACKET));
    Ok(numbers)
}

/// Reads a socket option; cheap and without effect on any other kind of descriptor.
fn option(number: RawFd, name: libc::c_int) -> Option<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes one int into a variable of ours; a number that is no socket is an error.
    let result =
        unsafe { libc::getsockopt(number, libc::SOL_SOCKET, name, (&raw mut value).cast(), &raw mut length) };
    (result == 0).then_some(value)
}

/// `None`: no connected socket has this number.
fn names(number: RawFd) -> Option<SocketNames> {
    let own = getsockname::<UnixAddr>(number).ok()?;
    let peer = getpeername::<UnixAddr>(number).ok()?;
    Some(SocketNames { own: own.path().map(Path::to_owned), peer: peer.path().map(Path::to_owned) })
}

/// `None`: the number is closed, or refers to another file by now.
fn inspect(number: RawFd) -> io::Result<Option<ConnectedSocket>> {
    // SAFETY: fcntl on a number that is not open is an error and touches nothing.
    let socket = match Errno::result(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) }) {
        // SAFETY: the kernel has just made this descriptor for us and no other code has it.
        Ok(copy) => unsafe { OwnedFd::from_raw_fd(copy) },
        Err(Errno::EBADF) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    // The number may refer to another file by now, so all is asked of the duplicate.
    let copy = socket.as_raw_fd();
    let Some(names) = names(copy) else { return Ok(None) };
    if option(copy, libc::SO_TYPE) != Some(libc::SOCK_SEQPACKET) {
        return Ok(None);
    }
    Ok(Some(ConnectedSocket { peer: peer_cred(socket.as_fd())?, names, socket }))
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, bind, connect, listen, socket};

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
                // As ipc-channel does.
                let client =
                    socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::empty(), None).unwrap();
                connect(client.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
                let (_lane, _other) = crate::lane::Lane::pair().unwrap();
                // This one has no owner.
                let orphan = std::os::fd::IntoRawFd::into_raw_fd(unconnected());

                let to_server = |names: &SocketNames| names.peer.as_deref() == Some(&path);
                let ours = find_connection(&to_server).unwrap().unwrap();
                assert_eq!(ours.peer.pid, std::process::id());
                set_nonblocking(ours.socket.as_fd()).unwrap();
                assert!(find_connection(&to_server).unwrap().is_none(), "with the copy there are two");
                drop(ours);
                assert!(
                    find_connection(&|_| true).unwrap().is_none(),
                    "the client, and both ends of the lane"
                );
                let flags = OFlag::from_bits_truncate(fcntl(&client, FcntlArg::F_GETFL).unwrap());
                assert!(flags.contains(OFlag::O_NONBLOCK));
                assert_eq!(fcntl(&client, FcntlArg::F_GETFD).unwrap(), libc::FD_CLOEXEC);

                assert_eq!(close_orphans().unwrap(), 1);
                assert_eq!(close_orphans().unwrap(), 0);
                assert_eq!(option(orphan, libc::SO_TYPE), None, "it is open still");
                assert_eq!(option(server.as_raw_fd(), libc::SO_ACCEPTCONN), Some(1), "a listener was closed");
                assert!(find_connection(&to_server).unwrap().is_some(), "the client was closed");
            },
        );
    }

    #[test]
    fn a_connection_whose_other_end_is_gone_is_no_orphan() {
        in_child("descriptors::tests::a_connection_whose_other_end_is_gone_is_no_orphan", || {
            let lanes: Vec<_> = (0..200).map(|_| crate::lane::Lane::pair().unwrap().0).collect();
            assert_eq!(sequential_numbers().unwrap().len(), lanes.len());
            assert_eq!(close_orphans().unwrap(), 0);
            assert_eq!(sequential_numbers().unwrap().len(), lanes.len());
        });
    }

    #[test]
    fn the_send_buffer_is_that_of_the_machine() {
        let text = std::fs::read_to_string("/proc/sys/net/core/wmem_default").unwrap();
        assert_eq!(default_send_buffer().unwrap().to_string(), text.trim());
    }
}
