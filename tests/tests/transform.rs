//! `bulkhead run transform` end to end: the same bytes as one task after the other gives, whatever crashes or changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use bulkhead_proto::client::exit;
use bulkhead_proto::client::view::WorkerState;
use bulkhead_tests::clips;
use bulkhead_tests::daemon::{Daemon, Setup, eventually, send_signal};
use bulkhead_tests::or_skip;
use tempfile::TempDir;

/// A second or more of work for a clip of 320x240.
const LONG: &str = "scale=1280x960,blur=9,blur=9,scale=320x240";

/// A daemon, and a folder with a clip.
struct Desk {
    daemon: Daemon,
    folder: TempDir,
}

impl Desk {
    fn new(clip: &[u8]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let daemon = Daemon::start_with(&Setup { workers: 2, chaos: false, ..Setup::default() });
        fs::write(folder.path().join("in.y4m"), clip).expect("a clip");
        Self { daemon, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `bulkhead run transform in.y4m -o out.y4m` with this chain.
    fn command(&self, chain: &str, more: &[&str]) -> Command {
        let mut command =
            self.daemon.command(&["run", "transform", "in.y4m", "-o", "out.y4m", "--chain", chain]);
        command.args(more).current_dir(self.folder.path());
        command
    }

    fn run(&self, chain: &str) -> Output {
        self.command(chain, &[]).output().expect("it runs")
    }

    fn start(&self, chain: &str, more: &[&str]) -> Child {
        self.command(chain, more).stderr(Stdio::piped()).spawn().expect("it starts")
    }

    /// What came out, in words if it failed.
    fn output(&self, output: &Output) -> Vec<u8> {
        assert!(output.status.success(), "{} {}", output.status, said(output));
        fs::read(self.path("out.y4m")).expect("an output")
    }

    /// Nothing is in the folder but the clip.
    fn assert_nothing_left(&self) {
        let left: Vec<_> = fs::read_dir(self.folder.path()).expect("a folder").flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    /// The process of a worker that runs something.
    fn busy(&self) -> Option<u32> {
        self.daemon.workers().iter().filter(|row| row.state == WorkerState::Busy).find_map(|row| row.pid)
    }

    /// Done and all parts of the first job, once it has some.
    fn parts(&self) -> Option<(u64, u64)> {
        let output = self.daemon.cli(&["job", "1", "--json"]);
        let job: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        let parts = job.get("parts").filter(|parts| !parts.is_null())?;
        Some((parts["done"].as_u64()?, parts["total"].as_u64()?))
    }

    /// The latest death that ended an attempt of a job, if there was one.
    fn newest_death(&self) -> Option<serde_json::Value> {
        let deaths = self.daemon.ok(&["deaths", "--json"]);
        let newest = deaths.lines().next()?;
        Some(serde_json::from_str(newest).expect("a row of `deaths --json`"))
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn every_shape_comes_out_byte_for_byte_as_from_one_task() {
    let desk = Desk::new(b"");
    for (tags, chain) in [
        ("W33 H21", "scale=17x40,gray"),
        ("W32 H20 C422", "blur=2,rotate=180"),
        ("W32 H20 C444", "crop=11x7+3+2,rotate=90"),
        ("W31 H19 Cmono", "scale=20x20:bilinear"),
        ("W32 H20 C420p10", "rotate=270,scale=30x30"),
        ("W32 H20 C422p10", "mono,blur=3"),
        ("W9 H5 C444p10", "crop=4x4+2+0"),
        ("W1 H1", "scale=3x3"),
    ] {
        fs::write(desk.path("in.y4m"), clips::noise(tags, 5)).expect("a clip");
        let expected = clips::transformed(&desk.path("in.y4m"), chain);
        assert!(desk.output(&desk.run(chain)) == expected, "{tags} {chain}");
    }
}

/// A clip whose frames are so many and so small that finding them takes longer than anything else.
#[test]
fn a_worker_that_is_killed_while_it_plans_changes_nothing() {
    let desk = Desk::new(&clips::noise("W2 H2 Cmono", 300_000));
    let expected = clips::transformed(&desk.path("in.y4m"), "rotate=90");
    let was_in_time = (0..10).any(|_| {
        let run = desk.start("rotate=90", &[]);
        let pid = eventually("it is planned", || desk.busy());
        send_signal(pid, "KILL");
        let output = run.wait_with_output().expect("it ends");
        assert!(desk.output(&output) == expected, "another output");
        // There may be none: the kill came when its job had just ended.
        desk.newest_death().is_some_and(|death| !death["job"].is_null() && death["part"].is_null())
    });
    assert!(was_in_time, "each time it was planned already");
}

/// Workers are killed in its parts, whenever another one is done.
#[test]
fn workers_that_are_killed_change_nothing() {
    let desk = Desk::new(&clips::noise("W320 H240", 150));
    let mut run = desk.start(LONG, &["--crashes-max", "100"]);
    let mut killed = Vec::new();
    // Each part survives as many as the job may have; every state of the job that is seen has its death.
    while run.try_wait().expect("its status").is_none() && killed.len() < 12 {
        let at = desk.parts();
        if let Some(pid) = desk.busy().filter(|_| killed.last() != Some(&at)) {
            // It may have ended by itself since.
            drop(Command::new("kill").args(["-KILL", &pid.to_string()]).stderr(Stdio::null()).status());
            killed.push(at);
        }
    }
    let output = run.wait_with_output().expect("it ends");
    let expected = clips::transformed(&desk.path("in.y4m"), LONG);
    assert!(desk.output(&output) == expected, "another output");
    assert!(killed.len() > 2 && !desk.daemon.ok(&["deaths"]).is_empty(), "{killed:?}");
}

#[test]
fn what_is_wrong_with_a_clip_is_told_by_its_byte_and_nothing_is_left() {
    let whole = clips::noise("W32 H20", 3);
    let desk = Desk::new(b"");
    for (clip, text) in [
        (
            &whole[..whole.len() - 100],
            format!("clip at byte {}: the clip ends within frame 2", whole.len() - 100),
        ),
        (&whole[..18], "clip at byte 18: the clip has no frames".to_owned()),
        (b"YUV4MPEG2 W99999 H20\nFRAME\n", "clip at byte 10: width \"99999\" is not valid".to_owned()),
        (b"RIFF....AVI ", "clip at byte 0: it does not begin with \"YUV4MPEG2 \"".to_owned()),
        (b"", "clip at byte 0".to_owned()),
    ] {
        fs::write(desk.path("in.y4m"), clip).expect("a clip");
        let output = desk.run("gray");
        assert_eq!(output.status.code(), Some(i32::from(exit::FAILED)));
        assert!(said(&output).contains(&text), "{text}: {}", said(&output));
        desk.assert_nothing_left();
    }
    fs::write(desk.path("in.y4m"), &whole).expect("a clip");
    let output = desk.run("crop=33x1+0+0");
    assert!(said(&output).contains("crop=33x1+0+0: it reaches beyond the picture"), "{}", said(&output));
}

#[test]
fn a_clip_that_changes_while_it_is_read_fails_by_name() {
    let desk = Desk::new(&clips::noise("W320 H240", 150));
    let run = desk.start(LONG, &[]);
    eventually("the parts are run", || desk.parts());
    let clip = fs::File::options().append(true).open(desk.path("in.y4m")).expect("the clip");
    clip.set_len(clip.metadata().expect("its length").len() - 1).expect("it is cut");
    let output = run.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(i32::from(exit::FAILED)));
    let text = said(&output);
    assert!(text.contains("file \"in\" changed while it was read, it had "), "{text}");
    desk.assert_nothing_left();
}

#[test]
fn a_cancel_in_the_middle_leaves_nothing_and_the_workers_are_free() {
    let desk = Desk::new(&clips::noise("W320 H240", 150));
    let run = desk.start(LONG, &[]);
    eventually("the parts are run", || desk.parts());
    send_signal(run.id(), "INT");
    let output = run.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(i32::from(exit::CANCELLED)), "{}", said(&output));
    desk.assert_nothing_left();
    assert_eq!(desk.daemon.ok(&["run", "noop", "on"]), "on\n");
}

/// A file system of a megabyte.
struct Small(TempDir);

impl Small {
    fn mount() -> Result<Self, &'static str> {
        let folder = tempfile::tempdir().expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(folder.path());
        let mounted = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        if mounted { Ok(Self(folder)) } else { Err("no right to mount") }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        drop(Command::new("umount").args(["-l"]).arg(self.0.path()).status());
    }
}

#[test]
fn a_disk_that_fills_up_is_told_and_keeps_no_half_of_it() {
    let small = or_skip!(Small::mount());
    let desk = Desk::new(&clips::noise("W320 H240", 20));
    let out = small.0.path().join("out.y4m");
    let mut run = desk.daemon.command(&["run", "transform", "in.y4m", "--gray", "-o"]);
    let output = run.arg(&out).current_dir(desk.folder.path()).output().expect("it runs");
    assert_eq!(output.status.code(), Some(i32::from(exit::FAILED)));
    let text = said(&output);
    assert!(text.contains("no space left where the output goes: file \"out\""), "{text}");
    assert!(!out.exists() && fs::read_dir(small.0.path()).expect("a folder").next().is_none());
}

/// Least luma of a chain of four operations beside ffmpeg's, in decibels; each by itself is in the tests of the frames.
const LEAST_DB: f64 = 55.0;

#[test]
fn a_real_clip_comes_out_as_by_ffmpeg_from_a_file_and_through_pipes() {
    let source = or_skip!(clips::real("bigbuckbunny.mp4"));
    let desk = Desk::new(b"");
    let decoded = desk.path("in.y4m");
    let decode = |output: &str| clips::ffmpeg(&source, "null", "yuv420p", output);
    assert!(decode(decoded.to_str().expect("text")).status().expect("ffmpeg").success());
    let chain = "scale=320x180,gray,blur=2,rotate=90";
    let ours = desk.output(&desk.run(chain));
    assert!(ours == clips::transformed(&decoded, chain));
    let filter =
        "scale=320:180:flags=lanczos+accurate_rnd,hue=s=0,boxblur=lr=2:lp=1:cr=1:cp=1,transpose=clock";
    let theirs = clips::ffmpeg(&decoded, filter, "yuv420p", "-").output().expect("ffmpeg").stdout;
    let psnr = clips::luma_psnr(&ours, &theirs);
    assert!(psnr >= LEAST_DB, "{psnr:.2} dB");

    let mut pipe = decode("-").stdout(Stdio::piped()).spawn().expect("ffmpeg");
    let mut run = desk.daemon.command(&["run", "transform", "-", "-o", "-", "--chain", chain]);
    let output = run.stdin(pipe.stdout.take().expect("a pipe")).output().expect("it runs");
    assert!(pipe.wait().expect("it ends").success());
    assert!(output.status.success() && output.stdout == ours, "{}", said(&output));
}

#[test]
fn what_is_no_file_is_refused_before_a_worker_sees_it_or_by_it() {
    let desk = Desk::new(b"");
    let mut run = desk.daemon.command(&["run", "transform", ".", "-o", "out.y4m", "--gray"]);
    let output = run.current_dir(desk.folder.path()).output().expect("it runs");
    assert!(!output.status.success() && said(&output).contains("directory"), "{}", said(&output));
    assert!(Path::exists(&desk.path("in.y4m")));
    desk.assert_nothing_left();
}
