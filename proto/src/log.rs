//! The log of a job: what it writes while it runs, in a file of fixed size that its worker fills and clients read.
//!
//! The supervisor makes one for each attempt and never reads it. It has [`PLACES`] places of [`BLOCK_BYTES`]. Blocks are
//! numbered from 0; the first [`HEAD`] keep their places, so that how it began is never lost, and the later ones go round
//! the other places, so that the latest are always there. A block is whole when its number stands in it, and the number
//! is taken out before its place is filled anew. Whatever a reader finds was written by a worker and may be hostile: it
//! is bounded, checked, and bytes of a stream, no more.
//!
//! | bytes of a block | what, little endian |
//! |---|---|
//! | 0..8 | its number and 1; 0 while it is being filled |
//! | 8..16 | bytes of both streams that came before it |
//! | 16..24 | bytes of it that are used, these 24 included |
//! | then | records: 8 bytes of wall time in microseconds, 2 of length, 1 of stream (0 output, 1 errors), the bytes |

use crate::codec::{Decode, Encode};

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 16 << 10;
/// Blocks that a log has room for.
pub const PLACES: u64 = 64;
/// Blocks at its beginning that stay.
pub const HEAD: u64 = 8;
/// Size of a log.
pub const LOG_BYTES: u64 = PLACES * BLOCK_BYTES as u64;
/// Bytes of a block before its first record.
const BLOCK_HEAD: usize = 24;
/// Bytes of a record before what was written.
const RECORD_HEAD: usize = 11;

/// No block has a number as high as this.
const NUMBER_MAX: u64 = 1 << 60;

const _: () = assert!(HEAD < PLACES && BLOCK_BYTES <= u16::MAX as usize);

/// What a program writes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum LogStream {
    /// Standard output.
    #[default]
    Out,
    /// Standard error.
    Err,
}

/// Something that was written at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Microseconds since 1970.
    pub wall_us: u64,
    /// Where to.
    pub stream: LogStream,
    /// What.
    pub bytes: Vec<u8>,
}

/// Where a block begins in the file.
pub fn place_of(block: u64) -> u64 {
    let place = if block < HEAD { block } else { HEAD + (block - HEAD) % (PLACES - HEAD) };
    place * BLOCK_BYTES as u64
}

/// Fills blocks; whoever drives it writes what it gives.
#[derive(Debug)]
pub struct Writer {
    number: u64,
    before: u64,
    block: Vec<u8>,
    /// Bytes of records in the block.
    held: u64,
    /// Bytes of the block that are in the file.
    written: usize,
}

/// What is to be written, in this order: the bytes first, then the head that speaks of them.
#[derive(Debug, PartialEq, Eq)]
pub struct Write<'a> {
    /// Whether the place held another block: its head is to be filled with zeros before anything else.
    pub is_reused: bool,
    /// Where the block begins.
    pub at: u64,
    /// Records, and where they begin in the block.
    pub records: (usize, &'a [u8]),
    /// The head of the block.
    pub head: [u8; BLOCK_HEAD],
}

impl Default for Writer {
    fn default() -> Self {
        Self { number: 0, before: 0, block: vec![0; BLOCK_HEAD], held: 0, written: BLOCK_HEAD }
    }
}

impl Writer {
    /// Adds `bytes`, cut into records where they do not fit a block, and hands over each piece that is to be written.
    ///
    /// # Errors
    /// That of `put`.
    pub fn add<E>(
        &mut self,
        wall_us: u64,
        stream: LogStream,
        mut bytes: &[u8],
        mut put: impl FnMut(Write<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        while !bytes.is_empty() {
            // A record of a few bytes at the end of a block would be mostly head.
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

/// Reads a log while it is written: what is new since it was last asked, and how much was dropped before that.
#[derive(Debug)]
pub struct Reader {
    number: u64,
    /// Bytes of the block that were read.
    read: usize,
    /// Bytes of both streams that were read or are known to be dropped.
    passed: u64,
}

/// What a look at a log brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Something that was written.
    Entry(Entry),
    /// So many bytes were written here and are not kept.
    Dropped(u64),
}

impl Default for Reader {
    fn default() -> Self {
        Self { number: 0, read: BLOCK_HEAD, passed: 0 }
    }
}

impl Reader {
    /// Hands everything new to `each`. `load` reads a block from this place of the file.
    ///
    /// # Errors
    /// Those of `load` and `each`.
    pub fn read<E>(
        &mut self,
        mut load: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
        mut each: impl FnMut(Found) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut block = vec![0; BLOCK_BYTES];
        // Whoever writes faster than this reads, or nonsense, holds it up for one round and no longer.
        for _ in 0..2 * PLACES {
            // Asked before this one is read: once the next is begun, this one stays as it is.
            let mut next = [0; 8];
            load(place_of(self.number + 1), &mut next)?;
            let is_full = u64::from_le_bytes(next) >= self.number + 2;
            load(place_of(self.number), &mut block)?;
            let number = word(&block, 0);
            if number > self.number + 1 && number < NUMBER_MAX {
                // The oldest block that can still be there.
                self.go_to((number - 1).saturating_sub(PLACES - HEAD - 1).max(self.number + 1));
                continue;
            }
            if number != self.number + 1 {
                return Ok(());
            }
            // What is filled anew while it was copied is torn.
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

    /// What is new in a block, and what is missing before it.
    fn take<E>(&mut self, block: &[u8], each: &mut impl FnMut(Found) -> Result<(), E>) -> Result<(), E> {
        let (before, used) = (word(block, 8), word(block, 16));
        let used = usize::try_from(used).unwrap_or(usize::MAX).clamp(self.read, BLOCK_BYTES);
        if self.read == BLOCK_HEAD && before > self.passed {
            each(Found::Dropped(before - self.passed))?;
            self.passed = before;
        }
        for entry in entries(&block[self.read..used]) {
            self.passed = self.passed.saturating_add(entry.bytes.len() as u64);
            each(Found::Entry(entry))?;
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

/// The records in these bytes, as far as they make sense.
fn entries(mut bytes: &[u8]) -> Vec<Entry> {
    let mut entries = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(RECORD_HEAD) {
        let length = usize::from(u16::from_le_bytes([head[8], head[9]]));
        let Some((written, rest)) = rest.split_at_checked(length) else { break };
        let stream = if head[10] == LogStream::Err as u8 { LogStream::Err } else { LogStream::Out };
        entries.push(Entry { wall_us: word(head, 0), stream, bytes: written.to_vec() });
        bytes = rest;
    }
    entries
}

#[cfg(test)]
mod tests;
