//! The key of a submit, which names a repeated submit, and the digest, which differs if the same key comes with another job.
//!
//! A key belongs to the user who sent it. Both are compared and stored, and nothing else is done with them.

use std::fmt;

use bulkhead_proto::codec;
use bulkhead_proto::job::{Payload, Policy};
use bulkhead_proto::limits::KEY_MAX_BYTES;
use sha2::{Digest, Sha256};

/// Bytes of a digest.
pub const DIGEST_BYTES: usize = 32;

/// A user's name for one submit: 1 to [`KEY_MAX_BYTES`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SubmitKey(Box<[u8]>);

/// A key that is empty or too long; its length in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadKey(pub usize);

impl fmt::Display for BadKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "a key of {} bytes is not from 1 to {KEY_MAX_BYTES} bytes long", self.0)
    }
}

impl std::error::Error for BadKey {}

impl SubmitKey {
    /// The key of these bytes.
    ///
    /// # Errors
    /// [`BadKey`] if there are none, or too many.
    pub fn new(bytes: &[u8]) -> Result<Self, BadKey> {
        if (1..=KEY_MAX_BYTES).contains(&bytes.len()) {
            Ok(Self(bytes.into()))
        } else {
            Err(BadKey(bytes.len()))
        }
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What a submit asked for, as a SHA-256: two submits with one key are the same if their digests are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubmitDigest(pub [u8; DIGEST_BYTES]);

impl SubmitDigest {
    /// The digest of a submit: its kind, flavour and policy, and the inputs of its jobs in their order. A version of Bulkhead that
    /// changes the fields of a policy makes other digests.
    pub fn of<'a>(
        kind: &str,
        flavour: u32,
        policy: &Policy,
        inputs: impl IntoIterator<Item = &'a Payload>,
    ) -> Self {
        let mut sum = Sha256::new();
        let mut add = |bytes: &[u8]| {
            sum.update((bytes.len() as u64).to_le_bytes());
            sum.update(bytes);
        };
        add(kind.as_bytes());
        add(&flavour.to_le_bytes());
        add(&codec::encode(policy));
        inputs.into_iter().for_each(|input| add(input.as_bytes()));
        Self(sum.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_a_length() {
        assert_eq!(SubmitKey::new(b"").unwrap_err(), BadKey(0));
        assert_eq!(SubmitKey::new(&[7; KEY_MAX_BYTES]).unwrap().as_bytes().len(), KEY_MAX_BYTES);
        let error = SubmitKey::new(&[7; KEY_MAX_BYTES + 1]).unwrap_err();
        assert_eq!(error.to_string(), "a key of 129 bytes is not from 1 to 128 bytes long");
    }

    #[test]
    fn whatever_differs_shows_in_the_digest() {
        let inputs =
            |all: &[&str]| all.iter().map(|one| Payload::from(one.as_bytes().to_vec())).collect::<Vec<_>>();
        let policy = Policy::default();
        let of = |kind, flavour, policy: &Policy, all: &[&str]| {
            SubmitDigest::of(kind, flavour, policy, &inputs(all))
        };
        let first = of("a", 0, &policy, &["x", "yz"]);
        assert_eq!(first, of("a", 0, &policy, &["x", "yz"]));
        let urgent = Policy { priority: 9, ..Policy::default() };
        for other in [
            of("b", 0, &policy, &["x", "yz"]),
            of("a", 1, &policy, &["x", "yz"]),
            of("a", 0, &urgent, &["x", "yz"]),
            of("a", 0, &policy, &["xy", "z"]),
            of("a", 0, &policy, &["yz", "x"]),
            of("a", 0, &policy, &["x", "yz", ""]),
        ] {
            assert_ne!(first, other);
        }
    }
}
