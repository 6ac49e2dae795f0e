//! The plan of a transform: the recipe, the ranges of frames for the run tasks, and the position of each range in the
//! output.
//!
//! It is made once from the clip's header and FRAME lines, without reading a sample. The same clip and chain always
//! give the same plan. Every range is written to bytes of its own, so ranges may run in any order, and again after a
//! crash.

use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};

use crate::clip_scan::{self, ClipScan};
use crate::error::{Flaw, TransformError};
use crate::frame::PLAIN_LINE;
use crate::limits::RANGES_MAX;
use crate::operation_chain::OperationChain;
use crate::recipe::{PlaneOperation, PlaneStage, Recipe};

/// The longest estimated time of a range: short enough that losing one to a crash does not matter.
const RANGE_MAX_NS: u64 = 300_000_000;
/// The shortest estimated time of a range: long compared with the overhead of a task.
const RANGE_MIN_NS: u64 = 20_000_000;
/// The number of ranges of a clip, unless they would be too short or too long. It is high so that workers share a clip
/// evenly.
const RANGES: u64 = 64;

/// The longest possible file minus room for a header: file offsets are signed 64-bit numbers (lseek(2)).
const OUTPUT_MAX_BYTES: u128 = (1 << 63) - (1 << 13);

/// The frames of one run task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameRange {
    /// The first frame.
    pub first: u64,
    /// The number of frames.
    pub frames: u64,
    /// The byte offset of the first frame's line in the clip.
    pub input_at: u64,
    /// Bytes of the range in the clip, lines included.
    pub input_bytes: u64,
    /// The byte offset of the first frame's line in the output.
    pub output_at: u64,
    /// Bytes of the range in the output, lines included.
    pub output_bytes: u64,
}

/// The plan for one clip.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The operations on each frame.
    pub recipe: Recipe,
    /// The ranges, in order.
    pub ranges: Vec<FrameRange>,
}

impl Plan {
    /// Makes the plan for the clip in `file`, which is `length` bytes long.
    ///
    /// # Errors
    /// [`TransformError::Clip`] if it is no complete Y4M clip, [`TransformError::Chain`] if the chain does not fit it,
    /// [`TransformError::Read`].
    pub fn new(
        file: &(impl FileExt + ?Sized),
        length: u64,
        chain: OperationChain,
    ) -> Result<Self, TransformError> {
        let (header, header_bytes) = clip_scan::header(file)?;
        let recipe = Recipe::new(header, chain)?;
        let frame_bytes = recipe.input().shape.bytes();
        let Some(_) = length.checked_sub(header_bytes) else {
            return Err(TransformError::clip(length, Flaw::Changed));
        };
        let scan = ClipScan { file, length, header_bytes, frame_bytes };
        let each = frames_in_a_range(&recipe, scan.frames_at_most());
        let output_bytes = recipe.output().shape.bytes();
        let mut output_at = recipe.output().to_line().len() as u64;
        let starts = scan.starts(each)?;
        let frames = starts.last().map_or(0, |end| end.frame);
        // The FRAME lines together are shorter than the clip.
        if u128::from(frames) * u128::from(output_bytes) + u128::from(length) > OUTPUT_MAX_BYTES {
            return Err(TransformError::Chain(format!(
                "the output would have {frames} frames of {output_bytes} bytes, longer than a file can be: make them smaller"
            )));
        }
        let ranges = starts.windows(2).map(|pair| {
            let frames = pair[1].frame - pair[0].frame;
            let input_bytes = pair[1].at - pair[0].at;
            // All bytes that are no samples are FRAME lines, which are copied unchanged.
            let range = FrameRange {
                first: pair[0].frame,
                frames,
                input_at: pair[0].at,
                input_bytes,
                output_at,
                output_bytes: input_bytes - frames * frame_bytes + frames * output_bytes,
            };
            output_at += range.output_bytes;
            range
        });
        let ranges = ranges.collect();
        Ok(Self { recipe, ranges })
    }

    /// The number of frames of the clip.
    pub fn frames(&self) -> u64 {
        self.ranges.iter().map(|range| range.frames).sum()
    }

    /// The length of the output in bytes.
    pub fn output_bytes(&self) -> u64 {
        let header = self.recipe.output().to_line().len() as u64;
        header + self.ranges.iter().map(|range| range.output_bytes).sum::<u64>()
    }
}

/// The number of frames in each range.
fn frames_in_a_range(recipe: &Recipe, frames_at_most: u64) -> u64 {
    let each_ns = frame_ns(recipe).max(1);
    let range_ns = (each_ns.saturating_mul(frames_at_most) / RANGES).clamp(RANGE_MIN_NS, RANGE_MAX_NS);
    (range_ns / each_ns).max(1).max(frames_at_most.div_ceil(RANGES_MAX))
}

/// The estimated time of a frame on a core that is a few years old. An error of a factor of three does no harm.
fn frame_ns(recipe: &Recipe) -> u64 {
    let moved = recipe.input().shape.bytes() + recipe.output().shape.bytes() + 2 * PLAIN_LINE.len() as u64;
    let stages = |stages: &[PlaneStage]| stages.iter().map(stage_ps).sum::<u64>();
    let deep = recipe.input().shape.colour().depth().bytes();
    (moved * 200 + deep * (stages(recipe.luma()) + 2 * stages(recipe.chroma()))) / 1000
}

