//! Memory shared with a process that may be hostile.
//!
//! Each access is an atomic operation on one aligned u64, for byte strings too. The other process can change any byte
//! at any time; that is never undefined behaviour here, only a value that must be checked. Nothing borrows the
//! memory. The file behind a page is sealed against changes of its size before it is mapped, so no access can fault.
//! Used by `link` and by `crash_handler.rs`.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::fcntl::SealFlag;
use nix::libc;

use crate::memfd;

const WORD: usize = 8;

/// [`SharedPage::unload`] takes whole units alone: no page of a Linux system is larger.
pub const UNLOAD_UNIT_BYTES: usize = 64 << 10;

/// The orders of [`SharedPage::compare_exchange`]: of an exchange, and of a load that found another word.
pub const EXCHANGE: (Ordering, Ordering) = (Ordering::AcqRel, Ordering::Acquire);

/// A mapping of a shared file. Dropping it unmaps it.
#[derive(Debug)]
pub struct SharedPage {
    start: NonNull<u8>,
    bytes: usize,
    writable: bool,
}

// SAFETY: the mapping belongs to this value alone and every access to it is atomic, from any thread.
unsafe impl Send for SharedPage {}
// SAFETY: as above: shared access is what the atomics are for.
unsafe impl Sync for SharedPage {}

impl SharedPage {
    /// The libc crate lacks it on some targets; the value is that of Linux's fcntl.h.
    pub(crate) const F_SEAL_FUTURE_WRITE: i32 = 0x0010;

    /// Creates a zeroed page of `bytes` (a multiple of 8), sealed against changes of its size and mapped for writing,
    /// and the descriptor through which another process can map it.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM: a resource is exhausted; retry later.
    pub fn create(name: &str, bytes: usize) -> io::Result<(Self, OwnedFd)> {
        let fd = memfd::create(name)?;
        let length = libc::off_t::try_from(bytes).map_err(|_| Errno::EINVAL)?;
        // SAFETY: ftruncate takes a descriptor, which `fd` keeps open, and an integer.
        Errno::result(unsafe { libc::ftruncate(fd.as_raw_fd(), length) })?;
        memfd::fix_size(fd.as_fd())?;
        let page = Self::map_shared(fd.as_fd(), bytes)?;
        Ok((page, fd))
    }

