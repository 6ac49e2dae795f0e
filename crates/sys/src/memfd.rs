//! Anonymous files in memory (memfd_create(2)): outputs of tasks, logs, and the files behind shared pages.
//!
//! The supervisor creates an output, a worker writes and seals it, and the supervisor passes it to clients. All
//! holders of its descriptor share one file offset, so it must be read by position (pread).

use std::ffi::CString;
use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::libc;

use crate::call_filter::refused;
use crate::shared_page::SharedPage;

/// Creates an empty file that can be sealed. `name` is shown in /proc and has no other meaning.
///
/// # Errors
/// EMFILE, ENFILE, ENOMEM: a resource is exhausted. EINVAL: the name holds a zero byte or is over 249 bytes.
pub fn output_file(name: &str) -> io::Result<OwnedFd> {
    create(name)
}

/// Creates a file of a fixed size. Returns a descriptor to write it, and a read-only one. Mode 0600 prevents that a
/// process of another user opens the read-only one again for writing.
///
/// # Errors
/// As [`output_file`]; also EACCES, ENOENT: /proc is missing.
pub fn log_file(name: &str, bytes: u64) -> io::Result<(OwnedFd, OwnedFd)> {
    let writer = File::from(create(name)?);
    writer.set_len(bytes)?;
    writer.set_permissions(Permissions::from_mode(0o600))?;
    fcntl(&writer, FcntlArg::F_ADD_SEALS(fixed() | SealFlag::F_SEAL_SEAL))?;
    let reader = File::open(format!("/proc/self/fd/{}", writer.as_raw_fd()))?;
    Ok((writer.into(), reader.into()))
}

/// Creates a memfd that cannot be executed, where the kernel supports that (Linux 6.3).
pub(crate) fn create(name: &str) -> io::Result<OwnedFd> {
    let name = CString::new(name)?;
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    match memfd_create(&name, flags | libc::MFD_NOEXEC_SEAL) {
        Err(Errno::EINVAL) => Ok(memfd_create(&name, flags)?),
        made => made.map_err(|error| refused("memfd_create(2)", error)),
    }
}

fn memfd_create(name: &CString, flags: libc::c_uint) -> Result<OwnedFd, Errno> {
    // SAFETY: `name` is a C string that lives through the call.
    let fd = Errno::result(unsafe { libc::memfd_create(name.as_ptr(), flags) })?;
    // SAFETY: the kernel has just made this descriptor for us and no other code has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Creates a file that holds these bytes and can never change. F_SEAL_FUTURE_WRITE suffices: the file has no other
/// user and no mapping yet. F_SEAL_WRITE could block.
///
/// # Errors
/// EMFILE, ENFILE, ENOMEM, ENOSPC: a resource is exhausted. EINVAL: a kernel before 5.1.
pub fn filled(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    filled_from(name, &[bytes])
}

/// The same with these pieces, one after another.
///
/// # Errors
/// As [`filled`].
pub fn filled_from(name: &str, pieces: &[&[u8]]) -> io::Result<OwnedFd> {
    let mut file = File::from(create(name)?);
    pieces.iter().try_for_each(|piece| file.write_all(piece))?;
    let fd = OwnedFd::from(file);
    fix_size(fd.as_fd())?;
    SharedPage::seal_future_writes(fd.as_fd())?;
    Ok(fd)
}

/// Reads up to `bytes.len()` bytes at offset `at`; returns how many there were.
///
/// # Errors
/// EIO, ENOMEM: its pages cannot be read. Blocks on memory alone, if it is a memfd.
pub fn read_at(fd: BorrowedFd<'_>, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    let at = libc::off_t::try_from(at).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the kernel writes no more than the length of `bytes` there; `fd` is open.
    let count = unsafe { libc::pread(fd.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), at) };
    Ok(usize::try_from(Errno::result(count)?).expect("a count of bytes is not negative"))
}

/// Seals the size of a file; its bytes can still change.
///
/// # Errors
/// EPERM: its seals are sealed. EINVAL: it is no memfd.
pub fn fix_size(fd: BorrowedFd<'_>) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_ADD_SEALS(fixed()))?;
    Ok(())
}

/// Forbids further seals.
///
/// # Errors
/// As [`fix_size`].
pub(crate) fn seal_seals(fd: BorrowedFd<'_>) -> io::Result<()> {
    fcntl(fd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SEAL))?;
    Ok(())
}

fn fixed() -> SealFlag {
    SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW
}

