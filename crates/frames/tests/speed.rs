//! Frames a second of our operations beside ffmpeg's filters, one core each, 1080p from raw Y4M to nowhere.
//!
//! Figures, no judgement: it is run by hand, optimised, with
//! `cargo test --release -p bulkhead-frames --test speed -- --ignored --nocapture`.
//! Both sides are measured in processor time, so that a busy machine does not blur the ratio.

#![allow(clippy::unwrap_used, clippy::disallowed_types, clippy::disallowed_methods)] // a test over files

use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;

use bulkhead_frames::{Plan, run};

mod peer;
#[macro_use]
#[path = "../../../tests/src/skip.rs"]
pub mod skip;

/// Times that the clip's 24 frames are gone through in one measurement.
const ROUNDS: u64 = 8;
const FRAMES: u64 = 24;
/// Measurements of each side, taken in turns; the best counts.
const ROTATIONS: usize = 5;

/// What is compared: pixel format, our chain, ffmpeg's filter.
const CASES: [(&str, &str, &str); 13] = [
    ("yuv420p", "scale=960x540", "scale=960:540:flags=lanczos"),
    ("yuv420p", "scale=1280x720", "scale=1280:720:flags=lanczos"),
    ("yuv420p", "scale=320x180", "scale=320:180:flags=lanczos"),
    ("yuv420p", "scale=960x540:bilinear", "scale=960:540:flags=bilinear"),
    ("yuv420p", "gray", "hue=s=0"),
    ("yuv420p", "mono", "extractplanes=y"),
    ("yuv420p", "blur=2", "boxblur=lr=2:lp=1:cr=1:cp=1"),
    ("yuv420p", "blur=20", "boxblur=lr=20:lp=1:cr=10:cp=1"),
    ("yuv420p", "rotate=90", "transpose=clock"),
    ("yuv420p", "rotate=180", "hflip,vflip"),
    ("yuv420p", "crop=1280x720+320+180", "crop=1280:720:320:180"),
    ("yuv420p10le", "scale=960x540", "scale=960:540:flags=lanczos"),
    ("yuv420p10le", "blur=2", "boxblur=lr=2:lp=1:cr=1:cp=1"),
];

/// Seconds of processor time that this process has used, in the kernel's ticks of 10 ms.
fn own_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks = |field: usize| fields[field].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / 100.0
}

fn ours(clip: &Path, chain: &str) -> f64 {
    let file = File::open(clip).unwrap();
    let plan = Plan::new(&file, file.metadata().unwrap().len(), chain.parse().unwrap()).unwrap();
    let begun = own_seconds();
    for _ in 0..ROUNDS {
        for range in &plan.ranges {
            run(&plan.recipe, range, &file, &peer::Sink, |_| ControlFlow::Continue(())).unwrap();
        }
    }
    own_seconds() - begun
}

fn theirs(clip: &Path, filter: &str) -> f64 {
    let rounds = (ROUNDS - 1).to_string();
    let said = peer::ffmpeg(&[
        "-benchmark",
        "-stream_loop",
        &rounds,
        "-i",
        clip.to_str().unwrap(),
        "-vf",
        filter,
        "-f",
        "null",
        "-",
    ]);
    let bench = said.split("bench: utime=").nth(1).unwrap();
    let seconds = |text: &str| text.split('s').next().unwrap().parse::<f64>().unwrap();
    seconds(bench) + seconds(bench.split("stime=").nth(1).unwrap())
}

#[test]
#[ignore = "figures for people; takes a minute and wants an optimised build"]
fn frames_a_second_beside_ffmpeg() {
    let source = or_skip!(peer::clip("bigbuckbunny.mp4"));
    let folder = tempfile::tempdir().unwrap();
    println!("{:34} {:>8} {:>8} {:>7}", "1080p, frames/s of one core", "ours", "ffmpeg", "ratio");
    for (format, chain, filter) in CASES {
        let clip = folder.path().join(format!("{format}.y4m"));
        if !clip.exists() {
            peer::filtered(&source, "scale=1920:1080", format, &clip);
        }
        let (mut least_ours, mut least_theirs) = (f64::MAX, f64::MAX);
        for _ in 0..ROTATIONS {
            least_ours = least_ours.min(ours(&clip, chain));
            least_theirs = least_theirs.min(theirs(&clip, filter));
        }
        let frames = (ROUNDS * FRAMES) as f64;
        let (ours, theirs) = (frames / least_ours, frames / least_theirs);
        let name = format!("{format} {chain}");
        println!("{name:34} {ours:8.0} {theirs:8.0} {:7.2}", ours / theirs);
    }
}
