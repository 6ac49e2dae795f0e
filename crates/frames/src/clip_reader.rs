//! Reads a Y4M clip from front to back, for example from a pipe.
//!
//! It keeps one frame at a time and reads no further ahead than the reader's own buffer. Clips with positioned reads go
//! through `clip_scan.rs` instead. Driven by `stream.rs`.

use std::io::{self, BufRead, Read};

use crate::error::{Flaw, TransformError};
use crate::frame::{Frame, check_line, missing_of_line};
use crate::header::{Header, MAGIC};
use crate::limits::{FRAME_LINE_MAX_BYTES, HEADER_MAX_BYTES};

/// A clip that is being read.
#[derive(Debug)]
pub struct ClipReader<R> {
    reader: R,
    header: Header,
    /// Bytes read so far.
    at: u64,
    /// Frames read so far.
    frames: u64,
}

impl<R: BufRead> ClipReader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// [`TransformError::Clip`] if the header is wrong, [`TransformError::Read`].
    pub fn open(mut reader: R) -> Result<Self, TransformError> {
        let mut line = Vec::new();
        take_line(&mut reader, HEADER_MAX_BYTES, &mut line)
            .map_err(|error| TransformError::Read { at: 0, error })?;
        let header = parse_first(&line)?;
        Ok(Self { reader, header, at: line.len() as u64, frames: 0 })
    }

    /// The clip's header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Reads the next FRAME line with its newline, and the frame, which must have the clip's shape. `false` at the end
    /// of the clip.
    ///
    /// # Errors
    /// [`TransformError::Clip`] if the frame is wrong or incomplete, or the clip has no frame;
    /// [`TransformError::Read`].
    pub fn next(&mut self, line: &mut Vec<u8>, frame: &mut Frame) -> Result<bool, TransformError> {
        let at = self.at;
        take_line(&mut self.reader, FRAME_LINE_MAX_BYTES, line)
            .map_err(|error| TransformError::Read { at, error })?;
        if line.is_empty() {
            return if self.frames > 0 { Ok(false) } else { Err(TransformError::clip(at, Flaw::NoFrames)) };
        }
        let wanted = frame.bytes().len();
        if let Some(short) = missing_of_line(line) {
            let flaw = Flaw::Cut { frame: self.frames, missing: (short + wanted) as u64 };
            return Err(TransformError::clip(at + line.len() as u64, flaw));
        }
        check_line(line).map_err(|flaw| TransformError::clip(at, flaw))?;
        self.at += line.len() as u64;
        let got =
            fill(&mut self.reader, frame.bytes_mut()).map_err(|error| TransformError::Read { at, error })?;
        self.at += got as u64;
        if got < wanted {
            let flaw = Flaw::Cut { frame: self.frames, missing: (wanted - got) as u64 };
            return Err(TransformError::clip(self.at, flaw));
        }
        self.frames += 1;
        Ok(true)
    }
}

/// Parses a clip's first line. A missing newline is an error.
pub(crate) fn parse_first(line: &[u8]) -> Result<Header, TransformError> {
    match line.strip_suffix(b"\n") {
        Some(line) => Header::parse(line),
        None if line.is_empty() => Err(TransformError::clip(0, Flaw::Empty)),
        None if !line.starts_with(MAGIC) => Err(TransformError::clip(0, Flaw::NotY4m)),
        None if line.len() > HEADER_MAX_BYTES => Err(TransformError::clip(0, Flaw::HeaderTooLong)),
        None => Err(TransformError::clip(line.len() as u64, Flaw::HeaderCut)),
    }
}

/// Reads through the next newline, but at most one byte more than `most`.
fn take_line(reader: &mut impl BufRead, most: usize, line: &mut Vec<u8>) -> io::Result<()> {
    line.clear();
    reader.by_ref().take(most as u64 + 1).read_until(b'\n', line)?;
    Ok(())
}

/// Reads until `bytes` is full or the input ends; returns how many bytes were read.
fn fill(reader: &mut impl Read, bytes: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() {
        match reader.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2x2 mono, two frames, the second with parameters.
    const CLIP: &[u8] = b"YUV4MPEG2 W2 H2 Cmono\nFRAME\nabcdFRAME Xq\nefgh";

    /// A FRAME line and its frame.
    type Pair = (Vec<u8>, Vec<u8>);

    /// All frames, or what was wrong.
    fn frames(clip: &[u8]) -> Result<Vec<Pair>, String> {
        // A tiny buffer, so that lines and frames are read in pieces.
        let reader = io::BufReader::with_capacity(3, clip);
        let mut clip = ClipReader::open(reader).map_err(|fault| fault.to_string())?;
        let mut frame = Frame::new(clip.header().shape.bytes() as usize);
        let (mut line, mut all) = (Vec::new(), Vec::new());
        while clip.next(&mut line, &mut frame).map_err(|fault| fault.to_string())? {
            all.push((line.clone(), frame.bytes().to_vec()));
        }
        Ok(all)
    }

    #[test]
    fn frames_come_one_by_one() {
        let pair = |line: &[u8], frame: &[u8]| (line.to_vec(), frame.to_vec());
        assert_eq!(frames(CLIP).unwrap(), [pair(b"FRAME\n", b"abcd"), pair(b"FRAME Xq\n", b"efgh")]);
    }

    #[test]
    fn a_clip_cut_anywhere_is_told_from_its_last_byte() {
        let whole = [28 + 4, CLIP.len()];
        for length in 0..CLIP.len() {
            let told = frames(&CLIP[..length]);
            match length {
                0 => assert!(told.unwrap_err().starts_with("clip at byte 0: it is empty; ")),
                1..9 => assert!(told.unwrap_err().starts_with("clip at byte 0: it does not begin")),
                9..22 => assert_eq!(
                    told.unwrap_err(),
                    format!("clip at byte {length}: the clip ends within its header")
                ),
                22 => assert_eq!(told.unwrap_err(), "clip at byte 22: the clip has no frames"),
                _ if whole.contains(&length) => assert_eq!(told.unwrap().len(), 1),
                _ => {
                    let frame = u8::from(length > 32);
                    let told = told.unwrap_err();
                    let named = format!("clip at byte {length}: the clip ends within frame {frame}, ");
                    assert!(told.starts_with(&named), "{length}: {told}");
                }
            }
        }
    }

    #[test]
    fn the_missing_bytes_are_counted() {
        let told = |cut: usize| frames(&CLIP[..cut]).unwrap_err();
        assert!(told(30).ends_with("within frame 0, 2 bytes early"));
        assert!(told(24).ends_with("within frame 0, 8 bytes early"));
        assert!(told(CLIP.len() - 1).ends_with("within frame 1, 1 bytes early"));
    }

    #[test]
    fn something_between_frames_is_told() {
        let told = frames(b"YUV4MPEG2 W2 H2 Cmono\nFRAME\nabcdXFRAME\nefgh").unwrap_err();
        assert_eq!(told, "clip at byte 32: no FRAME line where a frame must begin");
    }

    #[test]
    fn lines_without_an_end_are_not_read_for_ever() {
        let mut clip = b"YUV4MPEG2 W2 H2 X".to_vec();
        clip.resize(HEADER_MAX_BYTES + 1, b'x');
        assert!(frames(&clip).unwrap_err().contains("no end within 4096 bytes"));
        let mut clip = b"YUV4MPEG2 W2 H2 Cmono\nFRAME X".to_vec();
        clip.resize(2000, b'x');
        assert!(frames(&clip).unwrap_err().contains("at byte 22: a FRAME line has no end within 255"));
    }
}