/// Seals content and size of an output, and returns its size in bytes. Can block: the kernel drains the caches of all
/// cores, and waits up to about 200 ms for other users of its pages.
///
/// # Errors
/// EBUSY: it is mapped for writing, or its pages are in use. EPERM: its seals are sealed. EINVAL: it is no memfd. All
/// of these are caused by a holder of the descriptor.
pub fn seal_output(fd: BorrowedFd<'_>) -> io::Result<u64> {
    fcntl(fd, FcntlArg::F_ADD_SEALS(frozen() | SealFlag::F_SEAL_SEAL))?;
    size_of(fd)
}

/// The size of a sealed output in bytes; `None` if it is not sealed. Never blocks.
///
/// # Errors
/// EINVAL: it is no memfd.
pub fn sealed_size(fd: BorrowedFd<'_>) -> io::Result<Option<u64>> {
    if seals_of(fd)?.contains(frozen()) { size_of(fd).map(Some) } else { Ok(None) }
}

fn frozen() -> SealFlag {
    SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW
}

/// Whether it is a memfd whose size is fixed and which nobody can open, map or write for writing any more: only mappings that
/// were made before write to it. Such a file can be mapped for reading, and no access faults. Never blocks.
pub fn is_arena(fd: BorrowedFd<'_>) -> bool {
    // F_GET_SEALS of other files fails.
    fcntl(fd, FcntlArg::F_GET_SEALS).is_ok_and(|seals| {
        let wanted = fixed().bits() | SharedPage::F_SEAL_FUTURE_WRITE;
        seals & wanted == wanted
    })
}

/// The length of an arena in bytes. Never blocks.
///
/// # Errors
/// EPERM: it lacks a seal of [`is_arena`].
pub fn arena_bytes(fd: BorrowedFd<'_>) -> io::Result<u64> {
    if is_arena(fd) { size_of(fd) } else { Err(Errno::EPERM.into()) }
}

