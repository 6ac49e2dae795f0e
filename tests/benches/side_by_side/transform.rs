//! Transforms: a real clip over two workers beside one, and frames a second of our operations beside ffmpeg's filters.
//!
//! The clip is 1080p, 4:2:0 of 8 bits. Frames a second are of one core, in processor time, from raw Y4M to nowhere on
//! both sides. Not pinned.

use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use bulkhead_client::{DaemonClient, JobFile, JobInput, RunOptions, Spec};
use bulkhead_frames::Plan;
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::job::OutputMode;
use bulkhead_tests::daemon::Setup;

use crate::ceiling::Ceiling;
use crate::figures::{Aim, Figures, median, median_ratio, seconds};
use crate::layout;

const CLIP: &str = "bigbuckbunny.mp4";
const FRAMES: u64 = 96;
/// What is shared out over workers.
const SHARED: &str = "scale=960x540,blur=2";
const ROUNDS: usize = 5;
/// What is compared: its word, our chain, ffmpeg's filter, the least ratio.
const FILTERS: [(&str, &str, &str, Aim); 4] = [
    ("lanczos", "scale=960x540", "scale=960:540:flags=lanczos", Aim::AtLeast(0.9)),
    ("gray", "gray", "hue=s=0", Aim::AtLeast(1.5)),
    ("box_blur", "blur=2", "boxblur=lr=2:lp=1:cr=1:cp=1", Aim::AtLeast(1.0)),
    ("bilinear", "scale=960x540:bilinear", "scale=960:540:flags=bilinear", Aim::None),
];

pub(crate) fn run(figures: &mut Figures) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let clip = match decoded(folder.path()) {
        Ok(clip) => clip,
        Err(why) => return figures.note(&format!("no transforms: {why}")),
    };
    speedup(figures, &clip, folder.path());
    for (word, chain, filter, aim) in FILTERS {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(FRAMES as f64 / our_seconds(&clip, chain));
            theirs.push(FRAMES as f64 / their_seconds(&clip, filter));
        }
        let (ours, theirs) = (median(ours), median(theirs));
        figures.add(&format!("transform_{word}_frames_per_s"), ours, Aim::None);
        figures.add(&format!("transform_{word}_ffmpeg_frames_per_s"), theirs, Aim::None);
        figures.add(&format!("transform_{word}_ratio_ffmpeg"), ours / theirs, aim);
    }
}

fn speedup(figures: &mut Figures, clip: &Path, folder: &Path) {
    let daemons = [1, 2].map(|workers| layout::daemon(&Setup { workers, ..Setup::default() }));
    let mut clients = [&daemons[0], &daemons[1]]
        .map(|daemon| bulkhead_client::discovery::find(Some(&daemon.socket())).expect("the daemon listens"));
    let output = folder.join("out.y4m");
    File::create(&output).expect("an output file");
    let files = [clip, &output].map(|path| path.display().to_string());
    let mut bare = Ceiling::start(&["transform", SHARED, &files[0], &files[1]]);
    let (mut one, mut two, mut gains) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let [alone, shared] = clients.each_mut().map(|client| transform(client, clip, &output));
        let gain = bare.gain();
        // The first of each fills caches.
        if round > 0 {
            one.push(alone);
            two.push(shared);
            gains.push(gain);
        }
    }
    let speedup = median_ratio(&one, &two);
    figures.add("transform_1_worker_frames_per_s", FRAMES as f64 / median(one), Aim::None);
    figures.add("transform_2_workers_frames_per_s", FRAMES as f64 / median(two), Aim::None);
    figures.add("transform_ceiling_2", median(gains), Aim::None);
    figures.add("transform_speedup_2", speedup, Aim::AtLeast(1.85));
}

/// Seconds of one job. Its files are open before: to empty an output of 70 MiB takes ten milliseconds, which the bare
/// processes do not spend either.
fn transform(client: &mut DaemonClient, clip: &Path, output: &Path) -> f64 {
    let input = JobInput {
        bytes: SHARED.as_bytes().to_vec(),
        output: OutputMode::File,
        files: vec![
            JobFile::open("in", clip).expect("the clip is there"),
            JobFile::written("out", File::create(output).expect("an output file")),
        ],
        ..JobInput::default()
    };
    seconds(|| {
        let mut run = client.run(Spec::new("transform"), [input], RunOptions::default());
        let end = run.next().expect("one job, one end").expect("the daemon answers").end;
        assert_eq!(end.outcome, Outcome::Done);
    })
}

/// The clip as raw Y4M, or why there is none.
fn decoded(folder: &Path) -> Result<PathBuf, String> {
    let own = std::env::current_exe().expect("the bench knows its own path");
    let target = own.ancestors().nth(3).expect("it lies three folders down");
    let source = target.join("clips").join(CLIP);
    if !source.is_file() {
        return Err(format!("no {CLIP}: `cargo xtask setup` fetches it"));
    }
    let (source, clip) = (source.display().to_string(), folder.join("in.y4m"));
    let frames = FRAMES.to_string();
    let words = ["-v", "error", "-i", &source, "-frames:v", &frames, "-vf", "scale=1920:1080"];
    let tail = ["-pix_fmt", "yuv420p", "-f", "yuv4mpegpipe", &clip.display().to_string()];
    ffmpeg(&[&words[..], &tail].concat())?;
    Ok(clip)
}

/// Runs ffmpeg with one thread, and gives what it said.
fn ffmpeg(words: &[&str]) -> Result<String, String> {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-hide_banner", "-y", "-threads", "1", "-filter_threads", "1"]).args(words);
    let output = command.output().map_err(|error| format!("ffmpeg cannot be started: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(said) } else { Err(format!("ffmpeg failed: {said}")) }
}

fn our_seconds(clip: &Path, chain: &str) -> f64 {
    let file = File::open(clip).expect("the clip is there");
    let length = file.metadata().expect("it has a length").len();
    let plan = Plan::new(&file, length, chain.parse().expect("a chain")).expect("a clip");
    let begun = own_seconds();
    for range in &plan.ranges {
        bulkhead_frames::run(&plan.recipe, range, &file, &Nowhere, |_| ControlFlow::Continue(()))
            .expect("frames");
    }
    own_seconds() - begun
}

/// Processor time of this thread, which is the only one that works now.
fn own_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("the kernel tells");
    stat.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).expect("nanoseconds") / 1e9
}

fn their_seconds(clip: &Path, filter: &str) -> f64 {
    let clip = clip.display().to_string();
    let said = ffmpeg(&["-benchmark", "-i", &clip, "-vf", filter, "-f", "null", "-"]).expect("ffmpeg runs");
    let bench = said.split("bench: utime=").nth(1).expect("ffmpeg tells its time");
    let seconds = |text: &str| text.split('s').next().and_then(|text| text.parse::<f64>().ok());
    let system = bench.split("stime=").nth(1).and_then(seconds).expect("seconds");
    seconds(bench).expect("seconds") + system
}

/// Takes everything and keeps nothing.
struct Nowhere;

impl FileExt for Nowhere {
    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Ok(0)
    }

    fn write_at(&self, bytes: &[u8], _: u64) -> io::Result<usize> {
        Ok(bytes.len())
    }
}
