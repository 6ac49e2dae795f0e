//! A whole transform from front to back, as from a pipe to a pipe: no plan, no ranges, one frame at a time.
//!
//! What comes out is, byte for byte, what ranges give. It is also the measure by which those are tested.

use std::io::{BufRead, Write};

use crate::chain::Chain;
use crate::fault::Fault;
use crate::frame::Frame;
use crate::merge::Merged;
use crate::read::ClipReader;
use crate::recipe::Recipe;
use crate::transform::Transform;

/// Transforms the clip that `reader` gives; `progress` is told how many frames are done, after each.
///
/// # Errors
/// [`Fault::Clip`], [`Fault::Chain`], [`Fault::Read`], [`Fault::Write`].
pub fn stream(
    reader: impl BufRead,
    mut writer: impl Write,
    chain: Chain,
    mut progress: impl FnMut(u64),
) -> Result<Merged, Fault> {
    let mut clip = ClipReader::open(reader)?;
    let recipe = Recipe::new(clip.header().clone(), chain)?;
    let mut transform = Transform::new(&recipe);
    let mut source = Frame::new(recipe.input().shape.bytes() as usize);
    let mut result = Frame::new(recipe.output().shape.bytes() as usize);
    let mut line = Vec::new();
    let mut done = Merged { frames: 0, bytes: 0 };
    let header = recipe.output().to_line();
    let mut write = |bytes: &[u8], done: &mut Merged| {
        writer.write_all(bytes).map_err(|error| Fault::Write { at: done.bytes, error })?;
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
    writer.flush().map_err(|error| Fault::Write { at: done.bytes, error })?;
    Ok(done)
}
