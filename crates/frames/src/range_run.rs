//! Runs one range of frames: reads them at their positions in the clip and writes them at theirs in the output.
//!
//! It trusts the plan for positions only: every FRAME line is checked again, so that a changed clip is noticed. A
//! second run writes the same bytes to the same positions. It keeps one input frame and one output frame. Driven by the
//! kind `transform`.

use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};

use crate::clip_scan::{fill, frame_line};
use crate::error::{Flaw, TransformError};
use crate::frame::Frame;
use crate::plan::FrameRange;
use crate::recipe::Recipe;
use crate::transform::FrameTransform;

/// The report of a run task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeDone {
    /// The range's first frame, which names it.
    pub first: u64,
    /// Frames written.
    pub frames: u64,
    /// Bytes written, lines included.
    pub bytes: u64,
}

/// Transforms the frames of `range`. After each frame it calls `progress` with the number of done frames; the result
/// says whether to go on.
///
/// # Errors
/// [`TransformError::Clip`] if the clip no longer matches the plan, [`TransformError::Read`],
/// [`TransformError::Write`], [`TransformError::Stopped`].
pub fn run(
    recipe: &Recipe,
    range: &FrameRange,
    clip: &(impl FileExt + ?Sized),
    output: &(impl FileExt + ?Sized),
    mut progress: impl FnMut(u64) -> ControlFlow<()>,
) -> Result<RangeDone, TransformError> {
    let mut transform = FrameTransform::new(recipe);
    let mut source = Frame::new(recipe.input().shape.bytes() as usize);
    let mut result = Frame::new(recipe.output().shape.bytes() as usize);
    let mut line = Vec::new();
    let mut reader = RangeReader { clip, at: range.input_at, end: range.input_at + range.input_bytes };
    let mut output_at = range.output_at;
    for frame in 0..range.frames {
        reader.frame(recipe, range.first + frame, &mut line, &mut source)?;
        transform.apply(&mut source, &mut result);
        for bytes in [&line[..], result.bytes()] {
            write(output, bytes, output_at)?;
            output_at += bytes.len() as u64;
        }
        if progress(frame + 1).is_break() && frame + 1 < range.frames {
            return Err(TransformError::Stopped);
        }
    }
    let bytes = output_at - range.output_at;
    if reader.at != reader.end || bytes != range.output_bytes {
        return Err(TransformError::clip(reader.at, Flaw::Changed));
    }
    Ok(RangeDone { first: range.first, frames: range.frames, bytes })
}

/// The position in the clip while a range is read.
struct RangeReader<'a, F: ?Sized> {
    clip: &'a F,
    at: u64,
    end: u64,
}

impl<F: FileExt + ?Sized> RangeReader<'_, F> {
    /// Reads the next FRAME line and frame. Chroma is read only if the recipe needs it.
    fn frame(
        &mut self,
        recipe: &Recipe,
        number: u64,
        line: &mut Vec<u8>,
        frame: &mut Frame,
    ) -> Result<(), TransformError> {
        frame_line(self.clip, (number, self.at), line)?;
        let begin = self.at + line.len() as u64;
        let end = begin + frame.bytes().len() as u64;
        if end > self.end {
            return Err(TransformError::clip(self.at, Flaw::Changed));
        }
        let shape = recipe.input().shape;
        let luma = shape.size().samples() * shape.colour().depth().bytes() as usize;
        let wanted = if recipe.needs_chroma() { frame.bytes().len() } else { luma };
        let got = fill(self.clip, &mut frame.bytes_mut()[..wanted], begin)?;
        let is_whole =
            got == wanted && (end == begin + wanted as u64 || fill(self.clip, &mut [0], end - 1)? == 1);
        if !is_whole {
            return Err(TransformError::clip(begin + got as u64, Flaw::Changed));
        }
        self.at = end;
        Ok(())
    }
}

/// Writes all of it at this byte of the output.
pub(crate) fn write(output: &(impl FileExt + ?Sized), bytes: &[u8], at: u64) -> Result<(), TransformError> {
    output.write_all_at(bytes, at).map_err(|error: io::Error| TransformError::Write { at, error })
}

#[cfg(test)]
mod tests;
