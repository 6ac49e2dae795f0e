//! The trace of a run: a hash of every line, and the lines themselves if they are wanted.
//!
//! Every event, record and action goes through here, so that two runs of one seed can be compared by one
//! number. It must never look at anything that is not part of the run (addresses, clocks of the host).

use std::collections::VecDeque;
use std::fmt::{self, Write};

/// Lines that a failure shows.
pub const TAIL: usize = 40;

/// How much of a run is kept as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing but the hash.
    Hash,
    /// The last [`TAIL`] lines.
    Tail,
    /// All of it.
    All,
}

/// FNV-1a (Fowler, Noll and Vo), fed with the text of each line.
struct Hasher(u64);

impl Write for Hasher {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}

/// The trace of one run.
pub struct Trace {
    keep: Keep,
    hasher: Hasher,
    lines: VecDeque<String>,
    /// Lines so far, kept or not.
    pub count: u64,
}

impl Trace {
    /// An empty one.
    pub fn new(keep: Keep) -> Self {
        Self { keep, hasher: Hasher(0xcbf2_9ce4_8422_2325), lines: VecDeque::new(), count: 0 }
    }

    /// Adds a line: what kind of thing, and the thing.
    pub fn note(&mut self, mono_ns: u64, word: &str, what: &dyn fmt::Debug) {
        self.count += 1;
        write!(self.hasher, "{mono_ns} {word} {what:?}").expect("hashing takes every text");
        if self.keep == Keep::Hash {
            return;
        }
        let (s, ns) = (mono_ns / 1_000_000_000, mono_ns % 1_000_000_000);
        self.lines.push_back(format!("{s:>4}.{ns:09} {word:<7} {what:?}"));
        if self.keep == Keep::Tail && self.lines.len() > TAIL {
            self.lines.pop_front();
        }
    }

    /// The hash of all lines.
    pub fn hash(&self) -> u64 {
        self.hasher.0
    }

    /// The lines kept.
    pub fn take_lines(&mut self) -> Vec<String> {
        self.lines.drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_kept_and_the_hash_covers_all() {
        let mut kept = Trace::new(Keep::Tail);
        let mut hashed = Trace::new(Keep::Hash);
        for number in 0..100 {
            kept.note(number, "event", &number);
            hashed.note(number, "event", &number);
        }
        assert_eq!(kept.hash(), hashed.hash());
        assert_eq!(kept.take_lines().len(), TAIL);
        hashed.note(1, "event", &1);
        assert_ne!(kept.hash(), hashed.hash());
    }
}
