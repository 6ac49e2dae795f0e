//! Escapes text that arrives in blocks into a JSON string.
//!
//! Between two blocks it keeps at most one incomplete UTF-8 character, so a long output need not fit in memory. Driven
//! by [`crate::end::ResultLine`].

use std::io::{self, Write};

/// Escapes text block by block; a block may end inside a character.
#[derive(Debug, Default)]
pub(crate) struct EscapedText {
    cut: Vec<u8>,
}

impl EscapedText {
    pub(crate) fn write(&mut self, piece: &[u8], into: &mut impl Write) -> io::Result<()> {
        self.cut.extend_from_slice(piece);
        let whole = match std::str::from_utf8(&self.cut) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            // Invalid bytes in the middle are replaced; only a character that may be cut at the end is kept.
            Err(_) => whole_letters(&self.cut),
            Ok(_) => self.cut.len(),
        };
        let rest = self.cut.split_off(whole);
        let bytes = std::mem::replace(&mut self.cut, rest);
        write_escaped(&bytes, into)
    }

    pub(crate) fn finish(self, into: &mut impl Write) -> io::Result<()> {
        write_escaped(&self.cut, into)
    }
}

/// The length without an incomplete character at the end.
fn whole_letters(bytes: &[u8]) -> usize {
    let tail = bytes.len().saturating_sub(3);
    match bytes[tail..].iter().rposition(|byte| byte & 0b1100_0000 == 0b1100_0000) {
        Some(start) if std::str::from_utf8(&bytes[tail + start..]).is_err() => tail + start,
        _ => bytes.len(),
    }
}

fn write_escaped(bytes: &[u8], into: &mut impl Write) -> io::Result<()> {
    let quoted = serde_json::to_string(&String::from_utf8_lossy(bytes))?;
    into.write_all(&quoted.as_bytes()[1..quoted.len() - 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cut_anywhere_is_the_same_text() {
        let bytes = "né \u{1F600}\u{7} ".as_bytes().iter().copied().chain([0xFF, b'x', 0xE2, 0x82]);
        let bytes: Vec<u8> = bytes.collect();
        let whole = serde_json::to_string(&String::from_utf8_lossy(&bytes)).unwrap();
        for size in 1..=bytes.len() {
            let (mut text, mut out) = (EscapedText::default(), Vec::new());
            bytes.chunks(size).for_each(|piece| text.write(piece, &mut out).unwrap());
            text.finish(&mut out).unwrap();
            assert_eq!(format!("\"{}\"", String::from_utf8(out).unwrap()), whole, "pieces of {size}");
        }
    }
}
