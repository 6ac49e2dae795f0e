//! The wire format: bincode with a limit, and the only file that names it.
//!
//! Clients, supervisor and workers encode and decode every message with these functions. Integers are little endian
//! and of variable length. Decoding never allocates more than [`DECODE_MAX_BYTES`] for one value: without this limit
//! bincode 2 panics on a hostile length. Bytes left over after a value are an error, so a peer with another version
//! of a type is noticed at once.

use std::fmt;

use bincode::de::Decoder;
use bincode::de::read::Reader;
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
pub use bincode::{BorrowDecode, Decode, Encode};

use crate::job::Payload;
use crate::limits::DECODE_MAX_BYTES;

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<DECODE_MAX_BYTES>()
}

/// Why bytes are not the value they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CodecError {
    /// The bytes end early, hold an unknown variant, or claim more than the limit.
    Malformed(String),
    /// Bytes follow the value; how many.
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
/// Never for the types of this crate: bincode can encode all of them, and writing to a `Vec` cannot fail.
pub fn encode_into<T: Encode>(value: &T, into: &mut Vec<u8>) {
    bincode::encode_into_std_write(value, into, config()).expect("a Vec takes every byte of a plain value");
}

/// Encodes `value` into a new `Vec`.
pub fn encode<T: Encode>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(64);
    encode_into(value, &mut bytes);
    bytes
}

/// Decodes one value, which must use up all of `bytes`.
///
/// # Errors
/// [`CodecError`] if `bytes` are not such a value, or some are left over.
pub fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T, CodecError> {
    let (value, used) =
        bincode::decode_from_slice(bytes, config()).map_err(|why| CodecError::Malformed(why.to_string()))?;
    if used == bytes.len() { Ok(value) } else { Err(CodecError::Trailing(bytes.len() - used)) }
}

/// The same bytes as a `Vec<u8>`: the length, then the bytes.
impl Encode for Payload {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.as_bytes().encode(encoder)
    }
}

impl<Context> Decode<Context> for Payload {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let length = u64::decode(decoder)?;
        let length = usize::try_from(length).map_err(|_| DecodeError::OutsideUsizeRange(length))?;
        // The length may be hostile: the limit is checked before anything is allocated.
        decoder.claim_container_read::<u8>(length)?;
        let mut payload = Self::zeroed(length);
        decoder.reader().read(payload.as_bytes_mut())?;
        Ok(payload)
    }
}

bincode::impl_borrow_decode!(Payload);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_length_is_an_error() {
        let mut bytes = vec![253]; // a 64-bit length follows
        bytes.extend_from_slice(&u64::MAX.to_le_bytes());
        assert!(matches!(decode::<Vec<u64>>(&bytes), Err(CodecError::Malformed(_))));
        assert!(matches!(decode::<Payload>(&bytes), Err(CodecError::Malformed(_))));
    }

    #[test]
    fn a_payload_of_any_length_is_a_vec_on_the_wire() {
        for length in [0, 1, 15, 16, 17, 250, 251, 4096, 70_000] {
            let bytes: Vec<u8> = (0..length).map(|at| at as u8).collect();
            let payload = Payload::from(bytes.clone());
            assert_eq!(payload.as_bytes(), bytes);
            let wire = encode(&payload);
            assert_eq!(wire, encode(&bytes));
            let back: Payload = decode(&wire).unwrap();
            assert_eq!((back.as_bytes(), &back.clone()), (&bytes[..], &payload));
            assert_eq!(Vec::from(back), bytes);
            assert!(length == 0 || decode::<Payload>(&wire[..wire.len() - 1]).is_err());
        }
    }

    #[test]
    fn bytes_left_over_are_an_error() {
        let mut bytes = encode(&7_u32);
        bytes.push(0);
        assert_eq!(decode::<u32>(&bytes), Err(CodecError::Trailing(1)));
    }
}
