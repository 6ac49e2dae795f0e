//! The log of an attempt: standard output and error of a job, in a file of fixed size that a worker fills and clients read.
//!
//! The supervisor makes the file and never reads it. It has [`PLACES`] places of [`BLOCK_BYTES`] for blocks, which are
//! numbered from 0. The first [`HEAD`] blocks are never overwritten; the later ones use the other places in turn. The
//! writer clears a block's number before it reuses the place. All bytes come from a worker and may be hostile: readers
//! check every length, and must treat the contents as bytes of a stream and nothing else.
//!
//! | bytes of a block | what, little endian |
//! |---|---|
//! | 0..8 | number of the block plus 1; 0 while the place is being reused |
//! | 8..16 | bytes of both streams in all earlier blocks |
//! | 16..24 | bytes of the block in use, these 24 included |
//! | then | records: 8 bytes of wall time in microseconds, 2 of length, 1 of stream (0 output, 1 errors), the bytes |

use crate::codec::{Decode, Encode};

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 16 << 10;
/// How many blocks a log has room for.
pub const PLACES: u64 = 64;
/// How many blocks at the beginning are never overwritten.
pub const HEAD: u64 = 8;
/// Size of the file of a log, in bytes.
pub const LOG_BYTES: u64 = PLACES * BLOCK_BYTES as u64;
/// Bytes of a block before its first record.
const BLOCK_HEAD: usize = 24;
/// Bytes of a record before its contents.
const RECORD_HEAD: usize = 11;

/// Block numbers are below this; a higher one in the file is ignored.
const NUMBER_MAX: u64 = 1 << 60;

const _: () = assert!(HEAD < PLACES && BLOCK_BYTES <= u16::MAX as usize);

/// The stream that a program writes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum LogStream {
    /// Standard output.
    #[default]
    Out,
    /// Standard error.
    Err,
}

/// One record of a log: bytes that were written together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// When, in microseconds since 1970.
    pub wall_us: u64,
    /// The stream.
    pub stream: LogStream,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// The offset of a block in the file, in bytes.
pub fn place_of(block: u64) -> u64 {
    let place = if block < HEAD { block } else { HEAD + (block - HEAD) % (PLACES - HEAD) };
    place * BLOCK_BYTES as u64
}

/// Lays out the blocks of a log. It does no I/O: its caller writes each [`Write`] into the file.
#[derive(Debug)]
pub struct LogWriter {
    number: u64,
    before: u64,
    block: Vec<u8>,
    /// Bytes of records in the block.
    held: u64,
    /// Bytes of the block that are in the file.
    written: usize,
}

/// Bytes for the caller to write into the file: first the records, then the head that counts them.
#[derive(Debug, PartialEq, Eq)]
pub struct Write<'a> {
    /// Whether the place held an older block: the caller then fills the head with zeros first.
    pub is_reused: bool,
    /// The offset of the block in the file.
    pub at: u64,
    /// The offset of the records in the block, and the records.
    pub records: (usize, &'a [u8]),
    /// The head of the block.
    pub head: [u8; BLOCK_HEAD],
}

impl Default for LogWriter {
    fn default() -> Self {
        Self { number: 0, before: 0, block: vec![0; BLOCK_HEAD], held: 0, written: BLOCK_HEAD }
    }
}

impl LogWriter {
    /// Appends `bytes` to the log, in several records where they do not fit one block, and calls `put` for each piece.
    ///
    /// # Errors
    /// The first error of `put`.
    pub fn add<E>(
        &mut self,
        wall_us: u64,
        stream: LogStream,
        mut bytes: &[u8],
        mut put: impl FnMut(Write<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        while !bytes.is_empty() {
            // With little room left in the block, a record would be mostly head.
            let mut room = BLOCK_BYTES.saturating_sub(self.block.len() + RECORD_HEAD);
            if room < bytes.len().min(256) {
                self.next_block();
                room = BLOCK_BYTES - BLOCK_HEAD - RECORD_HEAD;
            }
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.block.extend_from_slice(&wall_us.to_le_bytes());
            self.block.extend_from_slice(&u16::try_from(now.len()).unwrap_or(u16::MAX).to_le_bytes());
            self.block.push(stream as u8);
            self.block.extend_from_slice(now);
            self.held += now.len() as u64;
            put(self.write())?;
            self.written = self.block.len();
            bytes = later;
        }
        Ok(())
    }

    fn next_block(&mut self) {
        self.number += 1;
        self.before += self.held;
        self.held = 0;
        self.block.truncate(BLOCK_HEAD);
        self.written = BLOCK_HEAD;
    }

    fn write(&self) -> Write<'_> {
        let mut head = [0; BLOCK_HEAD];
        let words = [self.number + 1, self.before, self.block.len() as u64];
        for (place, word) in words.into_iter().enumerate() {
            head[8 * place..][..8].copy_from_slice(&word.to_le_bytes());
        }
        Write {
            is_reused: self.number >= PLACES && self.written == BLOCK_HEAD,
            at: place_of(self.number),
            records: (self.written, &self.block[self.written..]),
            head,
        }
    }
}

