//! What a hostile client or worker can do to a socket's other end: unusual descriptors, too many of them, another
//! user's credentials.
//!
//! For tests alone (feature `hostile-peer`): no program calls it. The caller owns all that is created here.

use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt};
use nix::sys::stat::Mode;

use crate::message;

/// Most descriptors that the kernel takes with one message.
pub const ATTACHED_MAX: usize = message::ATTACHED_MAX;
/// Control data for that many, and for some more: the kernel has to refuse those itself.
const CONTROL_WORDS: usize = 256;

/// How a message is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendMode {
    /// Normal data.
    Plain,
    /// Out-of-band data (MSG_OOB): its last byte is urgent.
    Urgent,
}

/// Sends bytes with up to [`ATTACHED_MAX`] descriptors attached.
///
/// # Errors
/// EINVAL: too many. EAGAIN, EPIPE, ECONNRESET, ETOOMANYREFS: as of any socket.
pub fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    attached: &[BorrowedFd<'_>],
    mode: SendMode,
) -> io::Result<usize> {
    let flags = if mode == SendMode::Urgent { libc::MSG_OOB } else { 0 };
    message::send_through(socket, bytes, attached, flags, &mut [0; CONTROL_WORDS])
}

/// A TCP connection whose last close blocks for an hour, or until the returned reader is closed, or until the closing
/// thread gets a signal.
///
/// # Errors
/// No loopback interface, or no descriptor is free.
pub fn lingering() -> io::Result<(OwnedFd, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let writer = lingering_to(listener.local_addr()?.port())?;
    Ok((writer, listener.accept()?.0))
}

/// The same connection to a listener on this loopback port that does not read. It sends more than the receiver's
/// buffer holds; with less, a close would not block.
///
/// # Errors
/// No process listens there, or no descriptor is free.
pub fn lingering_to(port: u16) -> io::Result<OwnedFd> {
    let mut writer = TcpStream::connect(("127.0.0.1", port))?;
    setsockopt(&writer, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 3600 })?;
    writer.set_nonblocking(true)?;
    while writer.write(&[0; 64 << 10]).is_ok() {}
    Ok(writer.into())
}

/// Fills the queue of the `SOCK_SEQPACKET` server at this path with connections. It stays full as long as they are
/// kept and the server accepts none.
///
/// # Errors
/// No process listens there, or no descriptor is free.
pub fn fill_queue(path: &Path) -> io::Result<Vec<OwnedFd>> {
    let address = UnixAddr::new(path)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let mut kept = Vec::new();
    loop {
        let one = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        match connect(one.as_raw_fd(), &address) {
            Ok(()) => kept.push(one),
            Err(Errno::EAGAIN) => return Ok(kept),
            Err(error) => return Err(error.into()),
        }
    }
}

/// An epoll descriptor.
///
/// # Errors
/// EMFILE, ENFILE, ENOMEM.
pub fn epoll() -> io::Result<OwnedFd> {
    Ok(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?.0)
}

/// An unconnected `SOCK_SEQPACKET` socket.
///
/// # Errors
/// EMFILE, ENFILE, ENOMEM.
pub fn sequential() -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?)
}

/// An io_uring of eight entries.
///
/// # Errors
/// ENOSYS, EPERM: this machine lacks or forbids it.
pub fn io_uring() -> io::Result<OwnedFd> {
    // `struct io_uring_params` is 120 bytes, all zero for the defaults.
    let mut parameters = [0_u64; 15];
    // SAFETY: the kernel reads and writes 120 bytes, which are ours.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 8, parameters.as_mut_ptr()) };
    let fd = RawFd::try_from(Errno::result(fd)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us and no other code has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A pidfd.
///
/// # Errors
/// ESRCH: there is no such process.
pub fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open reads and writes no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(Errno::result(fd)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us and no other code has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes a named pipe.
///
/// # Errors
/// EEXIST, ENOENT, EACCES: the path.
pub fn make_fifo(path: &Path) -> io::Result<()> {
    Ok(nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?)
}

/// Connects as another user with this group alone, in a thread that takes on that user and ends. Only root can.
///
/// # Errors
/// EPERM: this process is not root. Otherwise the errors of connect(2).
pub fn connect_as(path: &Path, uid: u32, gid: u32) -> io::Result<UnixStream> {
    std::thread::scope(|scope| {
        let connecting = scope.spawn(|| {
            become_user(uid, gid)?;
            UnixStream::connect(path)
        });
        connecting.join().unwrap_or_else(|_| Err(Errno::EINTR.into()))
    })
}

/// Changes the user of this thread alone, by system calls: the C library's functions change all threads.
fn become_user(uid: u32, gid: u32) -> io::Result<()> {
    let none = std::ptr::null::<u32>();
    // SAFETY: these read nothing from memory of ours; credentials belong to the thread, which ends soon.
    unsafe {
        Errno::result(libc::syscall(libc::SYS_setgroups, 0, none))?;
        Errno::result(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        Errno::result(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
    }
    Ok(())
}
