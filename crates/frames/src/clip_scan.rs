//! Reads a Y4M clip at any position: its header, a FRAME line, and the positions of frames.
//!
//! If no FRAME line has parameters, every frame takes the same number of bytes and its position is computed; otherwise
//! the lines are read one after the other, without the samples between them. The input is anything with positioned
//! reads, so many tasks can share one clip. Driven by `plan.rs` and `range_run.rs`.

use std::io;
use std::os::unix::fs::FileExt;

use crate::clip_reader::parse_first;
use crate::error::{Flaw, TransformError};
use crate::frame::{PLAIN_LINE, check_line, missing_of_line};
use crate::header::Header;
use crate::limits::{FRAME_LINE_MAX_BYTES, HEADER_MAX_BYTES};

/// Clips up to this size always have every FRAME line read: it takes little time and assumes nothing.
const WALK_MAX_BYTES: u64 = 64 << 20;

/// The start of a range of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RangeStart {
    /// Its first frame.
    pub(crate) frame: u64,
    /// The byte offset of that frame's line.
    pub(crate) at: u64,
}

/// A clip of known length.
pub(crate) struct ClipScan<'a, F: ?Sized> {
    pub(crate) file: &'a F,
    /// Bytes of the clip.
    pub(crate) length: u64,
    /// Bytes of its header.
    pub(crate) header_bytes: u64,
    /// Bytes of a frame, without its line.
    pub(crate) frame_bytes: u64,
}

/// Reads the header, and returns it with its length in bytes.
pub(crate) fn header(file: &(impl FileExt + ?Sized)) -> Result<(Header, u64), TransformError> {
    let mut line = vec![0; HEADER_MAX_BYTES + 1];
    let filled = fill(file, &mut line, 0)?;
    line.truncate(filled);
    if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
        line.truncate(end + 1);
    }
    Ok((parse_first(&line)?, line.len() as u64))
}

/// Reads the FRAME line at this position, with its newline.
pub(crate) fn frame_line(
    file: &(impl FileExt + ?Sized),
    (frame, at): (u64, u64),
    line: &mut Vec<u8>,
) -> Result<(), TransformError> {
    line.resize(PLAIN_LINE.len(), 0);
    let filled = fill(file, line, at)?;
    if line == PLAIN_LINE {
        return Ok(());
    }
    if filled == PLAIN_LINE.len() {
        line.resize(FRAME_LINE_MAX_BYTES + 1, 0);
        let filled = fill(file, line, at)?;
        line.truncate(filled);
    } else {
        line.truncate(filled);
    }
    if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
        line.truncate(end + 1);
    }
    match missing_of_line(line) {
        Some(short) => {
            let flaw = Flaw::Cut { frame, missing: short as u64 };
            Err(TransformError::clip(at + line.len() as u64, flaw))
        }
        None => check_line(line).map_err(|flaw| TransformError::clip(at, flaw)),
    }
}

/// Reads from this byte on until `bytes` is full or the file ends.
pub(crate) fn fill(
    file: &(impl FileExt + ?Sized),
    bytes: &mut [u8],
    at: u64,
) -> Result<usize, TransformError> {
    let mut filled = 0;
    while filled < bytes.len() {
        let at = at + filled as u64;
        match file.read_at(&mut bytes[filled..], at) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(TransformError::Read { at, error }),
        }
    }
    Ok(filled)
}