/// Reads a log while a worker writes it: each [`LogReader::read`] gives the new records, and how much was overwritten
/// unread.
#[derive(Debug)]
pub struct LogReader {
    number: u64,
    /// Bytes of the block that were read.
    read: usize,
    /// Bytes of both streams that were read or are known to be dropped.
    passed: u64,
}

/// One thing that a [`LogReader`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogFound {
    /// A record.
    Entry(LogEntry),
    /// This many bytes were written here and have been overwritten.
    Dropped(u64),
}

impl Default for LogReader {
    fn default() -> Self {
        Self { number: 0, read: BLOCK_HEAD, passed: 0 }
    }
}

impl LogReader {
    /// Calls `each` for everything new. `load` reads from this offset of the file until the slice is full.
    ///
    /// # Errors
    /// The first error of `load` or `each`.
    pub fn read<E>(
        &mut self,
        mut load: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
        mut each: impl FnMut(LogFound) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut block = vec![0; BLOCK_BYTES];
        // The bound: a worker that writes faster than this loop reads, or writes nonsense, cannot keep it here.
        for _ in 0..2 * PLACES {
            // The number of the next block is read before this block: once the next is begun, this one is complete.
            let mut next = [0; 8];
            load(place_of(self.number + 1), &mut next)?;
            let is_full = u64::from_le_bytes(next) >= self.number + 2;
            load(place_of(self.number), &mut block)?;
            let number = word(&block, 0);
            if number > self.number + 1 && number < NUMBER_MAX {
                // The oldest block that cannot have been overwritten yet.
                self.go_to((number - 1).saturating_sub(PLACES - HEAD - 1).max(self.number + 1));
                continue;
            }
            if number != self.number + 1 {
                return Ok(());
            }
            // If the place was reused during the copy, the copy is torn.
            load(place_of(self.number), &mut next)?;
            if u64::from_le_bytes(next) != number {
                continue;
            }
            self.take(&block, &mut each)?;
            if !is_full {
                return Ok(());
            }
            self.go_to(self.number + 1);
        }
        Ok(())
    }

    /// Calls `each` for the new records of a block, and before them for the bytes that are missing.
    fn take<E>(&mut self, block: &[u8], each: &mut impl FnMut(LogFound) -> Result<(), E>) -> Result<(), E> {
        let (before, used) = (word(block, 8), word(block, 16));
        let used = usize::try_from(used).unwrap_or(usize::MAX).clamp(self.read, BLOCK_BYTES);
        if self.read == BLOCK_HEAD && before > self.passed {
            each(LogFound::Dropped(before - self.passed))?;
            self.passed = before;
        }
        for entry in entries(&block[self.read..used]) {
            self.passed = self.passed.saturating_add(entry.bytes.len() as u64);
            each(LogFound::Entry(entry))?;
        }
        self.read = used;
        Ok(())
    }

    fn go_to(&mut self, number: u64) {
        self.number = number;
        self.read = BLOCK_HEAD;
    }
}

fn word(block: &[u8], at: usize) -> u64 {
    block[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// The records in these bytes, up to the first that is cut off.
fn entries(mut bytes: &[u8]) -> Vec<LogEntry> {
    let mut entries = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(RECORD_HEAD) {
        let length = usize::from(u16::from_le_bytes([head[8], head[9]]));
        let Some((written, rest)) = rest.split_at_checked(length) else { break };
        let stream = if head[10] == LogStream::Err as u8 { LogStream::Err } else { LogStream::Out };
        entries.push(LogEntry { wall_us: word(head, 0), stream, bytes: written.to_vec() });
        bytes = rest;
    }
    entries
}

#[cfg(test)]
mod tests;
