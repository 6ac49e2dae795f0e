//! The wire format: bincode with a limit, and the only file that names it.
//!
//! Little endian, variable-length integers, and never more than [`DECODE_MAX_BYTES`] allocated for one value:
//! without a configured limit a hostile length makes bincode 2 panic. Decoding is strict: bytes left over are
//! an error, so that a peer that speaks another dialect is noticed at once.

use std::fmt;

pub use bincode::{BorrowDecode, Decode, Encode};

use crate::limits::DECODE_MAX_BYTES;

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<DECODE_MAX_BYTES>()
}

/// Why bytes are not the value they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CodecError {
    /// The bytes end early, hold an unknown variant, or claim more than the limit.
    Malformed(String),
    /// A whole value, and then more; the count of bytes left.
    Trailing(usize),
}

impl fmt::Display for CodecError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(why) => write!(out, "malformed message: {why}"),
            Self::Trailing(count) => write!(out, "malformed message: {count} bytes left over"),
        }
    }
}

impl std::error::Error for CodecError {}

/// Appends `value` to `into`.
///
/// # Panics
/// Never for the types of this crate: they hold nothing that bincode cannot encode, and a `Vec` takes it all.
pub fn encode_into<T: Encode>(value: &T, into: &mut Vec<u8>) {
    bincode::encode_into_std_write(value, into, config()).expect("a Vec takes every byte of a plain value");
}

/// `value` as bytes of its own.
pub fn encode<T: Encode>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    encode_into(value, &mut bytes);
    bytes
}

/// The value that all of `bytes` spell.
///
/// # Errors
/// [`CodecError`] if they spell none, or are not used up.
pub fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T, CodecError> {
    let (value, used) =
        bincode::decode_from_slice(bytes, config()).map_err(|why| CodecError::Malformed(why.to_string()))?;
    if used == bytes.len() { Ok(value) } else { Err(CodecError::Trailing(bytes.len() - used)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_length_is_an_error() {
        let mut bytes = vec![253]; // a 64-bit length follows
        bytes.extend_from_slice(&u64::MAX.to_le_bytes());
        assert!(matches!(decode::<Vec<u64>>(&bytes), Err(CodecError::Malformed(_))));
        assert!(matches!(decode::<Vec<u8>>(&bytes), Err(CodecError::Malformed(_))));
    }

    #[test]
    fn bytes_left_over_are_an_error() {
        let mut bytes = encode(&7_u32);
        bytes.push(0);
        assert_eq!(decode::<u32>(&bytes), Err(CodecError::Trailing(1)));
    }
}