    /// As [`Self::create`], for a file that several processes map for writing: nobody can add a seal to it, for instance one that
    /// forbids further mappings.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn create_for_writers(name: &str, bytes: usize) -> io::Result<(Self, OwnedFd)> {
        let (page, fd) = Self::create(name, bytes)?;
        memfd::seal_seals(fd.as_fd())?;
        Ok((page, fd))
    }

    /// Forbids new writable mappings and write(2); existing writable mappings stay the only ones that write. Also
    /// seals the seals.
    ///
    /// # Errors
    /// EPERM: its seals were sealed before. EINVAL: a kernel before 5.1.
    pub fn seal_future_writes(fd: BorrowedFd<'_>) -> io::Result<()> {
        let seals = Self::F_SEAL_FUTURE_WRITE | libc::F_SEAL_SEAL;
        // SAFETY: F_ADD_SEALS takes one integer; `fd` is open.
        Errno::result(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) })?;
        Ok(())
    }

    /// Creates a zeroed arena of `bytes` (a multiple of 8), mapped for writing here and here alone: it has the seals that
    /// [`Self::map_arena`] wants. The descriptor is for those who read it.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM: a resource is exhausted. EINVAL: a kernel before 5.1, or no multiple of 8.
    pub fn create_arena(name: &str, bytes: usize) -> io::Result<(Self, OwnedFd)> {
        let (page, fd) = Self::create(name, bytes)?;
        Self::seal_future_writes(fd.as_fd())?;
        if !memfd::is_arena(fd.as_fd()) {
            return Err(Errno::EPERM.into());
        }
        Ok((page, fd))
    }

    /// Maps the arena of another process for reading, all of it.
    ///
    /// # Errors
    /// EPERM: it is not sealed against a change of its size and against future writes. EINVAL: its size is no multiple of 8.
    /// ENOMEM.
    pub fn map_arena(fd: BorrowedFd<'_>) -> io::Result<Self> {
        if !memfd::is_arena(fd) {
            return Err(Errno::EPERM.into());
        }
        let bytes = usize::try_from(memfd::size_of(fd)?).map_err(|_| Errno::EINVAL)?;
        Self::map_read_only(fd, bytes)
    }

    /// Its length in bytes.
    pub fn length(&self) -> usize {
        self.bytes
    }

    /// Maps a page of another process for reading and writing.
    ///
    /// # Errors
    /// EINVAL: it is not sealed against changes of its size, or not `bytes` long. EPERM: it is sealed against
    /// writing. ENOMEM.
    pub fn map_shared(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<Self> {
        Self::map(fd, bytes, true)
    }

    /// Maps all of a file of another process for reading and writing.
    ///
    /// # Errors
    /// EINVAL: it is no memfd, it is not sealed against changes of its size, or its size is no multiple of 8. EPERM: it is sealed
    /// against writing. ENOMEM.
    pub fn map_for_writing(fd: BorrowedFd<'_>) -> io::Result<Self> {
        // First of all: only of a memfd does fstat never hang.
        memfd::seals_of(fd)?;
        let bytes = usize::try_from(memfd::size_of(fd)?).map_err(|_| Errno::EINVAL)?;
        Self::map(fd, bytes, true)
    }

    /// Maps a page of another process for reading.
    ///
    /// # Errors
    /// As [`Self::map_shared`].
    pub fn map_read_only(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<Self> {
        Self::map(fd, bytes, false)
    }

    fn map(fd: BorrowedFd<'_>, bytes: usize, writable: bool) -> io::Result<Self> {
        let fixed = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
        let is_fixed = memfd::seals_of(fd)?.contains(fixed) && memfd::size_of(fd)? == bytes as u64;
        if !is_fixed || bytes == 0 || !bytes.is_multiple_of(WORD) {
            return Err(Errno::EINVAL.into());
        }
        let protection = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
        // SAFETY: a new mapping at a place of the kernel's choice touches nothing that exists.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), bytes, protection, libc::MAP_SHARED, fd.as_raw_fd(), 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("the kernel maps nothing at zero unless told to");
        Ok(Self { start, bytes, writable })
    }

    /// Takes this range out of the resident memory of this process, but for parts of units of [`UNLOAD_UNIT_BYTES`]. Its content
    /// stays in the file, and the next access maps it again.
    ///
    /// # Errors
    /// EAGAIN: the kernel lacks memory for a moment.
    ///
    /// # Panics
    /// If the range ends outside of the mapping.
    pub fn unload(&self, range: Range<usize>) -> io::Result<()> {
        assert!(range.end <= self.bytes, "no range of the page: end={} bytes={}", range.end, self.bytes);
        let unit = UNLOAD_UNIT_BYTES;
        let whole = range.start.next_multiple_of(unit)..range.end / unit * unit;
        if whole.is_empty() {
            return Ok(());
        }
        // SAFETY: the range is inside of the mapping, which is shared: its content is that of the file, before and after.
        Errno::result(unsafe {
            libc::madvise(self.start.add(whole.start).as_ptr().cast(), whole.len(), libc::MADV_DONTNEED)
        })?;
        Ok(())
    }

    /// The word at `at`, a multiple of 8.
    ///
    /// # Panics
    /// If `at` is no word of this page: offsets come from the layout, never from a peer.
    fn word(&self, at: usize) -> &AtomicU64 {
        assert!(
            at.is_multiple_of(WORD) && at < self.bytes,
            "no word of the page: at={at} bytes={}",
            self.bytes
        );
        // SAFETY: the mapping lives as long as `self`, `at` is inside it and aligned, the file cannot shrink,
        // and nothing but atomics ever touches it. Loads from read-only memory are plain loads for a u64.
        unsafe { self.start.add(at).cast().as_ref() }
    }

    /// As many words as hold `bytes` bytes from `at` on.
    ///
    /// # Panics
    /// As [`Self::word`], of any of them.
    fn words(&self, at: usize, bytes: usize) -> &[AtomicU64] {
        let count = bytes.div_ceil(WORD);
        let is_inside =
            count.checked_mul(WORD).and_then(|all| all.checked_add(at)).is_some_and(|end| end <= self.bytes);
        assert!(
            at.is_multiple_of(WORD) && is_inside,
            "no words of the page: at={at} bytes={bytes} of {}",
            self.bytes
        );
        // SAFETY: as in `word`: all of them are inside the mapping and aligned, and are accessed as atomics alone.
        unsafe { std::slice::from_raw_parts(self.start.add(at).cast().as_ptr(), count) }
    }

    pub(crate) fn writable_word(&self, at: usize) -> &AtomicU64 {
        assert!(self.writable, "the page is mapped for reading only");
        self.word(at)
    }

    /// Loads the word at `at`.
    ///
    /// # Panics
    /// If `at` is no word of this page.
    pub fn load(&self, at: usize, order: Ordering) -> u64 {
        self.word(at).load(order)
    }

    /// Stores the word at `at`.
    ///
    /// # Panics
    /// If `at` is no word of this page, or it is mapped for reading only.
    pub fn store(&self, at: usize, value: u64, order: Ordering) {
        self.writable_word(at).store(value, order);
    }

    /// Replaces the word at `at` by `new` if it is `current`, otherwise returns it, in the orders of [`EXCHANGE`].
    ///
    /// # Errors
    /// The word that was there.
    ///
    /// # Panics
    /// If `at` is no word of this page, or it is mapped for reading only.
    pub fn compare_exchange(&self, at: usize, current: u64, new: u64) -> Result<u64, u64> {
        self.writable_word(at).compare_exchange(current, new, EXCHANGE.0, EXCHANGE.1)
    }

    /// Sets these bits of the word at `at` (AcqRel), and returns the word that was there.
    ///
    /// # Panics
    /// If `at` is no word of this page, or it is mapped for reading only.
    pub fn set_bits(&self, at: usize, bits: u64) -> u64 {
        self.writable_word(at).fetch_or(bits, Ordering::AcqRel)
    }

    /// Copies bytes from `at` into `into`, word by word: a concurrent write can tear it between words.
    ///
    /// # Panics
    /// If that is not inside this page, or `at` is no multiple of 8.
    pub fn read_bytes(&self, at: usize, into: &mut [u8]) {
        let words = self.words(at, into.len());
        let (whole, rest) = into.as_chunks_mut::<WORD>();
        for (chunk, word) in whole.iter_mut().zip(words) {
            *chunk = word.load(Ordering::Relaxed).to_ne_bytes();
        }
        if let (false, Some(word)) = (rest.is_empty(), words.last()) {
            let bytes = word.load(Ordering::Relaxed).to_ne_bytes();
            rest.copy_from_slice(&bytes[..rest.len()]);
        }
    }

    /// Copies `bytes` to `at`, word by word; the last word is padded with zeros.
    ///
    /// # Panics
    /// If they do not fit this page, if it is mapped for reading only, or if `at` is no multiple of 8.
    pub fn write_bytes(&self, at: usize, bytes: &[u8]) {
        assert!(self.writable || bytes.is_empty(), "the page is mapped for reading only");
        let words = self.words(at, bytes.len());
        let (whole, rest) = bytes.as_chunks::<WORD>();
        for (chunk, word) in whole.iter().zip(words) {
            word.store(u64::from_ne_bytes(*chunk), Ordering::Relaxed);
        }
        if let (false, Some(last)) = (rest.is_empty(), words.last()) {
            let mut word = [0; WORD];
            word[..rest.len()].copy_from_slice(rest);
            last.store(u64::from_ne_bytes(word), Ordering::Relaxed);
        }
    }
}

impl SharedPage {
    /// Gives the memory of a range back to the system, for all who have the file; it reads as zeros then.
    ///
    /// # Errors
    /// EPERM: the file is sealed against writing. EINVAL: `at` or `bytes` is no multiple of the size of a page.
    ///
    /// # Panics
    /// If the range is not inside this page.
    pub fn give_back(&self, at: usize, bytes: usize) -> io::Result<()> {
        assert!(
            at.checked_add(bytes).is_some_and(|end| end <= self.bytes),
            "no range of the page: at={at} bytes={bytes}"
        );
        // SAFETY: the range is inside the mapping, which is accessed by atomics alone: they load zeros then.
        let result = unsafe { libc::madvise(self.start.as_ptr().add(at).cast(), bytes, libc::MADV_REMOVE) };
        Errno::result(result)?;
        Ok(())
    }
}

impl Drop for SharedPage {
    fn drop(&mut self) {
        // SAFETY: this mapping is ours, whole, and nothing borrows from it any more.
        let result = unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
        debug_assert_eq!(result, 0, "munmap of a whole mapping cannot fail");
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn two_mappings_share_words_and_bytes() {
        let (ours, fd) = SharedPage::create("shared", 4096).unwrap();
        let theirs = SharedPage::map_shared(fd.as_fd(), 4096).unwrap();
        ours.store(8, 7, Ordering::Release);
        assert_eq!(theirs.load(8, Ordering::Acquire), 7);
        assert_eq!(theirs.compare_exchange(8, 6, 9), Err(7));
        assert_eq!(theirs.compare_exchange(8, 7, 9), Ok(7));
        for length in [0, 1, 7, 8, 9, 100] {
            let bytes: Vec<u8> = (1..=length).collect();
            theirs.write_bytes(64, &bytes);
            let mut read = vec![0; bytes.len()];
            ours.read_bytes(64, &mut read);
            assert_eq!(read, bytes);
        }
    }

    /// Bytes of the mappings of a memfd of this name that are in the resident memory of this process.
    fn resident_bytes(name: &str) -> usize {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let file = format!("/memfd:{name} (deleted)");
        let kib =
            maps.lines().skip_while(|line| !line.ends_with(&file)).find_map(|line| line.strip_prefix("Rss:"));
        kib.unwrap().trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    }

    #[test]
    fn what_is_unloaded_is_not_resident_and_stays_in_the_file() {
        let (page, _fd) = SharedPage::create("unloaded", 1 << 20).unwrap();
        page.write_bytes(0, &vec![7; 1 << 20]);
        assert_eq!(resident_bytes("unloaded"), 1 << 20);
        page.unload(8..UNLOAD_UNIT_BYTES - 8).unwrap();
        assert_eq!(resident_bytes("unloaded"), 1 << 20, "no whole unit");
        page.unload(8..1 << 20).unwrap();
        assert_eq!(resident_bytes("unloaded"), UNLOAD_UNIT_BYTES);
        let mut read = vec![0; 1 << 20];
        page.read_bytes(0, &mut read);
        assert!(read == vec![7; 1 << 20]);
    }

    #[test]
    fn a_receiver_cannot_write_sealed_orders() {
        let (ours, fd) = SharedPage::create("orders", 4096).unwrap();
        SharedPage::seal_future_writes(fd.as_fd()).unwrap();
        assert_eq!(SharedPage::map_shared(fd.as_fd(), 4096).unwrap_err().raw_os_error(), Some(libc::EPERM));
        let theirs = SharedPage::map_read_only(fd.as_fd(), 4096).unwrap();
        ours.store(0, 3, Ordering::SeqCst);
        assert_eq!(theirs.load(0, Ordering::SeqCst), 3);
        // SAFETY: asks for a protection that the kernel must refuse; the mapping stays as it is.
        let result = unsafe { libc::mprotect(theirs.start.as_ptr().cast(), 4096, libc::PROT_WRITE) };
        assert_eq!(Errno::result(result), Err(Errno::EACCES));
        let file = File::from(fd);
        assert_eq!(file.write_at(b"x", 0).unwrap_err().raw_os_error(), Some(libc::EPERM));
        let reopened = File::options().write(true).open(format!("/proc/self/fd/{}", file.as_raw_fd()));
        assert_eq!(reopened.unwrap().write_at(b"x", 0).unwrap_err().raw_os_error(), Some(libc::EPERM));
        // SAFETY: asks for a hole that the kernel must refuse.
        let hole = unsafe {
            libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, 0, 4096)
        };
        assert_eq!(Errno::result(hole), Err(Errno::EPERM));
        assert_eq!(ours.load(0, Ordering::SeqCst), 3);
    }

    #[test]
    fn a_page_of_another_size_or_without_seals_is_refused() {
        let (_page, fd) = SharedPage::create("small", 4096).unwrap();
        assert_eq!(SharedPage::map_shared(fd.as_fd(), 8192).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        let file = File::from(memfd::create("unsealed").unwrap());
        file.set_len(4096).unwrap();
        assert_eq!(
            SharedPage::map_shared(file.as_fd(), 4096).unwrap_err().raw_os_error(),
            Some(libc::EINVAL)
        );
    }

    #[test]
    fn what_several_write_is_mapped_whole_and_nobody_can_seal_it() {
        let (ours, fd) = SharedPage::create_for_writers("written by several", 8192).unwrap();
        let theirs = SharedPage::map_for_writing(fd.as_fd()).unwrap();
        assert_eq!(theirs.length(), 8192);
        theirs.store(8184, 5, Ordering::Release);
        assert_eq!(ours.set_bits(8184, 1 << 63), 5);
        assert_eq!(theirs.load(8184, Ordering::Acquire), 1 << 63 | 5);
        let sealed = SharedPage::seal_future_writes(fd.as_fd()).unwrap_err();
        assert_eq!(sealed.raw_os_error(), Some(libc::EPERM));
        let loose = File::from(memfd::create("loose").unwrap());
        loose.set_len(4096).unwrap();
        for other in [loose, File::open("/dev/null").unwrap()] {
            assert_eq!(
                SharedPage::map_for_writing(other.as_fd()).unwrap_err().raw_os_error(),
                Some(libc::EINVAL)
            );
        }
    }

    #[test]
    fn nobody_can_shrink_it() {
        let (_page, fd) = SharedPage::create("fixed", 4096).unwrap();
        let file = File::from(fd);
        assert_eq!(file.set_len(0).unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert_eq!(file.set_len(1 << 20).unwrap_err().raw_os_error(), Some(libc::EPERM));
    }

    #[test]
    #[should_panic(expected = "for reading only")]
    fn a_store_into_a_read_only_page_is_a_bug() {
        let (_page, fd) = SharedPage::create("read only", 4096).unwrap();
        SharedPage::map_read_only(fd.as_fd(), 4096).unwrap().store(0, 1, Ordering::Relaxed);
    }

    #[test]
    #[should_panic(expected = "no words of the page")]
    fn an_access_beyond_the_end_is_a_bug() {
        let (page, _fd) = SharedPage::create("end", 4096).unwrap();
        page.read_bytes(4088, &mut [0; 9]);
    }
}
