//! Copies the content of one open file to another, in steps.
//!
//! Blocks are shared where the file system can (FICLONE); else the kernel copies (copy_file_range), and where it cannot,
//! bytes are read and written. Holes of the source stay holes, so a sparse file takes no more space than it had. Neither
//! file's offset moves: the source belongs to somebody else, who may be reading it. A step may block as long as either
//! file's disk does. Driven by the worker's `exec`.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{Whence, lseek};

/// Most bytes of one step. A disk takes some hundredths of a second for as many.
const STEP_BYTES: u64 = 8 << 20;
/// Bytes of one read.
const PIECE_BYTES: usize = 1 << 20;
/// The same of a sparse file that does not show its holes: as many zeroes in a row are left out.
const SPARSE_PIECE_BYTES: usize = 64 << 10;
/// The unit of `st_blocks`.
const BLOCK_BYTES: u64 = 512;

/// A copy that did not succeed.
#[derive(Debug)]
pub enum CopyError {
    /// The source cannot be read.
    Read(io::Error),
    /// The target cannot be written.
    Write(io::Error),
}

/// A copy that is being made.
#[derive(Debug)]
pub struct FileCopy<'a> {
    from: &'a File,
    to: &'a File,
    length: u64,
    is_sparse: bool,
    /// The source, opened anew, to ask where its holes are; `None` if it has none, or may not be opened.
    holes: Option<File>,
    at: u64,
    data_end: u64,
    piece: Vec<u8>,
}

impl<'a> FileCopy<'a> {
    /// A copy from one file to another, which must be empty.
    ///
    /// # Errors
    /// The source cannot be examined.
    pub fn new(from: &'a File, to: &'a File) -> io::Result<Self> {
        let found = from.metadata()?;
        let is_sparse = found.blocks().saturating_mul(BLOCK_BYTES) < found.len();
        // lseek(2) moves the offset of the open file, which others may share. A file that may not be opened again is
        // read through, and its zeroes are not written.
        let again = || File::open(format!("/proc/self/fd/{}", from.as_raw_fd())).ok();
        let holes = if is_sparse { again() } else { None };
        Ok(Self { from, to, length: found.len(), is_sparse, holes, at: 0, data_end: 0, piece: Vec::new() })
    }

    /// The length of the source when the copy began.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Shares all blocks, if the file system can. The copy is complete then.
    pub fn share(&self) -> bool {
        let (from, to) = (self.from.as_raw_fd(), self.to.as_raw_fd());
        // SAFETY: FICLONE takes two descriptors, which both files keep open.
        unsafe { libc::ioctl(to, libc::FICLONE, from) == 0 }
    }

    /// Copies the next bytes, at most `most`, and returns how many; holes do not count. `None`: nothing is left.
    ///
    /// # Errors
    /// [`CopyError`]; the target then has a part of the bytes.
    pub fn step(&mut self, most: u64) -> Result<Option<u64>, CopyError> {
        if self.at >= self.data_end && !self.find_data() {
            return self.end();
        }
        let bytes = most.min(STEP_BYTES).min(self.data_end - self.at);
        if let Some(copied) = self.by_kernel(bytes) {
            let copied = copied.map_err(CopyError::Write)?;
            self.at += copied;
            return Ok(Some(copied));
        }
        let (read, written) = self.by_hand(bytes)?;
        self.at += read;
        if read == 0 { self.end() } else { Ok(Some(written)) }
    }

    /// Gives the copy of a sparse file its whole length.
    fn end(&self) -> Result<Option<u64>, CopyError> {
        if self.is_sparse {
            self.to.set_len(self.length).map_err(CopyError::Write)?;
        }
        Ok(None)
    }

    /// Moves on to the next bytes that are no hole. `false`: there are none.
    fn find_data(&mut self) -> bool {
        let Some(file) = &self.holes else {
            self.data_end = u64::MAX;
            return true;
        };
        let seek = |at: u64, whence| {
            let at = libc::off_t::try_from(at).map_err(|_| Errno::EOVERFLOW)?;
            lseek(file, at, whence).map(|found| u64::try_from(found).unwrap_or(0))
        };
        match seek(self.at, Whence::SeekData) {
            Ok(start) => {
                self.at = start;
                // A file that shrinks meanwhile has no hole to be found; its end is then found by reading.
                self.data_end = seek(start, Whence::SeekHole).unwrap_or(u64::MAX);
                true
            }
            Err(Errno::ENXIO) => false,
            Err(_) => {
                self.holes = None;
                self.data_end = u64::MAX;
                true
            }
        }
    }

