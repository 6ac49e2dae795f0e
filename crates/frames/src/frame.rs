//! One frame in memory, and the FRAME line before it.
//!
//! The bytes are those of the clip, one plane after the other. They are aligned so that 10-bit samples can be processed
//! in place; buffers are reused from frame to frame. Filled by `clip_reader.rs` and `clip_scan.rs`.

use crate::error::Flaw;
use crate::limits::FRAME_LINE_MAX_BYTES;

/// The line before a frame that has no parameters.
pub(crate) const PLAIN_LINE: &[u8] = b"FRAME\n";

/// The samples of a frame.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    words: Vec<u16>,
    length: usize,
}

impl Frame {
    /// A frame of this many bytes, all 0.
    pub fn new(bytes: usize) -> Self {
        Self { words: vec![0; bytes.div_ceil(2)], length: bytes }
    }

    /// Its bytes, as in a clip.
    pub fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.length]
    }

    /// The same, mutable.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.length]
    }

    /// Its 10-bit samples, in little-endian order on every machine.
    pub(crate) fn words(&self) -> &[u16] {
        &self.words
    }

    /// The same, mutable.
    pub(crate) fn words_mut(&mut self) -> &mut [u16] {
        &mut self.words
    }
}

/// Checks that this is a FRAME line with its newline.
///
/// # Errors
/// [`Flaw::NoFrameLine`] or [`Flaw::FrameLineTooLong`].
pub(crate) fn check_line(line: &[u8]) -> Result<(), Flaw> {
    let ending = line.strip_prefix(b"FRAME").ok_or(Flaw::NoFrameLine)?;
    match (ending.first(), ending.last()) {
        (Some(b'\n' | b' '), Some(b'\n')) => Ok(()),
        (None, _) | (Some(b' '), _) if line.len() > FRAME_LINE_MAX_BYTES => Err(Flaw::FrameLineTooLong),
        _ => Err(Flaw::NoFrameLine),
    }
}

/// The least number of bytes that are missing from a FRAME line that the end of the clip cut; `None` if it is not one.
pub(crate) fn missing_of_line(line: &[u8]) -> Option<usize> {
    if line.ends_with(b"\n") || line.len() > FRAME_LINE_MAX_BYTES {
        return None;
    }
    let begins = PLAIN_LINE.starts_with(line) || line.starts_with(b"FRAME ");
    begins.then(|| PLAIN_LINE.len().saturating_sub(line.len()).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_and_without_parameters() {
        assert_eq!(check_line(b"FRAME\n"), Ok(()));
        assert_eq!(check_line(b"FRAME Ippp Xhello\n"), Ok(()));
        assert_eq!(check_line(b"FRAME \n"), Ok(()));
        for line in [&b""[..], b"\n", b"FRAM\n", b"FRAMES\n", b"FRAME", b"FRAME I", b"frame\n"] {
            assert_eq!(check_line(line), Err(Flaw::NoFrameLine), "{line:?}");
        }
        let mut long = b"FRAME ".to_vec();
        long.resize(FRAME_LINE_MAX_BYTES + 1, b'x');
        assert_eq!(check_line(&long), Err(Flaw::FrameLineTooLong));
    }

    #[test]
    fn bytes_and_words_are_the_same_memory() {
        let mut frame = Frame::new(5);
        frame.bytes_mut().copy_from_slice(&[1, 2, 3, 4, 5]);
        assert_eq!((frame.bytes().len(), frame.words().len()), (5, 3));
        assert_eq!(frame.words()[1], u16::from_ne_bytes([3, 4]));
        frame.words_mut()[0] = u16::from_ne_bytes([7, 8]);
        assert_eq!(frame.bytes(), [7, 8, 3, 4, 5]);
    }
}
