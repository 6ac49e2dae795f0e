//! For tests: a file in memory with positioned reads and writes, and a clip of noise.
//!
//! It exists only in test builds.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::RwLock;

use crate::header::Header;

/// A file in memory; it grows as it is written.
#[derive(Debug, Default)]
pub(crate) struct MemoryClip {
    pub(crate) contents: RwLock<Vec<u8>>,
    /// Writes beyond this length fail.
    pub(crate) room: Option<u64>,
}

impl MemoryClip {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { contents: RwLock::new(bytes.to_vec()), room: None }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.contents.read().unwrap().clone()
    }

    pub(crate) fn truncate(&self, length: usize) {
        self.contents.write().unwrap().truncate(length);
    }
}

impl FileExt for MemoryClip {
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let bytes = self.contents.read().unwrap();
        let rest = bytes.get(at as usize..).unwrap_or_default();
        // Returns at most 1000 bytes at once, because a file may return fewer bytes than asked for.
        let count = rest.len().min(into.len()).min(1000);
        into[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, from: &[u8], at: u64) -> io::Result<usize> {
        let end = at + from.len() as u64;
        if self.room.is_some_and(|room| end > room) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let mut bytes = self.contents.write().unwrap();
        let length = bytes.len().max(end as usize);
        bytes.resize(length, 0);
        bytes[at as usize..end as usize].copy_from_slice(from);
        Ok(from.len())
    }
}

/// A clip of noise with this header (without its first word) and these FRAME lines.
pub(crate) fn clip(header: &str, lines: &[&str]) -> Vec<u8> {
    let line = format!("YUV4MPEG2 {header}\n");
    let shape = Header::parse(line.trim_end().as_bytes()).unwrap().shape;
    let mut clip = line.into_bytes();
    let mut state = 1_u32;
    for line in lines {
        clip.extend_from_slice(format!("FRAME{line}\n").as_bytes());
        for _ in 0..shape.bytes() {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            clip.push((state >> 24) as u8);
        }
    }
    clip
}
