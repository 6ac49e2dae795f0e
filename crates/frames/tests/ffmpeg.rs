//! Our operations beside ffmpeg's filters, on real clips: the same samples, or so near that nobody sees it.

#![allow(clippy::unwrap_used, clippy::disallowed_types, clippy::disallowed_methods)] // a test over files

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use bulkhead_frames::{ClipReader, Depth, Frame};

mod peer;
#[macro_use]
#[path = "../../../tests/src/skip.rs"]
pub mod skip;

const CARPHONE: &str = "carphone_pristine.mp4"; // 176x144
const BUNNY: &str = "bigbuckbunny.mp4"; // 1280x720

/// The same to the last bit.
const EXACT: f64 = f64::INFINITY;

/// Clip, pixel format, our chain, ffmpeg's filter, and the least peak signal-to-noise ratio in decibels that
/// luma and chroma must have.
type Case = (&'static str, &'static str, &'static str, &'static str, [f64; 2]);

const CASES: [Case; 22] = [
    (BUNNY, "yuv420p", "scale=640x360", "scale=640:360:flags=lanczos+accurate_rnd", [52.0, 55.0]),
    (BUNNY, "yuv420p", "scale=333x201", "scale=333:201:flags=lanczos+accurate_rnd", [52.0, 55.0]),
    (CARPHONE, "yuv420p", "scale=352x288", "scale=352:288:flags=lanczos+accurate_rnd", [52.0, 55.0]),
    (CARPHONE, "yuv422p", "scale=99x77", "scale=99:77:flags=lanczos+accurate_rnd", [52.0, 55.0]),
    (CARPHONE, "yuv444p10le", "scale=99x77", "scale=99:77:flags=lanczos+accurate_rnd", [52.0, 55.0]),
    (BUNNY, "yuv420p", "scale=640x360:bilinear", "scale=640:360:flags=bilinear+accurate_rnd", [52.0, 55.0]),
    (
        CARPHONE,
        "yuv420p10le",
        "scale=88x72:bilinear",
        "scale=88:72:flags=bilinear+accurate_rnd",
        [52.0, 55.0],
    ),
    (BUNNY, "yuv420p", "gray", "hue=s=0", [EXACT, EXACT]),
    (CARPHONE, "yuv422p10le", "gray", "hue=s=0", [EXACT, EXACT]),
    (CARPHONE, "yuv444p", "mono", "extractplanes=y", [EXACT, EXACT]),
    (BUNNY, "yuv420p", "blur=2", "boxblur=lr=2:lp=1:cr=1:cp=1", [57.0, 57.0]),
    (CARPHONE, "yuv444p", "blur=7", "boxblur=lr=7:lp=1:cr=7:cp=1", [57.0, 57.0]),
    (CARPHONE, "yuv420p10le", "blur=4", "boxblur=lr=4:lp=1:cr=2:cp=1", [68.0, 68.0]),
    (CARPHONE, "gray", "blur=30", "boxblur=lr=30:lp=1", [57.0, 57.0]),
    (BUNNY, "yuv420p", "rotate=90", "transpose=clock", [EXACT, EXACT]),
    (CARPHONE, "yuv444p10le", "rotate=90", "transpose=clock", [EXACT, EXACT]),
    (CARPHONE, "yuv420p", "rotate=270", "transpose=cclock", [EXACT, EXACT]),
    (CARPHONE, "yuv420p10le", "rotate=180", "hflip,vflip", [EXACT, EXACT]),
    (CARPHONE, "yuv422p", "rotate=180", "hflip,vflip", [EXACT, EXACT]),
    (BUNNY, "yuv420p", "crop=641x361+100+50", "crop=641:361:100:50:exact=1", [EXACT, EXACT]),
    (CARPHONE, "yuv422p10le", "crop=20x31+6+5", "crop=20:31:6:5:exact=1", [EXACT, EXACT]),
    (
        BUNNY,
        "yuv420p",
        "scale=320x180,gray,blur=2,rotate=90",
        "scale=320:180:flags=lanczos+accurate_rnd,hue=s=0,boxblur=lr=2:lp=1:cr=1:cp=1,transpose=clock",
        [55.0, EXACT],
    ),
];

