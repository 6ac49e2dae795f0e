//! A whole transform from front to back, as from a pipe to a pipe: no plan, no ranges, one frame at a time.
//!
//! Its output is byte for byte that of the ranges; the tests compare the two.

use std::io::{BufRead, Write};

use crate::clip_reader::ClipReader;
use crate::error::TransformError;
use crate::frame::Frame;
use crate::merge::Merged;
use crate::operation_chain::OperationChain;
use crate::recipe::Recipe;
use crate::transform::FrameTransform;

/// Transforms the clip of `reader`. After each frame it calls `progress` with the number of done frames.
///
/// # Errors
/// [`TransformError::Clip`], [`TransformError::Chain`], [`TransformError::Read`], [`TransformError::Write`].
pub fn stream(
    reader: impl BufRead,
    mut writer: impl Write,
    chain: OperationChain,
    mut progress: impl FnMut(u64),
) -> Result<Merged, TransformError> {
    let mut clip = ClipReader::open(reader)?;
    let recipe = Recipe::new(clip.header().clone(), chain)?;
    let mut transform = FrameTransform::new(&recipe);
    let mut source = Frame::new(recipe.input().shape.bytes() as usize);
    let mut result = Frame::new(recipe.output().shape.bytes() as usize);
    let mut line = Vec::new();
    let mut done = Merged { frames: 0, bytes: 0 };
    let header = recipe.output().to_line();
    let mut write = |bytes: &[u8], done: &mut Merged| {
        writer.write_all(bytes).map_err(|error| TransformError::Write { at: done.bytes, error })?;
        done.bytes += bytes.len() as u64;
        Ok(())
    };
    while clip.next(&mut line, &mut source)? {
        if done.frames == 0 {
            write(&header, &mut done)?;
        }
        transform.apply(&mut source, &mut result);
        write(&line, &mut done)?;
        write(result.bytes(), &mut done)?;
        done.frames += 1;
        progress(done.frames);
    }
    writer.flush().map_err(|error| TransformError::Write { at: done.bytes, error })?;
    Ok(done)
}
