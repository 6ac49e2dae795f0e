//! Frames on the client socket: a four-byte little-endian length, then that many bytes of one message.
//!
//! The supervisor and the client library feed [`Frames`] with the bytes that they have read, and take whole messages from
//! it; nothing here does I/O. A length over [`FRAME_MAX_BYTES`] is refused as soon as it is read. In both directions a
//! connection begins with a [`Hello`], whose layout must never change: so two versions can always see that they differ.

use std::fmt;

use crate::codec::{self, Encode};
use crate::limits::{FRAME_MAX_BYTES, PROTOCOL_VERSION};

const LENGTH_BYTES: usize = 4;
/// A buffer with a larger capacity is freed once it is empty.
const ROOMY_BYTES: usize = 4 << 10;
const MAGIC: [u8; 8] = *b"BULKHEAD";

/// The first bytes in each direction: magic, protocol version, and the daemon's verdict (zero from a client).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The sender's [`PROTOCOL_VERSION`].
    pub version: u32,
    /// The daemon's answer to the connection, such as [`Hello::WELCOME`].
    pub verdict: u32,
}

impl Hello {
    /// Its length in bytes.
    pub const BYTES: usize = 16;
    /// Verdict: the connection is served.
    pub const WELCOME: u32 = 0;
    /// Verdict: the client's version is not the daemon's.
    pub const WRONG_VERSION: u32 = 1;
    /// Verdict: too many connections. A frame with [`Reply::Goodbye`](crate::client::message::Reply::Goodbye) follows, which
    /// names the bound.
    pub const BUSY: u32 = 2;
    /// Verdict: this user may not use the daemon.
    pub const DENIED: u32 = 3;

    /// The hello of this build, with a verdict.
    pub fn new(verdict: u32) -> Self {
        Self { version: PROTOCOL_VERSION, verdict }
    }

    /// The bytes to send.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.version.to_le_bytes());
        bytes[12..].copy_from_slice(&self.verdict.to_le_bytes());
        bytes
    }

    /// Decodes a hello; `None` if it does not begin with our magic.
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<8>()?;
        let (version, rest) = rest.split_first_chunk::<4>()?;
        let verdict = rest.first_chunk::<4>()?;
        (*magic == MAGIC)
            .then(|| Self { version: u32::from_le_bytes(*version), verdict: u32::from_le_bytes(*verdict) })
    }
}

/// A frame whose length is over [`FRAME_MAX_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Oversized {
    /// The length in its prefix, in bytes.
    pub claimed: usize,
}

impl fmt::Display for Oversized {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "frame of {} bytes is over the limit of {FRAME_MAX_BYTES} bytes", self.claimed)
    }
}

impl std::error::Error for Oversized {}

