//! Y4M clips for tests: noise of every shape, real clips, and the expected results of `transform`.
//!
//! The expected result is computed in this process, one task after the other, without a daemon or a worker. Real clips
//! come from `cargo xtask setup`; a test that needs a clip or ffmpeg and finds none skips itself and says so.

use std::fs::File;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bulkhead_frames::{ClipReader, Frame, Plan, merge, run};

/// A clip with this number of frames of noise; `tags` are those of its header (8 bit 4:2:0 without any).
///
/// # Panics
/// The header is not valid.
pub fn noise(tags: &str, frames: usize) -> Vec<u8> {
    let mut clip = format!("YUV4MPEG2 {tags}\n").into_bytes();
    let reader = ClipReader::open(&clip[..]).expect("a possible header");
    let shape = reader.header().shape;
    // Two bytes of a sample of 10 bits are at most 0x03ff.
    let high = if shape.colour().depth().bytes() == 2 { 3 } else { 255 };
    let mut state = 1_u32;
    for _ in 0..frames {
        clip.extend_from_slice(b"FRAME\n");
        clip.extend((0..shape.bytes()).map(|at| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let byte = (state >> 24) as u8;
            if at % 2 == 1 { byte & high } else { byte }
        }));
    }
    clip
}

/// The result of a chain for the clip in this file.
///
/// # Panics
/// The chain cannot be applied to it.
pub fn transformed(clip: &Path, chain: &str) -> Vec<u8> {
    let clip = File::open(clip).expect("the clip");
    let output = tempfile::tempfile().expect("a file");
    let length = clip.metadata().expect("its length").len();
    let plan = Plan::new(&clip, length, chain.parse().expect("a chain")).expect("a plan");
    let ranges = plan.ranges.iter();
    let done: Vec<_> = ranges
        .map(|range| {
            run(&plan.recipe, range, &clip, &output, |_| ControlFlow::Continue(())).expect("a range")
        })
        .collect();
    let bytes = merge(&plan, &done, &output).expect("a merge").bytes;
    let mut whole = vec![0; usize::try_from(bytes).expect("it fits")];
    std::os::unix::fs::FileExt::read_exact_at(&output, &mut whole, 0).expect("its bytes");
    whole
}

/// A real clip by its name.
///
/// # Errors
/// Why there is none here.
///
/// # Panics
/// If the test runs from an unknown place.
pub fn real(name: &str) -> Result<PathBuf, String> {
    let own = std::env::current_exe().expect("a test knows its own path");
    let target = own.ancestors().nth(3).expect("tests lie three folders down in the target folder");
    let clip = target.join("clips").join(name);
    let has_ffmpeg = Command::new("ffmpeg").arg("-version").stdout(Stdio::null()).status().is_ok();
    if has_ffmpeg && clip.exists() {
        return Ok(clip);
    }
    Err(format!("no ffmpeg or no {name}: `cargo xtask setup` brings both"))
}

/// ffmpeg that turns `input` into Y4M of this pixel format by this filter, at most 24 frames; `-` is a pipe.
///
/// # Panics
/// A path is not UTF-8.
pub fn ffmpeg(input: &Path, filter: &str, format: &str, output: &str) -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-v", "error", "-y", "-i", input.to_str().expect("a path of text")]);
    command.args(["-frames:v", "24", "-vf", filter, "-pix_fmt", format, "-strict", "-1"]);
    command.args(["-f", "yuv4mpegpipe", output]);
    command
}

/// Peak signal-to-noise ratio of the luma of two clips of 8 bits, in decibels; infinite if they are the same.
///
/// # Panics
/// Their sizes or lengths differ.
pub fn luma_psnr(one: &[u8], other: &[u8]) -> f64 {
    let (mut one, mut other) = [one, other].map(|clip| ClipReader::open(clip).expect("a clip")).into();
    let samples = one.header().shape.size().samples();
    assert_eq!(one.header().shape.size(), other.header().shape.size());
    let frame = |clip: &ClipReader<&[u8]>| Frame::new(clip.header().shape.bytes() as usize);
    let (mut a, mut b) = (frame(&one), frame(&other));
    let (mut error, mut count) = (0_i64, 0_usize);
    while one.next(&mut Vec::new(), &mut a).expect("a frame") {
        assert!(other.next(&mut Vec::new(), &mut b).expect("a frame"), "one has more frames");
        let pairs = a.bytes()[..samples].iter().zip(&b.bytes()[..samples]);
        error += pairs.map(|(a, b)| (i64::from(*a) - i64::from(*b)).pow(2)).sum::<i64>();
        count += samples;
    }
    assert!(!other.next(&mut Vec::new(), &mut b).expect("a frame"), "the other has more frames");
    10.0 * (255.0_f64 * 255.0 * count as f64 / error as f64).log10()
}
