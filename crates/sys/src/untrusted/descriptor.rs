//! A descriptor received from an untrusted process.
//!
//! Only calls that the kernel answers from its own tables are made on it: how it was opened, whether it is a socket,
//! and the size of a file in memory. All others (stat, read, mmap, close) can block for as long as its creator likes.
//!
//! ipc-channel leaks sockets, and `descriptors.rs` finds and closes them by their properties: unconnected
//! SOCK_SEQPACKET. A peer can send a socket with these properties, so the number of each received SOCK_SEQPACKET
//! socket is kept in a table, from before any other thread can see it until after its close. Driven by
//! `untrusted.rs`.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{SockType, getsockopt, sockopt};

use crate::memfd;

/// Numbers of received SOCK_SEQPACKET sockets, and how many descriptors each stands for: more than one if a number is
/// in use again while the close of its predecessor still blocks.
static SEQUENTIAL: Mutex<BTreeMap<RawFd, usize>> = Mutex::new(BTreeMap::new());

/// How a descriptor was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// For reading.
    pub read: bool,
    /// For writing at any offset.
    pub write: bool,
    /// For appending only.
    pub append: bool,
}

/// A descriptor from an untrusted process. Its drop can block for hours: drop it in a thread that may block.
#[derive(Debug)]
pub struct UntrustedFd {
    descriptor: Option<OwnedFd>,
    is_sequential: bool,
}

impl UntrustedFd {
    /// How it was opened; with O_PATH neither for reading nor for writing. Never blocks.
    ///
    /// # Errors
    /// None for valid arguments.
    pub fn access(&self) -> io::Result<Access> {
        let flags = OFlag::from_bits_truncate(fcntl(self.as_fd(), FcntlArg::F_GETFL)?);
        let mode = flags & OFlag::O_ACCMODE;
        let opened = !flags.contains(OFlag::O_PATH);
        let append = flags.contains(OFlag::O_APPEND);
        Ok(Access {
            read: opened && (mode == OFlag::O_RDONLY || mode == OFlag::O_RDWR),
            write: opened && !append && (mode == OFlag::O_WRONLY || mode == OFlag::O_RDWR),
            append: opened && append,
        })
    }

    /// The size of a file in memory (memfd, tmpfs) in bytes, 0 for all others. Never blocks: fstat is called only if
    /// F_GET_SEALS succeeds.
    ///
    /// # Errors
    /// None for valid arguments.
    pub fn pinned_bytes(&self) -> io::Result<u64> {
        match memfd::seals_of(self.as_fd()) {
            Ok(_) => memfd::size_of(self.as_fd()),
            Err(_) => Ok(0),
        }
    }

    /// Whether it is a memfd with the seals of an arena, see [`crate::memfd::is_arena`]. Never blocks.
    pub fn is_arena(&self) -> bool {
        memfd::is_arena(self.as_fd())
    }
}

impl AsFd for UntrustedFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_ref().expect("only its drop takes it out").as_fd()
    }
}

impl Drop for UntrustedFd {
    fn drop(&mut self) {
        let Some(descriptor) = self.descriptor.take() else { return };
        let number = descriptor.as_raw_fd();
        // This drop can block.
        drop(descriptor);
        if self.is_sequential {
            forget(&mut sequential(), number);
        }
    }
}

/// Runs `receive`, and registers what it appends before another thread can look at the descriptors.
pub(super) fn take_in<T>(
    into: &mut Vec<UntrustedFd>,
    receive: impl FnOnce(&mut Vec<OwnedFd>) -> io::Result<T>,
) -> io::Result<T> {
    let mut descriptors = Vec::new();
    let mut known = sequential();
    let received = receive(&mut descriptors);
    for descriptor in descriptors {
        let is_sequential = getsockopt(&descriptor, sockopt::SockType) == Ok(SockType::SeqPacket);
        if is_sequential {
            *known.entry(descriptor.as_raw_fd()).or_default() += 1;
        }
        into.push(UntrustedFd { descriptor: Some(descriptor), is_sequential });
    }
    received
}

/// Runs `work` if the number is no untrusted socket's, and keeps it so meanwhile. `None`: it is one.
pub(crate) fn unless_untrusted<T>(number: RawFd, work: impl FnOnce() -> T) -> Option<T> {
    let known = sequential();
    (!known.contains_key(&number)).then(work)
}

fn forget(known: &mut BTreeMap<RawFd, usize>, number: RawFd) {
    if let Some(count) = known.get_mut(&number) {
        *count -= 1;
        if *count == 0 {
            known.remove(&number);
        }
    }
}

/// No code blocks or panics while it holds this lock.
fn sequential() -> MutexGuard<'static, BTreeMap<RawFd, usize>> {
    SEQUENTIAL.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::OpenOptionsExt;

    use nix::libc;

    use super::*;

    fn untrusted(descriptor: impl Into<OwnedFd>) -> UntrustedFd {
        let mut into = Vec::new();
        take_in(&mut into, |all| {
            all.push(descriptor.into());
            Ok(())
        })
        .unwrap();
        into.pop().unwrap()
    }

    #[test]
    fn how_it_was_opened_is_told() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let open = |flags: i32, options: &mut std::fs::OpenOptions| {
            let Access { read, write, append } =
                untrusted(options.custom_flags(flags).open(path.path()).unwrap()).access().unwrap();
            (read, write, append)
        };
        assert_eq!(open(0, File::options().read(true)), (true, false, false));
        assert_eq!(open(0, File::options().write(true)), (false, true, false));
        assert_eq!(open(0, File::options().read(true).write(true)), (true, true, false));
        assert_eq!(open(0, File::options().read(true).append(true)), (true, false, true));
        assert_eq!(open(libc::O_PATH, File::options().read(true).write(true)), (false, false, false));
    }

    #[test]
    fn only_what_lives_in_memory_pins_it() {
        let memory = File::from(memfd::output_file("pins").unwrap());
        memory.set_len(5 << 30).unwrap();
        assert_eq!(untrusted(memory).pinned_bytes().unwrap(), 5 << 30);
        assert_eq!(untrusted(File::open("/proc/self/exe").unwrap()).pinned_bytes().unwrap(), 0);
        assert_eq!(untrusted(File::open("/dev/zero").unwrap()).pinned_bytes().unwrap(), 0);
    }

    #[test]
    fn a_number_counts_as_untrusted_until_each_that_had_it_is_closed() {
        let mut known = BTreeMap::from([(7, 2)]);
        forget(&mut known, 7);
        assert!(known.contains_key(&7));
        forget(&mut known, 7);
        assert!(known.is_empty());
    }
}
