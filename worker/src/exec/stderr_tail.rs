//! The end of a program's standard error, as one line of text.
//!
//! It keeps a fixed number of bytes, however much the program writes. Bytes that are no UTF-8 are replaced, and characters
//! that a terminal would obey become blanks. Driven by `exec.rs`.

use bulkhead_proto::limits::LAST_WORDS_MAX_BYTES;
use bulkhead_proto::plain::is_obeyed;

/// How many bytes are kept.
const KEPT_BYTES: usize = 600;

/// The last bytes of a stream.
#[derive(Clone, Debug, Default)]
pub(super) struct StderrTail(Vec<u8>);

impl StderrTail {
    /// Adds bytes that the program wrote.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        let new = &bytes[bytes.len().saturating_sub(KEPT_BYTES)..];
        let over = (self.0.len() + new.len()).saturating_sub(KEPT_BYTES);
        self.0.drain(..over);
        self.0.extend_from_slice(new);
    }

    /// The kept bytes as text: lines are joined by ` / `, characters that a terminal would obey become blanks.
    pub(super) fn text(&self) -> String {
        // If the cut fell inside a character, the rest of that character is left out.
        let is_rest = |byte: &&u8| **byte & 0xc0 == 0x80;
        let start = self.0.iter().take(3).take_while(is_rest).count();
        let text = String::from_utf8_lossy(&self.0[start..]);
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let line = lines.collect::<Vec<_>>().join(" / ");
        line.chars().map(|letter| if is_obeyed(letter) { ' ' } else { letter }).collect()
    }

    /// The end of the text that fits the last words of a task.
    pub(super) fn last_words(&self) -> String {
        let text = self.text();
        let start = text.ceil_char_boundary(text.len().saturating_sub(LAST_WORDS_MAX_BYTES));
        text[start..].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept_as_one_clean_line() {
        let mut tail = StderrTail::default();
        assert_eq!((tail.text(), tail.last_words()), (String::new(), String::new()));
        tail.add(b"one\n\n  two\r\nth");
        tail.add("r\x1bee\u{202e}\u{2066}!\n".as_bytes());
        assert_eq!(tail.text(), "one / two / thr ee  !");
        for _ in 0..300 {
            tail.add("\u{e9}\u{e9}\u{e9}x".as_bytes());
        }
        tail.add(&[b'y'; 5]);
        assert!(tail.text().len() <= KEPT_BYTES && tail.text().ends_with("xyyyyy"));
        assert!(!tail.text().contains('\u{fffd}'), "{}", tail.text());
        assert!(tail.last_words().len() <= LAST_WORDS_MAX_BYTES && tail.last_words().ends_with("xyyyyy"));
        tail.add(&[b'z'; 10_000]);
        assert_eq!(tail.text(), "z".repeat(KEPT_BYTES));
    }
}
