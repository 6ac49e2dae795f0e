//! The real worker program, given files and stages by a supervisor that a test plays: a whole transform, task by task.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

#[allow(dead_code, reason = "each test program uses its own part")]
mod played;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use bulkhead_link::supervisor::FinishedResult;
use bulkhead_proto::codec;
use bulkhead_proto::file::{FileUse, IN, OUT, Way};
use bulkhead_proto::ids::Seq;
use bulkhead_proto::job::OutputMode;
use bulkhead_proto::worker::message::{FileRole, LaneDown};
use bulkhead_proto::worker::stage::{Stage, pack, parts_of};
use bulkhead_sys::exit::ExitStatus;
use bulkhead_sys::memfd::{output_file, sealed_size};
use played::{NOOP, Played, TRANSFORM, failed, inline};

/// Enough work for a few parts.
const CHAIN: &str = "scale=1280x960,blur=9,scale=320x240";

/// The files of one job of `transform`, as a supervisor keeps them.
struct Job {
    clip: File,
    out: Option<File>,
    shared: OwnedFd,
    plan: Option<OwnedFd>,
    results: Vec<Vec<u8>>,
}

impl Job {
    /// Of a clip of noise, whose output goes into a file of the client's or not.
    fn new(has_out: bool) -> Self {
        let clip = tempfile::tempfile().unwrap();
        clip.write_all_at(&noise(90), 0).unwrap();
        let out = has_out.then(|| tempfile::tempfile().unwrap());
        Self { clip, out, shared: output_file("shared").unwrap(), plan: None, results: Vec::new() }
    }

    /// Offers a task of this job and waits for its result.
    fn run(&mut self, played: &mut Played, stage: Stage) -> FinishedResult {
        let output = output_file("output").unwrap();
        let results = File::from(output_file("results").unwrap());
        results.write_all_at(&pack(&self.results), 0).unwrap();
        let named = |name, way| FileRole::Named(FileUse::new(name, way));
        let mut files = Vec::new();
        if stage == Stage::Plan {
            files.push((FileRole::Output, output.as_fd()));
        }
        files.push((named(IN, Way::In), self.clip.as_fd()));
        match &self.out {
            Some(out) => files.push((named(OUT, Way::Out), out.as_fd())),
            None => files.push((FileRole::Shared, self.shared.as_fd())),
        }
        files.extend(self.plan.iter().map(|plan| (FileRole::Plan, plan.as_fd())));
        if matches!(stage, Stage::Merge { .. }) {
            files.push((FileRole::Results, results.as_fd()));
        }
        let mode = match stage {
            Stage::Plan => OutputMode::Descriptor,
            Stage::Merge { .. } if self.out.is_some() => OutputMode::File,
            Stage::Merge { .. } => OutputMode::Descriptor,
            _ => OutputMode::Inline,
        };
        let task = played.offer_stage((TRANSFORM, CHAIN), stage, mode, &files);
        played.send(&[task]);
        let result = played.wait_for(1).remove(0).result;
        if stage == Stage::Plan {
            self.plan = Some(output);
        }
        result
    }

    /// Plans it, and gives how many parts it has.
    fn plan(&mut self, played: &mut Played) -> u32 {
        let FinishedResult::Descriptor { bytes } = self.run(played, Stage::Plan) else { panic!("no plan") };
        let plan = File::from(self.plan.as_ref().unwrap().try_clone().unwrap());
        assert_eq!(sealed_size(plan.as_fd()).unwrap(), Some(bytes));
        let mut head = [0; 8];
        plan.read_exact_at(&mut head, 0).unwrap();
        parts_of(head, bytes).unwrap()
    }

    /// Does all of it, the parts in this order, and gives the output.
    fn all(&mut self, played: &mut Played, backwards: bool) -> Vec<u8> {
        let parts = self.plan(played);
        assert!(parts > 2, "{parts} parts show nothing");
        self.results = vec![Vec::new(); parts as usize];
        let order = (0..parts).map(|part| if backwards { parts - 1 - part } else { part });
        for part in order {
            let result = self.run(played, Stage::Run { part, parts });
            self.results[part as usize] = inline(&result).to_vec();
        }
        let result = self.run(played, Stage::Merge { parts });
        let file = match &self.out {
            Some(out) => {
                assert_eq!(inline(&result), b"");
                out.try_clone().unwrap()
            }
            None => {
                let sealed = sealed_size(self.shared.as_fd()).unwrap().unwrap();
                assert_eq!(result, FinishedResult::Descriptor { bytes: sealed });
                File::from(self.shared.try_clone().unwrap())
            }
        };
        bytes_of(&file)
    }
}

/// A clip of so many frames of noise, all of them the same.
fn noise(frames: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let samples = (0..320 * 240 * 3 / 2).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    let frame: Vec<u8> = b"FRAME\n".iter().copied().chain(samples).collect();
    [b"YUV4MPEG2 W320 H240\n".to_vec(), frame.repeat(frames)].concat()
}