/// A clip that is read beside another one.
struct Read {
    clip: ClipReader<BufReader<File>>,
    frame: Frame,
}

impl Read {
    fn open(path: &Path) -> Self {
        let clip = ClipReader::open(BufReader::new(File::open(path).unwrap())).unwrap();
        let frame = Frame::new(clip.header().shape.bytes() as usize);
        Self { clip, frame }
    }

    fn next(&mut self) -> bool {
        self.clip.next(&mut Vec::new(), &mut self.frame).unwrap()
    }

    /// The samples of luma and of chroma.
    fn planes(&self) -> [Vec<i64>; 2] {
        let shape = self.clip.header().shape;
        let samples: Vec<i64> = match shape.colour().depth() {
            Depth::Eight => self.frame.bytes().iter().map(|byte| i64::from(*byte)).collect(),
            Depth::Ten => {
                let pairs = self.frame.bytes().chunks_exact(2);
                pairs.map(|pair| i64::from(u16::from_le_bytes([pair[0], pair[1]]))).collect()
            }
        };
        let (luma, chroma) = samples.split_at(shape.size().samples());
        [luma.to_vec(), chroma.to_vec()]
    }
}

/// Peak signal-to-noise ratio over all frames, of luma and of chroma.
fn psnr(ours: &Path, theirs: &Path) -> [f64; 2] {
    let (mut ours, mut theirs) = (Read::open(ours), Read::open(theirs));
    assert_eq!(ours.clip.header().shape.size(), theirs.clip.header().shape.size());
    let peak = match ours.clip.header().shape.colour().depth() {
        Depth::Eight => 255.0_f64,
        Depth::Ten => 1023.0,
    };
    let (mut errors, mut counts, mut frames) = ([0_i64; 2], [0_usize; 2], 0);
    while ours.next() {
        assert!(theirs.next(), "ours has more frames");
        frames += 1;
        for (plane, (a, b)) in ours.planes().iter().zip(theirs.planes()).enumerate() {
            assert_eq!(a.len(), b.len());
            errors[plane] += a.iter().zip(&b).map(|(a, b)| (a - b) * (a - b)).sum::<i64>();
            counts[plane] += a.len();
        }
    }
    assert!(!theirs.next() && frames == 24, "{frames} frames");
    [0, 1].map(|plane| 10.0 * (peak * peak * counts[plane].max(1) as f64 / errors[plane] as f64).log10())
}

#[test]
fn every_operation_gives_what_ffmpegs_filter_gives() {
    for name in [CARPHONE, BUNNY] {
        or_skip!(peer::clip(name));
    }
    let folder = tempfile::tempdir().unwrap();
    let mut wrong = Vec::new();
    for (name, format, chain, filter, least) in CASES {
        let path = |end: &str| folder.path().join(end);
        let (clip, ours, theirs) = (path("clip.y4m"), path("ours.y4m"), path("theirs.y4m"));
        peer::filtered(&peer::clip(name).unwrap(), "null", format, &clip);
        let plan = peer::transformed(&clip, chain, &ours);
        let format = if chain == "mono" { "gray" } else { format };
        peer::filtered(&clip, filter, format, &theirs);
        let [luma, chroma] = psnr(&ours, &theirs);
        let mono = plan.recipe.output().shape.planes().count() == 1;
        println!("{luma:6.2} {chroma:6.2} dB, at least {least:?}: {name} {format} {chain}");
        if luma < least[0] || !mono && chroma < least[1] {
            wrong.push(format!("{name} {format} {chain}: luma {luma:.2} dB, chroma {chroma:.2} dB"));
        }
        // What we write, ffmpeg reads.
        peer::ffmpeg(&["-v", "error", "-xerror", "-i", ours.to_str().unwrap(), "-f", "null", "-"]);
    }
    assert!(wrong.is_empty(), "too far from ffmpeg:\n{}", wrong.join("\n"));
}