    /// `None`: it has to be done by hand, where an error shows which file it is of.
    fn by_kernel(&self, bytes: u64) -> Option<io::Result<u64>> {
        if self.is_sparse && self.holes.is_none() {
            return None;
        }
        let at = i64::try_from(self.at).ok()?;
        let (mut from_at, mut to_at) = (at, at);
        let bytes = usize::try_from(bytes).unwrap_or(PIECE_BYTES);
        let (from, to) = (self.from.as_raw_fd(), self.to.as_raw_fd());
        // SAFETY: both descriptors are open, and both offsets are valid and writable for the time of the call.
        let copied = unsafe { libc::copy_file_range(from, &raw mut from_at, to, &raw mut to_at, bytes, 0) };
        match Errno::result(copied) {
            // Files of /proc and of some network file systems end at once for this call.
            Ok(0) => None,
            Ok(count) => Some(Ok(u64::try_from(count).unwrap_or(0))),
            Err(error @ (Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG)) => Some(Err(error.into())),
            Err(_) => None,
        }
    }

    /// Returns how many bytes were read and written.
    fn by_hand(&mut self, bytes: u64) -> Result<(u64, u64), CopyError> {
        let hides_holes = self.is_sparse && self.holes.is_none();
        let most = if hides_holes { SPARSE_PIECE_BYTES } else { PIECE_BYTES };
        self.piece.resize(PIECE_BYTES, 0);
        let most = usize::try_from(bytes).map_or(most, |bytes| bytes.min(most));
        let count = loop {
            match self.from.read_at(&mut self.piece[..most], self.at) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read.map_err(CopyError::Read)?,
            }
        };
        let read = &self.piece[..count];
        if hides_holes && read.iter().all(|byte| *byte == 0) {
            return Ok((count as u64, 0));
        }
        self.to.write_all_at(read, self.at).map_err(CopyError::Write)?;
        Ok((count as u64, count as u64))
    }
}

/// An open file of its own for a descriptor that somebody else keeps.
///
/// # Errors
/// EMFILE, ENFILE: no more descriptors.
pub fn file_of(descriptor: BorrowedFd<'_>) -> io::Result<File> {
    descriptor.try_clone_to_owned().map(File::from)
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom};

    use super::*;

    fn copied(from: &File) -> (File, u64) {
        let to = tempfile::tempfile().unwrap();
        let bytes = run(&mut FileCopy::new(from, &to).unwrap());
        (to, bytes)
    }

    fn run(copy: &mut FileCopy<'_>) -> u64 {
        std::iter::from_fn(|| copy.step(u64::MAX).unwrap()).sum()
    }

    fn content(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn all_bytes_arrive_and_no_offset_moves() {
        let mut from = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..20_000_003_u32).map(|at| at.to_le_bytes()[(at % 3) as usize]).collect();
        from.write_all_at(&bytes, 0).unwrap();
        from.seek(SeekFrom::Start(5)).unwrap();
        let (to, count) = copied(&from);
        assert_eq!((content(&to) == bytes, count), (true, bytes.len() as u64));
        assert_eq!(from.stream_position().unwrap(), 5);
        let by_hand = File::open("/proc/self/status").unwrap();
        assert!(content(&copied(&by_hand).0).starts_with(b"Name:"));
        assert_eq!(copied(&tempfile::tempfile().unwrap()).1, 0);
    }

    #[test]
    fn holes_stay_holes_and_do_not_count() {
        let mut from = tempfile::tempfile().unwrap();
        from.write_all_at(b"begin", 0).unwrap();
        from.write_all_at(b"middle", 5 << 30).unwrap();
        from.set_len(1 << 40).unwrap();
        from.seek(SeekFrom::Start(5)).unwrap();
        let (to, count) = copied(&from);
        let found = to.metadata().unwrap();
        assert!(found.len() == 1 << 40 && found.blocks() * BLOCK_BYTES < 1 << 20 && count < 1 << 20);
        let mut piece = [0; 6];
        to.read_exact_at(&mut piece, 5 << 30).unwrap();
        assert_eq!((&piece, from.stream_position().unwrap()), (b"middle", 5));
    }

    /// As for a worker that got the descriptor of a file that it may not open.
    #[test]
    fn a_sparse_file_that_hides_its_holes_has_them_again() {
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        from.write_all_at(b"middle", 7_000_000).unwrap();
        from.set_len(20_000_001).unwrap();
        let mut copy = FileCopy::new(&from, &to).unwrap();
        copy.holes = None;
        assert!(run(&mut copy) <= 2 * SPARSE_PIECE_BYTES as u64);
        assert!(content(&from) == content(&to) && to.metadata().unwrap().blocks() * BLOCK_BYTES < 1 << 20);
    }

    #[test]
    fn the_file_that_fails_is_known() {
        let (from, folder) = (tempfile::tempfile().unwrap(), File::open("/").unwrap());
        from.write_all_at(b"x", 0).unwrap();
        let read_only = File::open("/dev/null").unwrap();
        assert!(matches!(FileCopy::new(&from, &read_only).unwrap().step(9), Err(CopyError::Write(_))));
        assert!(matches!(FileCopy::new(&folder, &from).unwrap().step(9), Err(CopyError::Read(_))));
    }
}
