//! A descriptor that the parent of this process left open for it and named by its number.
//!
//! It is to be claimed before this process opens anything: then whatever has the number is the parent's, and none of the
//! sockets and files of this process. Only what programs can write their output to is taken. Nothing is read from it or
//! written to it here. Called by the supervisor's `settings/streams.rs`.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::socket::{SockType, UnixAddr, getpeername, getsockopt, sockopt};
use nix::sys::stat::{SFlag, fstat};

/// A copy of the descriptor with this number, for the standard output or standard error of other programs.
///
/// # Errors
/// EBADF: nothing is open there. `InvalidInput`, in words: it is a standard stream of this process, is not open for writing, or
/// is neither a file, a pipe, a terminal nor a connected stream socket. EMFILE: no descriptor is free.
pub fn claim(number: RawFd) -> io::Result<OwnedFd> {
    if number <= libc::STDERR_FILENO {
        return Err(unfit("it is a standard stream of the daemon itself"));
    }
    let copy = copy(number)?;
    let flags = OFlag::from_bits_retain(fcntl(&copy, FcntlArg::F_GETFL)?);
    if flags.contains(OFlag::O_PATH) || flags & OFlag::O_ACCMODE == OFlag::O_RDONLY {
        return Err(unfit("it is not open for writing"));
    }
    let kind = SFlag::from_bits_truncate(fstat(&copy)?.st_mode) & SFlag::S_IFMT;
    if kind == SFlag::S_IFSOCK {
        let is_stream = getsockopt(&copy, sockopt::SockType)? == SockType::Stream;
        if !is_stream || !is_connected(&copy) {
            return Err(unfit("it is a socket, but no connected stream socket"));
        }
    } else if ![SFlag::S_IFREG, SFlag::S_IFIFO, SFlag::S_IFCHR].contains(&kind) {
        return Err(unfit("it is no file, pipe, terminal or stream socket"));
    }
    Ok(copy)
}

/// A copy of whatever is open under this number, for code that holds descriptors as numbers: an interpreter. It is closed in
/// programs that this process starts.
///
/// # Errors
/// EBADF: nothing is open there. EMFILE: no descriptor is free.
pub fn copy(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl on a number that is not open is an error and touches nothing.
    let copy = Errno::result(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) })?;
    // SAFETY: the kernel has just made this descriptor for us and no other code has it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Whether a socket has a peer. The peer's address may be of a family that is no Unix socket's.
fn is_connected(socket: &OwnedFd) -> bool {
    getpeername::<UnixAddr>(socket.as_raw_fd()) != Err(Errno::ENOTCONN)
}

fn unfit(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::os::unix::fs::OpenOptionsExt;
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    use super::*;

    fn refused(what: impl AsFd) -> String {
        claim(what.as_fd().as_raw_fd()).unwrap_err().to_string()
    }

    #[test]
    fn what_output_can_be_written_to_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(folder.path().join("file")).unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        let (stream, _other) = UnixStream::pair().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let null = File::options().write(true).open("/dev/null").unwrap();
        for number in [file.as_raw_fd(), stream.as_raw_fd(), tcp.as_raw_fd(), null.as_raw_fd()] {
            claim(number).unwrap();
        }
        let mut copy = File::from(claim(writer.as_raw_fd()).unwrap());
        drop(writer);
        copy.write_all(b"x").unwrap();
        drop(copy);
        let mut read = String::new();
        reader.read_to_string(&mut read).unwrap();
        assert_eq!(read, "x", "the same pipe, and no further copy of it");
    }

    #[test]
    fn anything_else_is_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        for number in [-1, 0, 1, 2] {
            assert!(claim(number).unwrap_err().to_string().contains("a standard stream"), "{number}");
        }
        let free = File::open("/dev/null").unwrap().as_raw_fd() + 5000;
        assert_eq!(claim(free).unwrap_err().raw_os_error(), Some(libc::EBADF));
        let not_for_writing = "not open for writing";
        assert!(refused(File::open("/dev/null").unwrap()).contains(not_for_writing));
        assert!(refused(File::open(folder.path()).unwrap()).contains(not_for_writing));
        let path = File::options().read(true).custom_flags(libc::O_PATH).open(folder.path()).unwrap();
        assert!(refused(path).contains(not_for_writing));
        let no_stream = "no connected stream socket";
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        assert!(refused(listener).contains(no_stream));
        assert!(refused(UnixDatagram::pair().unwrap().0).contains(no_stream));
        assert!(refused(nix::sys::eventfd::EventFd::new().unwrap()).contains("no file, pipe"));
    }
}