/// Appends `message` as one frame to `into`.
///
/// # Errors
/// [`Oversized`] if it does not fit a frame; `into` is then unchanged.
pub fn push_frame<T: Encode>(message: &T, into: &mut Vec<u8>) -> Result<(), Oversized> {
    let start = into.len();
    into.extend_from_slice(&[0; LENGTH_BYTES]);
    codec::encode_into(message, into);
    let claimed = into.len() - start - LENGTH_BYTES;
    if claimed > FRAME_MAX_BYTES {
        into.truncate(start);
        return Err(Oversized { claimed });
    }
    let length = u32::try_from(claimed).expect("FRAME_MAX_BYTES fits 32 bits");
    into[start..start + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

/// Cuts a stream of bytes into frames. Its buffer holds at most one frame and the bytes of one read after it.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: Vec<u8>,
    start: usize,
}

impl Frames {
    /// Appends bytes that were read from the stream.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        // Exactly what was read: half of a long frame takes no more memory than that half.
        self.buffer.reserve_exact(bytes.len());
        self.buffer.extend_from_slice(bytes);
    }

    /// The capacity of its buffer, in bytes.
    pub fn held_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    fn tidy(&mut self) {
        if self.start == self.buffer.len() && self.buffer.capacity() > ROOMY_BYTES {
            *self = Self::default();
        }
    }

    /// The bytes of the next whole message; `None` if more must be fed first.
    ///
    /// # Errors
    /// [`Oversized`] if the next length prefix is over the limit; no later frame of the stream can be read.
    pub fn next_frame(&mut self) -> Result<Option<&[u8]>, Oversized> {
        let Some((prefix, rest)) = self.buffer[self.start..].split_first_chunk::<LENGTH_BYTES>() else {
            self.tidy();
            return Ok(None);
        };
        let claimed = u32::from_le_bytes(*prefix) as usize;
        if claimed > FRAME_MAX_BYTES {
            return Err(Oversized { claimed });
        }
        if rest.len() < claimed {
            return Ok(None);
        }
        let begin = self.start + LENGTH_BYTES;
        self.start = begin + claimed;
        Ok(Some(&self.buffer[begin..self.start]))
    }

    /// Whether it holds a part of a frame: a stream that ends now ends within a frame.
    pub fn is_partial(&self) -> bool {
        self.start < self.buffer.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_whole_however_the_stream_is_cut() {
        let mut stream = Vec::new();
        for number in 0..50_u64 {
            push_frame(&vec![number; number as usize], &mut stream).unwrap();
        }
        for cut in [1, 2, 3, 7, 64, stream.len()] {
            let mut frames = Frames::default();
            let mut seen = 0_u64;
            for piece in stream.chunks(cut) {
                frames.feed(piece);
                while let Some(bytes) = frames.next_frame().unwrap() {
                    assert_eq!(codec::decode::<Vec<u64>>(bytes).unwrap(), vec![seen; seen as usize]);
                    seen += 1;
                }
            }
            assert_eq!(seen, 50, "cut={cut}");
            assert!(!frames.is_partial());
        }
    }

    #[test]
    fn memory_is_held_for_what_came_and_given_back_when_it_is_used() {
        let mut stream = Vec::new();
        push_frame(&vec![7_u8; FRAME_MAX_BYTES / 2], &mut stream).unwrap();
        let mut frames = Frames::default();
        let (first, last) = stream.split_at(100_000);
        frames.feed(first);
        assert_eq!(frames.next_frame(), Ok(None));
        assert!((first.len()..first.len() + 4096).contains(&frames.held_bytes()), "{}", frames.held_bytes());
        frames.feed(last);
        assert!(frames.next_frame().unwrap().is_some());
        assert_eq!(frames.next_frame(), Ok(None));
        assert_eq!(frames.held_bytes(), 0);
        // A client that is idle keeps no more than a short buffer.
        let mut stream = Vec::new();
        push_frame(&vec![7_u8; ROOMY_BYTES], &mut stream).unwrap();
        frames.feed(&stream);
        assert!(frames.next_frame().unwrap().is_some());
        assert_eq!(frames.next_frame(), Ok(None));
        assert_eq!(frames.held_bytes(), 0);
    }

    #[test]
    fn an_oversized_claim_is_refused_from_its_prefix_alone() {
        let mut frames = Frames::default();
        frames.feed(&u32::MAX.to_le_bytes());
        assert_eq!(frames.next_frame(), Err(Oversized { claimed: u32::MAX as usize }));
    }

    #[test]
    fn an_oversized_message_is_not_sent() {
        let mut into = vec![1, 2, 3];
        assert!(push_frame(&vec![0_u8; FRAME_MAX_BYTES + 1], &mut into).is_err());
        assert_eq!(into, [1, 2, 3]);
    }

    #[test]
    fn hello_survives_the_wire_and_refuses_another_magic() {
        let hello = Hello { version: 9, verdict: Hello::BUSY };
        assert_eq!(Hello::from_bytes(&hello.to_bytes()), Some(hello));
        assert_eq!(Hello::from_bytes(b"GET / HTTP/1.1\r\n"), None);
    }
}
