//! `transform CHAIN`: reads a Y4M clip, the file `in`, and writes the transformed clip in place, a range of frames in
//! each run task.
//!
//! The work on samples and the position of each frame are those of `bulkhead_frames`; this file is the plan, run and
//! merge around it. Every run task writes its own bytes and writes the same bytes when it runs again, so the output
//! depends neither on the number of workers nor on their deaths. The input is the text of the operation chain.

use std::ops::ControlFlow;

use bulkhead_frames::{
    FrameRange, Header, OperationChain, Plan, RangeDone, Recipe, TransformError, merge, run,
};
use bulkhead_proto::file::IN;
use bulkhead_task::{FanOut, PackedParts, Planned, Split, TaskContext, TaskFailure};

use crate::text_of;

/// The kind.
pub(crate) struct TransformKind;

impl FanOut for TransformKind {
    fn plan(&self, input: &[u8], task: &mut dyn TaskContext) -> Result<Split, TaskFailure> {
        let chain: OperationChain = text_of(input)?.parse().map_err(fault)?;
        let (clip, output) = (task.file(IN)?, task.shared()?);
        task.say("looking for the frames of the clip");
        let plan = Plan::new(&*clip, clip.length(), chain).map_err(fault)?;
        output.set_length(plan.output_bytes())?;
        let parts = plan.ranges.iter().map(part_of).collect();
        Ok(Split { common: plan.recipe.input().to_line(), parts })
    }

    fn run(&self, job: Planned<'_>, part: &[u8], task: &mut dyn TaskContext) -> Result<(), TaskFailure> {
        let (recipe, range) = (recipe_of(job)?, range_of(part)?);
        let (clip, output) = (task.file(IN)?, task.shared()?);
        task.say(&format!("frames from {} on", range.first));
        let done = run(&recipe, &range, &*clip, &*output, |frames| {
            task.progress(frames, range.frames);
            if task.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        let done = done.map_err(fault)?;
        Ok(task.write_all(&bytes_of([done.first, done.frames, done.bytes]))?)
    }

    fn merge(
        &self,
        job: Planned<'_>,
        parts: &PackedParts<'_>,
        results: &PackedParts<'_>,
        task: &mut dyn TaskContext,
    ) -> Result<(), TaskFailure> {
        let ranges = parts.iter().map(|part| range_of(&part?)).collect::<Result<_, _>>()?;
        let plan = Plan { recipe: recipe_of(job)?, ranges };
        let done = results.iter().map(|result| done_of(&result?)).collect::<Result<Vec<_>, _>>()?;
        let output = task.shared()?;
        merge(&plan, &done, &*output).map_err(fault)?;
        Ok(())
    }
}

fn fault(fault: TransformError) -> TaskFailure {
    TaskFailure::new(fault.to_string())
}

/// Makes the recipe again from the clip's header and the chain, which determine it.
fn recipe_of(job: Planned<'_>) -> Result<Recipe, TaskFailure> {
    let line = job.common.strip_suffix(b"\n").unwrap_or(job.common);
    let chain = text_of(job.input)?.parse().map_err(fault)?;
    Recipe::new(Header::parse(line).map_err(fault)?, chain).map_err(fault)
}

/// Encodes a range of frames as six words.
fn part_of(range: &FrameRange) -> Vec<u8> {
    bytes_of([
        range.first,
        range.frames,
        range.input_at,
        range.input_bytes,
        range.output_at,
        range.output_bytes,
    ])
}

fn range_of(part: &[u8]) -> Result<FrameRange, TaskFailure> {
    let [first, frames, input_at, input_bytes, output_at, output_bytes] = words_of(part)?;
    let ends = [(first, frames), (input_at, input_bytes), (output_at, output_bytes)];
    if ends.iter().any(|(from, count)| from.checked_add(*count).is_none()) {
        return Err(TaskFailure::new(format!(
            "a part of the plan reaches beyond any clip: frames from {first} on"
        )));
    }
    Ok(FrameRange { first, frames, input_at, input_bytes, output_at, output_bytes })
}

fn done_of(result: &[u8]) -> Result<RangeDone, TaskFailure> {
    let [first, frames, bytes] = words_of(result)?;
    Ok(RangeDone { first, frames, bytes })
}

fn bytes_of<const WORDS: usize>(words: [u64; WORDS]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn words_of<const WORDS: usize>(bytes: &[u8]) -> Result<[u64; WORDS], TaskFailure> {
    let (words, rest) = bytes.as_chunks::<8>();
    match <[[u8; 8]; WORDS]>::try_from(words) {
        Ok(words) if rest.is_empty() => Ok(words.map(u64::from_le_bytes)),
        _ => Err(TaskFailure::new(format!(
            "a part or its result is {} bytes long, not {}",
            bytes.len(),
            8 * WORDS
        ))),
    }
}

#[cfg(test)]
mod tests;
