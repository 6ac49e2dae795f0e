//! The message type of the ipc-channel: one byte string, which the library does not interpret.
//!
//! It is serialised by `serialize_bytes`. A plain `Vec<u8>` would be serialised as a sequence of numbers, ten times
//! slower.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

/// An encoded message. A received one is copied out, because the library's buffer for one message has 200 KiB.
#[derive(Debug)]
pub(crate) struct Wire(pub(crate) Vec<u8>);

impl Serialize for Wire {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Wire {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(Bytes)
    }
}

struct Bytes;

impl Visitor<'_> for Bytes {
    type Value = Wire;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Wire, E> {
        Ok(Wire(bytes.to_vec()))
    }
}