fn bytes_of(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn a_transform_comes_out_the_same_in_place_and_in_a_clients_file_and_in_any_order() {
    let mut played = Played::up(false);
    let shared = Job::new(false).all(&mut played, false);
    let out = Job::new(true).all(&mut played, true);
    assert!(shared == out && shared.starts_with(b"YUV4MPEG2 W320 H240"), "{} bytes", shared.len());
    assert_eq!(inline(&played.run(NOOP, "on")), b"on");
}

/// The worker that merged died after it had sealed the output and before it could say so: the next one says so.
#[test]
fn a_merge_that_comes_again_finds_its_output_complete() {
    let mut played = Played::up(false);
    let mut job = Job::new(false);
    let first = job.all(&mut played, false);
    let parts = job.results.len() as u32;
    assert_eq!(
        job.run(&mut played, Stage::Merge { parts }),
        FinishedResult::Descriptor { bytes: first.len() as u64 }
    );
    assert!(bytes_of(&File::from(job.shared)) == first);
}

#[test]
fn a_part_that_is_killed_and_run_again_changes_nothing() {
    let mut first = Played::up(false);
    let mut job = Job::new(false);
    let parts = job.plan(&mut first);
    let files = [
        (FileRole::Named(FileUse::new(IN, Way::In)), job.clip.as_fd()),
        (FileRole::Shared, job.shared.as_fd()),
        (FileRole::Plan, job.plan.as_ref().unwrap().as_fd()),
    ];
    let stage = Stage::Run { part: 1, parts };
    let task = first.offer_stage((TRANSFORM, CHAIN), stage, OutputMode::Inline, &files);
    let seq = task.seq;
    first.send(&[task]);
    assert_eq!(first.wait_for_claim(), seq);
    first.born.tree.kill().unwrap();
    assert_eq!(first.born.end(), ExitStatus::Signal { signal: 9, core: false });
    let mut second = Played::up(false);
    let again = job.all(&mut second, true);
    assert!(again == Job::new(false).all(&mut second, false));
}

#[test]
fn a_clip_that_changes_between_two_tasks_fails_the_next_one() {
    let mut played = Played::up(false);
    let mut job = Job::new(false);
    let parts = job.plan(&mut played);
    let length = job.clip.metadata().unwrap().len();
    job.clip.set_len(length - 1).unwrap();
    for stage in [Stage::Run { part: 0, parts }, Stage::Merge { parts }] {
        let result = job.run(&mut played, stage);
        let text = failed(&result);
        let expected =
            format!("file \"in\" changed while it was read, it had {length} bytes and has {}", length - 1);
        assert!(text.starts_with(&expected), "{text}");
    }
}

#[test]
fn stages_that_do_not_fit_their_kind_or_their_plan_are_failures() {
    let mut played = Played::up(false);
    let mut job = Job::new(false);
    let unplanned = job.run(&mut played, Stage::Run { part: 0, parts: 1 });
    assert!(failed(&unplanned).contains("without the plan"), "{unplanned:?}");
    let whole = job.run(&mut played, Stage::Whole);
    assert!(failed(&whole).contains("write plans = true"), "{whole:?}");
    let parts = job.plan(&mut played);
    for (stage, text) in [
        (Stage::Run { part: parts, parts }, "there is no part"),
        (Stage::Run { part: 0, parts: parts + 1 }, "parts, "),
        (Stage::Merge { parts }, "has 0 parts"),
    ] {
        let result = job.run(&mut played, stage);
        assert!(failed(&result).contains(text), "{stage:?}: {result:?}");
    }
    let task = played.offer_stage((NOOP, "x"), Stage::Plan, OutputMode::Inline, &[]);
    played.send(&[task]);
    let result = played.wait_for(1).remove(0).result;
    assert!(failed(&result).contains("does not split its jobs"), "{result:?}");
}

/// A forged plan is refused part by part, and costs the worker nothing.
#[test]
fn a_malformed_plan_fails_its_task() {
    let mut played = Played::up(false);
    let mut job = Job::new(false);
    job.plan(&mut played);
    let forged = pack(&[&b"x"[..]]);
    for plan in [b"".to_vec(), vec![255; 100], forged.clone(), [forged, vec![255; 9]].concat()] {
        let file = File::from(output_file("plan").unwrap());
        file.write_all_at(&plan, 0).unwrap();
        job.plan = Some(file.into());
        let result = job.run(&mut played, Stage::Run { part: 0, parts: 1 });
        let text = failed(&result);
        assert!(text.contains("malformed") || text.contains("ends at byte"), "{text}");
    }
    assert_eq!(inline(&played.run(NOOP, "on")), b"on");
}

#[test]
fn files_that_are_not_as_many_as_their_roles_end_the_worker() {
    let mut played = Played::up(false);
    let output = output_file("output").unwrap();
    let frame =
        codec::encode(&LaneDown::Files { seq: Seq(1), roles: vec![FileRole::Output, FileRole::Shared] });
    played.born.lane.send(&frame, &[output.as_fd()]).unwrap();
    assert_eq!(played.born.end(), ExitStatus::Code(1));
}

#[test]
fn a_supervisor_that_hangs_up_between_files_and_task_ends_an_idle_worker() {
    let mut played = Played::up(false);
    let job = Job::new(false);
    let files = [(FileRole::Named(FileUse::new(IN, Way::In)), job.clip.as_fd())];
    let task = played.offer_stage((TRANSFORM, CHAIN), Stage::Plan, OutputMode::Inline, &files);
    assert!(played.ring.take_back(task.seq).unwrap());
    assert_eq!(played.retire().0, ExitStatus::Code(0));
}
