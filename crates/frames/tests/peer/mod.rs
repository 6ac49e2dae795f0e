//! ffmpeg as the peer: real clips decoded by it, its filters beside our operations.
//!
//! `cargo xtask setup` installs it and fetches the clips. Where either is missing, a test
//! skips itself.

#![allow(clippy::unwrap_used, clippy::disallowed_types, clippy::disallowed_methods)] // tests over files and programs
#![allow(dead_code)] // each test program uses its own part

use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bulkhead_frames::{Plan, merge, run};

/// A real clip of a few seconds, by its file name; where it is, or why it is not.
pub(crate) fn clip(name: &str) -> Result<PathBuf, String> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it lies in the target folder");
    let path = target.join("clips").join(name);
    if Command::new("ffmpeg").arg("-version").stdout(Stdio::null()).status().is_err() {
        return Err("no ffmpeg; `cargo xtask setup` as root installs it".to_owned());
    }
    if path.exists() { Ok(path) } else { Err(format!("no {name}; `cargo xtask setup` fetches it")) }
}

/// Runs ffmpeg to its good end and gives what it said.
pub(crate) fn ffmpeg(arguments: &[&str]) -> String {
    let output = Command::new("ffmpeg")
        .args(["-nostdin", "-hide_banner", "-y", "-threads", "1", "-filter_threads", "1"])
        .args(arguments)
        .output()
        .expect("ffmpeg was there a moment ago");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "ffmpeg {arguments:?}: {said}");
    said
}

/// `input` through a filter of ffmpeg, as Y4M in `output`.
pub(crate) fn filtered(input: &Path, filter: &str, format: &str, output: &Path) {
    let (input, output) = (input.to_str().unwrap(), output.to_str().unwrap());
    let tail = ["-pix_fmt", format, "-strict", "-1", "-f", "yuv4mpegpipe", output];
    ffmpeg(&[&["-v", "error", "-i", input, "-frames:v", "24", "-vf", filter][..], &tail].concat());
}

/// `input` through a chain of ours, by plan, run and merge.
pub(crate) fn transformed(input: &Path, chain: &str, output: &Path) -> Plan {
    let clip = std::fs::File::open(input).unwrap();
    let output = std::fs::File::create(output).unwrap();
    let length = clip.metadata().unwrap().len();
    let plan = Plan::new(&clip, length, chain.parse().unwrap()).unwrap();
    let ranges = plan.ranges.iter().rev();
    let done: Vec<_> = ranges
        .map(|range| run(&plan.recipe, range, &clip, &output, |_| ControlFlow::Continue(())).unwrap())
        .collect();
    let merged = merge(&plan, &done, &output).unwrap();
    assert_eq!(merged.bytes, output.metadata().unwrap().len());
    plan
}

/// A file that takes everything and keeps nothing.
pub(crate) struct Sink;

impl FileExt for Sink {
    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Ok(0)
    }

    fn write_at(&self, bytes: &[u8], _: u64) -> io::Result<usize> {
        Ok(bytes.len())
    }
}