impl<F: FileExt + ?Sized> ClipScan<'_, F> {
    /// The largest number of frames that the clip can have.
    pub(crate) fn frames_at_most(&self) -> u64 {
        (self.length - self.header_bytes).div_ceil(self.stride())
    }

    /// Bytes of a frame and a line without parameters.
    fn stride(&self) -> u64 {
        PLAIN_LINE.len() as u64 + self.frame_bytes
    }

    /// The start of each range of `each` frames, and at last the end of the clip.
    pub(crate) fn starts(&self, each: u64) -> Result<Vec<RangeStart>, TransformError> {
        if self.length == self.header_bytes {
            return Err(TransformError::clip(self.length, Flaw::NoFrames));
        }
        match self.length > WALK_MAX_BYTES {
            true => self.counted(each)?.map_or_else(|| self.walked(each), Ok),
            false => self.walked(each),
        }
    }

    /// Computes the starts, if the length is that of frames with plain lines and each range begins with such a line.
    /// The run tasks check every line, so a clip that passes here by accident is refused there.
    fn counted(&self, each: u64) -> Result<Option<Vec<RangeStart>>, TransformError> {
        let samples = self.length - self.header_bytes;
        if !samples.is_multiple_of(self.stride()) {
            return Ok(None);
        }
        let frames = samples / self.stride();
        let mut starts = Vec::new();
        let mut line = [0; PLAIN_LINE.len()];
        for frame in (0..frames).step_by(usize::try_from(each).unwrap_or(usize::MAX)) {
            let at = self.header_bytes + frame * self.stride();
            fill(self.file, &mut line, at)?;
            if line != PLAIN_LINE {
                return Ok(None);
            }
            starts.push(RangeStart { frame, at });
        }
        starts.push(RangeStart { frame: frames, at: self.length });
        Ok(Some(starts))
    }

    /// Finds the starts by reading every FRAME line.
    fn walked(&self, each: u64) -> Result<Vec<RangeStart>, TransformError> {
        let (mut frame, mut at) = (0, self.header_bytes);
        let (mut starts, mut line) = (Vec::new(), Vec::new());
        while at < self.length {
            if frame % each == 0 {
                starts.push(RangeStart { frame, at });
            }
            frame_line(self.file, (frame, at), &mut line)?;
            at += line.len() as u64 + self.frame_bytes;
            if at > self.length {
                return Err(TransformError::clip(
                    self.length,
                    Flaw::Cut { frame, missing: at - self.length },
                ));
            }
            frame += 1;
        }
        starts.push(RangeStart { frame, at });
        Ok(starts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_clip::MemoryClip;

    /// A 2x2 mono clip with these FRAME lines.
    fn clip(lines: &[&str]) -> Vec<u8> {
        let mut clip = b"YUV4MPEG2 W2 H2 Cmono\n".to_vec();
        for line in lines {
            clip.extend_from_slice(format!("FRAME{line}\nabcd").as_bytes());
        }
        clip
    }

    fn starts(clip: &[u8], each: u64, by_count: bool) -> Result<Vec<(u64, u64)>, String> {
        let file = MemoryClip::of(clip);
        let found = header(&file).and_then(|(header, header_bytes)| {
            let frame_bytes = header.shape.bytes();
            let scan = ClipScan { file: &file, length: clip.len() as u64, header_bytes, frame_bytes };
            match by_count {
                true => scan.counted(each).map(Option::unwrap_or_default),
                false => scan.starts(each),
            }
        });
        let found = found.map_err(|fault| fault.to_string())?;
        Ok(found.into_iter().map(|start| (start.frame, start.at)).collect())
    }

    #[test]
    fn arithmetic_finds_what_walking_finds() {
        for frames in 1..8 {
            let clip = clip(&vec![""; frames]);
            for each in 1..9 {
                let walked = starts(&clip, each, false).unwrap();
                assert_eq!(starts(&clip, each, true).unwrap(), walked);
                assert_eq!(walked[walked.len() - 1], (frames as u64, clip.len() as u64));
            }
        }
        assert_eq!(starts(&clip(&["", "", ""]), 2, false).unwrap(), [(0, 22), (2, 42), (3, 52)]);
    }

    #[test]
    fn parameters_are_walked_and_never_counted() {
        let with = clip(&["", " Ippp", "", " Xab"]);
        assert_eq!(starts(&with, 2, false).unwrap(), [(0, 22), (2, 47), (4, 71)]);
        assert_eq!(starts(&with, 2, true).unwrap(), []);
        // As many bytes as one more frame takes: only a look at the lines can tell.
        let sly = clip(&["", " X2345678", ""]);
        assert_eq!(starts(&sly, 1, true).unwrap(), []);
        assert_eq!(starts(&sly, 1, false).unwrap().len(), 4);
    }

    #[test]
    fn a_clip_cut_anywhere_is_told_as_from_a_pipe() {
        let clip = clip(&["", " Xq"]);
        for length in 22..clip.len() {
            let told = starts(&clip[..length], 1, false);
            match length {
                22 => assert_eq!(told.unwrap_err(), "clip at byte 22: the clip has no frames"),
                32 => assert_eq!(told.unwrap(), [(0, 22), (1, 32)]),
                _ => {
                    let frame = u8::from(length > 32);
                    let named = format!("clip at byte {length}: the clip ends within frame {frame}, ");
                    let told = told.unwrap_err();
                    assert!(told.starts_with(&named), "{length}: {told}");
                }
            }
        }
        assert!(
            starts(&clip[..9], 1, false).unwrap_err().contains("byte 9: the clip ends within its header")
        );
        assert!(starts(b"", 1, false).unwrap_err().contains("byte 0: it is empty"));
    }

    #[test]
    fn something_between_frames_is_told() {
        let mut clip = clip(&["", ""]);
        clip[32] = b'x';
        assert!(starts(&clip, 1, false).unwrap_err().starts_with("clip at byte 32: no FRAME line"));
    }
}
