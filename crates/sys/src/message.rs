//! sendmsg(2) and recvmsg(2) with descriptors attached. Called directly, because nix's wrapper leaks the descriptors
//! of a message whose control data was truncated.
//!
//! Each received descriptor becomes an `OwnedFd` before anything else is checked, so none can leak. Used by
//! `lane.rs`, `socket.rs`, `untrusted.rs` and `spawner.rs`.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;

/// Most descriptors in a message that we send, or receive from a trusted sender.
pub(crate) const DESCRIPTORS_MAX: usize = 16;
/// Most descriptors that the kernel allows in one message (`SCM_MAX_FD`).
pub(crate) const ATTACHED_MAX: usize = 253;

/// Room for the control data of [`DESCRIPTORS_MAX`] descriptors, aligned as a `cmsghdr` must be.
const CONTROL_WORDS: usize = 16;
/// Room for [`ATTACHED_MAX`] of them, and the same again for other control data that a kernel may put before them.
const ALL_CONTROL_WORDS: usize = 256;

/// The result of a receive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received {
    /// Bytes written into the buffer.
    pub(crate) bytes: usize,
    /// The message was longer than the buffer; the rest was discarded.
    pub(crate) bytes_cut: bool,
    /// Control data did not fit, or a descriptor could not be installed; the kernel has closed those descriptors.
    pub(crate) control_cut: bool,
}

const fn control_bytes(descriptors: usize) -> usize {
    // SAFETY: CMSG_SPACE only computes.
    (unsafe { libc::CMSG_SPACE((descriptors * size_of::<RawFd>()) as u32) }) as usize
}

const _: () = assert!(control_bytes(DESCRIPTORS_MAX) <= CONTROL_WORDS * 8);
const _: () = assert!(control_bytes(ATTACHED_MAX) <= ALL_CONTROL_WORDS * 8 / 2 + 8);

fn header(buffer: &mut libc::iovec, control: &mut [u64], control_length: usize) -> libc::msghdr {
    // SAFETY: all-zero bytes are a valid msghdr: null pointers and zero lengths.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = buffer;
    header.msg_iovlen = 1;
    if control_length > 0 {
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = control_length;
    }
    header
}

/// Sends `bytes` with descriptors attached to the first of them; never raises SIGPIPE.
pub(crate) fn send(
    fd: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
    flags: libc::c_int,
) -> io::Result<usize> {
    if descriptors.len() > DESCRIPTORS_MAX {
        return Err(Errno::EINVAL.into());
    }
    send_through(fd, bytes, descriptors, flags, &mut [0; CONTROL_WORDS])
}

/// As [`send`], with as many descriptors as `control` has room for.
pub(crate) fn send_through(
    fd: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
    flags: libc::c_int,
    control: &mut [u64],
) -> io::Result<usize> {
    let mut buffer = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let length = if descriptors.is_empty() { 0 } else { control_bytes(descriptors.len()) };
    if length > size_of_val(control) {
        return Err(Errno::EINVAL.into());
    }
    let header = header(&mut buffer, control, length);
    if !descriptors.is_empty() {
        let payload = u32::try_from(size_of_val(descriptors)).map_err(|_| Errno::EINVAL)?;
        // SAFETY: the control buffer is aligned and has room for one cmsghdr with this payload, by `length`.
        unsafe {
            let first = libc::CMSG_FIRSTHDR(&raw const header);
            (*first).cmsg_level = libc::SOL_SOCKET;
            (*first).cmsg_type = libc::SCM_RIGHTS;
            (*first).cmsg_len = libc::CMSG_LEN(payload) as usize;
            let data = libc::CMSG_DATA(first).cast::<RawFd>();
            for (index, descriptor) in descriptors.iter().enumerate() {
                data.add(index).write_unaligned(descriptor.as_raw_fd());
            }
        }
    }
    // SAFETY: the header points at buffers that live through the call; sendmsg only reads them.
    let sent = unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const header, flags | libc::MSG_NOSIGNAL) };
    Ok(usize::try_from(Errno::result(sent)?).expect("a count of bytes is not negative"))
}

/// Receives one message (or the bytes of a stream). With `into` up to [`DESCRIPTORS_MAX`] descriptors are appended to
/// it, all close-on-exec; without it no descriptor enters this process.
pub(crate) fn receive(
    fd: BorrowedFd<'_>,
    bytes: &mut [u8],
    into: Option<&mut Vec<OwnedFd>>,
) -> io::Result<Received> {
    let room = if into.is_some() { control_bytes(DESCRIPTORS_MAX) } else { 0 };
    receive_as(fd, bytes, into, libc::MSG_CMSG_CLOEXEC, &mut [0; CONTROL_WORDS], room)
}

/// Receives one message (or the bytes of a stream) with all descriptors that it can carry, close-on-exec. None is
/// lost if this process can open [`ATTACHED_MAX`] more.
pub(crate) fn receive_all(
    fd: BorrowedFd<'_>,
    bytes: &mut [u8],
    into: &mut Vec<OwnedFd>,
) -> io::Result<Received> {
    let mut control = [0; ALL_CONTROL_WORDS];
    let room = size_of_val(&control);
    receive_as(fd, bytes, Some(into), libc::MSG_CMSG_CLOEXEC, &mut control, room)
}

/// Copies the next bytes without receiving them (MSG_PEEK). Attached descriptors show as truncated control data; none
/// enters this process, and none is closed.
pub(crate) fn peek(fd: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<Received> {
    receive_as(fd, bytes, None, libc::MSG_PEEK, &mut [], 0)
}

fn receive_as(
    fd: BorrowedFd<'_>,
    bytes: &mut [u8],
    into: Option<&mut Vec<OwnedFd>>,
    flags: libc::c_int,
    control: &mut [u64],
    room: usize,
) -> io::Result<Received> {
    let mut buffer = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut header = header(&mut buffer, control, room);
    // SAFETY: the header points at buffers of ours that live through the call, with their true lengths.
    let count = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, flags) };
    let bytes = usize::try_from(Errno::result(count)?).expect("a count of bytes is not negative");
    if let Some(into) = into {
        // SAFETY: the kernel has just filled this header's control buffer.
        unsafe { take_descriptors(&header, into) };
    }
    Ok(Received {
        bytes,
        bytes_cut: header.msg_flags & libc::MSG_TRUNC != 0,
        control_cut: header.msg_flags & libc::MSG_CTRUNC != 0,
    })
}

/// Takes ownership of all descriptors in the control data of a received message.
///
/// # Safety
/// `header` was filled by recvmsg, its control buffer is alive, and this is called once for it.
unsafe fn take_descriptors(header: &libc::msghdr, into: &mut Vec<OwnedFd>) {
    // SAFETY: the caller vouches for the control buffer; the macros stay inside msg_controllen, and each
    // descriptor in it was installed for us by the kernel and no other code has it.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(header);
        while !control.is_null() {
            if (*control).cmsg_level == libc::SOL_SOCKET && (*control).cmsg_type == libc::SCM_RIGHTS {
                let payload = (*control).cmsg_len - libc::CMSG_LEN(0) as usize;
                let data = libc::CMSG_DATA(control).cast::<RawFd>();
                for index in 0..payload / size_of::<RawFd>() {
                    into.push(OwnedFd::from_raw_fd(data.add(index).read_unaligned()));
                }
            }
            control = libc::CMSG_NXTHDR(header, control);
        }
    }
}