/// The estimated picoseconds of a stage, from its number of samples.
fn stage_ps(stage: &PlaneStage) -> u64 {
    let (from, to) = (stage.from.samples() as u64, stage.to.samples() as u64);
    match stage.step {
        PlaneOperation::Scale(_) => (from + to) * 1000,
        PlaneOperation::Blur(_) => from * 1500,
        PlaneOperation::Rotate(_) => from * 500,
        PlaneOperation::Crop { .. } => to * 100,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::Header;
    use crate::test_clip::{MemoryClip, clip};

    fn plan(clip: &[u8], chain: &str) -> Result<Plan, TransformError> {
        Plan::new(&MemoryClip::of(clip), clip.len() as u64, chain.parse().unwrap())
    }

    #[test]
    fn ranges_cover_clip_and_output_without_a_gap() {
        let lines = ["", " Xlong", "", "", " I???"].repeat(40);
        let clip = clip("W320 H240", &lines);
        let plan = plan(&clip, "blur=2,blur=2,blur=2,scale=1280x960,blur=9,scale=99x51,rotate=90").unwrap();
        assert!(plan.ranges.len() > 3, "{}", plan.ranges.len());
        let (mut first, mut input_at) = (0, clip.len() as u64 - plan_input(&plan));
        let mut output_at = plan.recipe.output().to_line().len() as u64;
        for range in &plan.ranges {
            assert_eq!((range.first, range.input_at, range.output_at), (first, input_at, output_at));
            first += range.frames;
            input_at += range.input_bytes;
            output_at += range.output_bytes;
        }
        assert_eq!((first, plan.frames()), (200, 200));
        assert_eq!((input_at, output_at), (clip.len() as u64, plan.output_bytes()));
    }

    fn plan_input(plan: &Plan) -> u64 {
        plan.ranges.iter().map(|range| range.input_bytes).sum()
    }

    #[test]
    fn a_range_is_a_fraction_of_a_second_of_work() {
        let recipe = |header: &str, chain: &str| {
            let header = Header::parse(format!("YUV4MPEG2 {header}").as_bytes()).unwrap();
            Recipe::new(header, chain.parse().unwrap()).unwrap()
        };
        let each = frames_in_a_range(&recipe("W1920 H1080", "scale=960x540"), 1_000_000);
        assert!((30..300).contains(&each), "{each}");
        assert_eq!(frames_in_a_range(&recipe("W16384 H16384", "blur=5"), 50), 1);
        assert_eq!(frames_in_a_range(&recipe("W16384 H16384", "blur=5"), 10 * RANGES_MAX + 1), 11);
    }

    #[test]
    fn a_plan_travels_and_comes_back() {
        let clip = clip("W9 H5 It C422p10 Xa", &["", " X1", ""]);
        let plan = plan(&clip, "gray,crop=4x4+2+0").unwrap();
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
        let forged = text.replace("crop=4x4", "crop=9x9");
        assert!(serde_json::from_str::<Plan>(&forged).unwrap_err().to_string().contains("reaches beyond"));
    }

    /// A clip of so many frames that nobody could store it, but for one of holes, is not multiplied into nonsense.
    #[test]
    fn an_output_longer_than_any_file_is_refused() {
        struct Endless;
        const HEADER: &[u8] = b"YUV4MPEG2 W1 H1 Cmono\n";
        impl FileExt for Endless {
            fn read_at(&self, into: &mut [u8], at: u64) -> std::io::Result<usize> {
                for (at, byte) in (at..).zip(&mut *into) {
                    let place = at.checked_sub(HEADER.len() as u64);
                    *byte =
                        place.map_or_else(|| HEADER[at as usize], |place| b"FRAME\n."[(place % 7) as usize]);
                }
                Ok(into.len())
            }

            fn write_at(&self, _: &[u8], _: u64) -> std::io::Result<usize> {
                unreachable!("a plan writes nothing")
            }
        }
        let told = |frames: u64| {
            let chain = "scale=16384x16384".parse().unwrap();
            Plan::new(&Endless, HEADER.len() as u64 + 7 * frames, chain)
        };
        assert_eq!(told(30_000_000_000).unwrap().frames(), 30_000_000_000);
        for frames in [40_000_000_000, 80_000_000_000, (u64::MAX >> 1) / 7] {
            let fault = told(frames).map(|plan| plan.frames()).unwrap_err().to_string();
            assert!(fault.contains("longer than a file can be"), "{fault}");
        }
    }

    #[test]
    fn what_is_wrong_is_known_before_anything_runs() {
        let told = |clip: &[u8], chain: &str| plan(clip, chain).unwrap_err().to_string();
        let whole = clip("W4 H4 Cmono", &["", ""]);
        assert_eq!(told(&whole[..22], "gray"), "clip at byte 22: the clip has no frames");
        let cut = told(&whole[..whole.len() - 3], "gray");
        assert_eq!(cut, "clip at byte 63: the clip ends within frame 1, 3 bytes early");
        assert!(told(&whole, "crop=5x1+0+0").starts_with("operation crop=5x1+0+0: it reaches beyond"));
        assert!(told(b"YUV4MPEG2 W0 H4\n", "gray").starts_with("clip at byte 10: width \"0\""));
    }
}
