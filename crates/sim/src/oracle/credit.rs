//! Credit: the bytes that may be on their way to a client that does not read.
//!
//! Streams (ends, records) stop when the credit is used up. Answers do not: the shell stops reading a client that has too
//! much unread.

/// Bytes on their way to one client.
#[derive(Debug, Default)]
pub struct Credit {
    unread: u64,
}

impl Credit {
    /// More was sent; true if it is within the credit. The core estimates sizes, so it may be off by a factor of two.
    pub fn sent(&mut self, bytes: u64, streamed: bool, credit: u64) -> bool {
        let before = self.unread;
        self.unread += bytes;
        !streamed || before < 2 * credit
    }

    /// Whether so little is on the way that a reply must be sent.
    pub fn is_plenty(&self, credit: u64) -> bool {
        self.unread * 2 < credit
    }

    /// All of it was read.
    pub fn flushed(&mut self) {
        self.unread = 0;
    }
}
