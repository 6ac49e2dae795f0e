//! Registrations: what a connection registers once, and each worker gets before its first task that names it.
//!
//! A client registers under a number of its own. The supervisor passes descriptors and bytes on to workers, and never maps or
//! reads a descriptor. Only the worker that uses a registration checks what it refers to, and a fault in it fails the task
//! that names it and no other. Every field comes from a client and may be hostile.

use crate::codec::{Decode, Encode};

/// What a registration is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum RegistrationKind {
    /// Memory for inputs: one memfd of the client's, sealed against shrinking, growing and future writes
    /// (F_SEAL_FUTURE_WRITE), which workers map for reading. A job that names it has an [`ArenaBlock`] as its input. A
    /// daemon of several users refuses it.
    Arena,
    /// Descriptors that tasks use as they are. No code of the worker is called for them.
    Files,
    /// Bytes and descriptors, which the loader of the worker program loads as a part of the first task that names them: an
    /// initializer, large functions. They may be code, so a daemon of several users refuses them.
    Context,
}

/// The place of an input in an arena. Its bytes are the inline input of the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArenaBlock {
    /// Where it begins, in bytes from the start of the arena; a multiple of [`ArenaBlock::ALIGNMENT`].
    pub offset: u64,
    /// How long it is, in bytes.
    pub length: u64,
}

impl ArenaBlock {
    /// Blocks begin at a multiple of this many bytes.
    pub const ALIGNMENT: u64 = 64;
    /// The length of an encoded place, in bytes.
    pub const BYTES: usize = 16;

    /// The place as an input: offset and length, little-endian.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.offset.to_le_bytes());
        bytes[8..].copy_from_slice(&self.length.to_le_bytes());
        bytes
    }

    /// The place in an arena of so many bytes that an input gives.
    ///
    /// # Errors
    /// What is wrong with it, as a text for people: it has another length, is not aligned, or is not inside the arena.
    pub fn read(input: &[u8], arena_bytes: u64) -> Result<Self, String> {
        let Some((offset, length)) = input.split_first_chunk().and_then(|(offset, rest)| {
            let length: [u8; 8] = rest.try_into().ok()?;
            Some((u64::from_le_bytes(*offset), u64::from_le_bytes(length)))
        }) else {
            let (wanted, came) = (Self::BYTES, input.len());
            return Err(format!(
                "an input in an arena is {wanted} bytes that give its place, and {came} came"
            ));
        };
        if !offset.is_multiple_of(Self::ALIGNMENT) {
            let alignment = Self::ALIGNMENT;
            return Err(format!(
                "the input begins at byte {offset} of its arena, not at a multiple of {alignment}"
            ));
        }
        if offset.checked_add(length).is_none_or(|end| end > arena_bytes) {
            return Err(format!(
                "the input is {length} bytes from byte {offset} of an arena of {arena_bytes} bytes: it is not inside"
            ));
        }
        Ok(Self { offset, length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written_or_its_fault_is_named() {
        let block = ArenaBlock { offset: 128, length: 70 };
        assert_eq!(ArenaBlock::read(&block.to_bytes(), 198), Ok(block));
        let wrong = |offset, length, size| {
            ArenaBlock::read(&ArenaBlock { offset, length }.to_bytes(), size).unwrap_err()
        };
        assert!(wrong(128, 70, 197).contains("70 bytes from byte 128 of an arena of 197 bytes"));
        assert!(wrong(u64::MAX - 63, 64, u64::MAX).contains("not inside"), "a sum that overflows");
        assert!(wrong(0, u64::MAX, 4096).contains("not inside"));
        assert!(wrong(8, 8, 4096).contains("not at a multiple of 64"));
        for short in [&b""[..], &[0; 15], &[0; 17]] {
            assert!(ArenaBlock::read(short, 4096).unwrap_err().contains("16 bytes"), "{short:?}");
        }
    }
}