/// Gives the memory of some ranges of a file back to the system; they read as zeros then. The descriptor may be read-only: the file is
/// opened once more for that. `ranges` are in bytes, in whole pages, none of them empty. Takes about 65 us for each MiB.
///
/// # Errors
/// EACCES, ENOENT: this user may not write it, or /proc is missing. EPERM: it is sealed against writing. EMFILE, ENFILE: no
/// descriptor is free.
pub fn give_back(fd: BorrowedFd<'_>, ranges: &[Range<u64>]) -> io::Result<()> {
    let file = File::options().write(true).open(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    for range in ranges {
        let offset = |at: u64| libc::off_t::try_from(at).map_err(|_| Errno::EINVAL);
        fallocate(&file, mode, offset(range.start)?, offset(range.end - range.start)?)?;
    }
    Ok(())
}

/// The memory that a memfd uses in bytes, without holes. Never blocks.
///
/// # Errors
/// None for valid arguments.
pub fn memory_of(fd: BorrowedFd<'_>) -> io::Result<u64> {
    /// The unit of `st_blocks` on all file systems.
    const BLOCK_BYTES: u64 = 512;
    Ok(u64::try_from(stat_of(fd)?.st_blocks).unwrap_or(0).saturating_mul(BLOCK_BYTES))
}

/// What a memfd counts for where memory is shared out, in bytes: its size with all holes, because a holder of it may read
/// them, or its memory if that is more. Memory comes in whole pages, and fallocate(2) can add some beyond the size. Never
/// blocks. Of a sealed file it does not change.
///
/// # Errors
/// None for valid arguments.
pub fn counted_bytes(fd: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(size_of(fd)?.max(memory_of(fd)?))
}

/// The size of the file behind a descriptor, in bytes.
pub(crate) fn size_of(fd: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(u64::try_from(stat_of(fd)?.st_size).unwrap_or(0))
}

fn stat_of(fd: BorrowedFd<'_>) -> io::Result<libc::stat> {
    // SAFETY: all-zero bytes are a valid stat: it is plain data for the kernel to fill.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is ours and lives through the call; `fd` is open.
    Errno::result(unsafe { libc::fstat(fd.as_raw_fd(), &raw mut stat) })?;
    Ok(stat)
}

/// The seals of a memfd.
pub(crate) fn seals_of(fd: BorrowedFd<'_>) -> io::Result<SealFlag> {
    Ok(SealFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GET_SEALS)?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn a_log_has_its_size_for_ever_and_readers_cannot_write_it() {
        let (writer, reader) = log_file("log", 8192).unwrap();
        let (writer, reader) = (File::from(writer), File::from(reader));
        writer.write_all_at(b"said", 8000).unwrap();
        let mut said = [0; 4];
        reader.read_exact_at(&mut said, 8000).unwrap();
        assert_eq!((&said, reader.metadata().unwrap().len()), (b"said", 8192));
        assert!(reader.write_at(b"x", 0).is_err(), "it can only be read");
        assert_eq!(reader.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        for bytes in [0, 8191, 8193] {
            assert_eq!(writer.set_len(bytes).unwrap_err().raw_os_error(), Some(libc::EPERM));
        }
        assert!(writer.write_at(b"x", 8192).is_err(), "it cannot grow");
        assert!(seal_output(writer.as_fd()).is_err(), "its writer cannot stop itself");
    }

    #[test]
    fn what_is_given_back_takes_no_memory_and_the_rest_stays() {
        let (writer, reader) = log_file("log", 64 << 10).unwrap();
        File::from(writer).write_all_at(&[7; 64 << 10], 0).unwrap();
        give_back(reader.as_fd(), &[0..4096, 8192..64 << 10]).unwrap();
        assert_eq!(memory_of(reader.as_fd()).unwrap(), 4096);
        let mut read = [0; 8193];
        assert_eq!(read_at(reader.as_fd(), &mut read, 0).unwrap(), 8193);
        assert!(
            (read[0], read[4095], read[8192]) == (0, 0, 0) && read[4096..8192].iter().all(|byte| *byte == 7)
        );
        let sealed = filled("filled", b"0123").unwrap();
        assert!(give_back(sealed.as_fd(), &[0..4096, 8192..12_288]).is_err(), "it is sealed");
    }

    #[test]
    fn a_sealed_output_cannot_change() {
        let mut file = File::from(output_file("sealed").unwrap());
        file.write_all(b"the digits").unwrap();
        let mut again =
            File::options().write(true).open(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
        assert_eq!(sealed_size(file.as_fd()).unwrap(), None);
        fix_size(file.as_fd()).unwrap();
        assert_eq!(sealed_size(file.as_fd()).unwrap(), None, "its bytes can change");
        assert_eq!(seal_output(file.as_fd()).unwrap(), 10);
        assert_eq!(sealed_size(file.as_fd()).unwrap(), Some(10));
        assert!((10..4 << 20).contains(&memory_of(file.as_fd()).unwrap()));
        for error in [
            file.write_all_at(b"x", 0).unwrap_err(),
            file.write_all_at(b"x", 10).unwrap_err(),
            again.write_all(b"x").unwrap_err(),
            file.set_len(3).unwrap_err(),
            file.set_len(30).unwrap_err(),
        ] {
            assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        }
        let mut bytes = [0; 10];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"the digits");
    }

    #[test]
    fn a_file_counts_its_holes_and_what_lies_behind_its_end() {
        let page = 4096;
        let written = File::from(output_file("written").unwrap());
        written.write_all_at(b"x", 0).unwrap();
        seal_output(written.as_fd()).unwrap();
        assert_eq!(counted_bytes(written.as_fd()).unwrap(), page, "a byte takes a page");
        let holes = File::from(output_file("holes").unwrap());
        holes.set_len(5 << 30).unwrap();
        assert_eq!(memory_of(holes.as_fd()).unwrap(), 0);
        seal_output(holes.as_fd()).unwrap();
        assert_eq!(counted_bytes(holes.as_fd()).unwrap(), 5 << 30, "a hole can be read");
        let behind = File::from(output_file("behind").unwrap());
        behind.write_all_at(b"x", 0).unwrap();
        fallocate(&behind, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, 64 * page as i64).unwrap();
        assert_eq!(seal_output(behind.as_fd()).unwrap(), 1, "its end stays");
        assert_eq!(counted_bytes(behind.as_fd()).unwrap(), 64 * page);
    }

    #[test]
    fn a_filled_file_cannot_change_and_is_read_in_place() {
        let filled = filled_from("filled", &[b"0123", b"", b"456789"]).unwrap();
        let mut bytes = [0; 4];
        assert_eq!((read_at(filled.as_fd(), &mut bytes, 8).unwrap(), &bytes[..2]), (2, &b"89"[..]));
        let file = File::from(filled);
        for error in [file.write_all_at(b"x", 0).unwrap_err(), file.set_len(3).unwrap_err()] {
            assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        }
        assert!(SharedPage::map_shared(file.as_fd(), 8).is_err());
    }

    #[test]
    fn an_output_that_somebody_maps_or_sealed_is_refused() {
        let (_page, fd) = SharedPage::create("mapped", 4096).unwrap();
        assert_eq!(seal_output(fd.as_fd()).unwrap_err().raw_os_error(), Some(libc::EBUSY));
        let fd = output_file("sealed by a worker").unwrap();
        fcntl(&fd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SEAL)).unwrap();
        assert_eq!(seal_output(fd.as_fd()).unwrap_err().raw_os_error(), Some(libc::EPERM));
        let null = File::options().write(true).open("/dev/null").unwrap();
        assert_eq!(seal_output(null.as_fd()).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }
}
