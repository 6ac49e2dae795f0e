//! Processor time of `transform` in a real worker beside the same work done by plain calls in this process.
//!
//! Figures, no judgement: it is run by hand with
//! `cargo test -p bulkhead-worker --test speed -- --ignored --nocapture`.
//! Both sides read the clip from a file and write to one in memory, and both are the same optimised code.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

#[allow(dead_code, reason = "each test program uses its own part")]
mod played;

use std::fs::File;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use bulkhead_frames::{Plan, run};
use bulkhead_proto::file::{FileUse, IN, Way};
use bulkhead_proto::job::OutputMode;
use bulkhead_proto::worker::message::FileRole;
use bulkhead_proto::worker::stage::{Stage, parts_of};
use bulkhead_sys::memfd::output_file;
use played::{Played, TRANSFORM, inline};

const FRAMES: usize = 48;
/// Measurements of each side, taken in turns; the best counts.
const TURNS: usize = 5;

fn clip() -> File {
    let file = tempfile::tempfile().unwrap();
    let mut state = 1_u32;
    let samples = (0..1920 * 1080 * 3 / 2).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    let frame: Vec<u8> = b"FRAME\n".iter().copied().chain(samples).collect();
    let bytes = [b"YUV4MPEG2 W1920 H1080\n".to_vec(), frame.repeat(FRAMES)].concat();
    file.write_all_at(&bytes, 0).unwrap();
    file
}

/// Processor time of a process so far, in the kernel's ticks of 10 ms.
fn seconds(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks = |field: usize| fields[field].parse::<f64>().unwrap();
    (ticks(11) + ticks(12)) / 100.0
}

fn by_calls(clip: &File, chain: &str) -> f64 {
    let output = File::from(output_file("output").unwrap());
    let begun = seconds("self");
    let plan = Plan::new(clip, clip.metadata().unwrap().len(), chain.parse().unwrap()).unwrap();
    output.set_len(plan.output_bytes()).unwrap();
    for range in &plan.ranges {
        run(&plan.recipe, range, clip, &output, |_| ControlFlow::Continue(())).unwrap();
    }
    seconds("self") - begun
}

/// Plan and parts of one job in a worker.
fn by_tasks(played: &mut Played, clip: &File, chain: &str) -> f64 {
    let process = played.born.tree.process().pid().to_string();
    let (shared, plan) = (output_file("shared").unwrap(), output_file("plan").unwrap());
    let named = FileRole::Named(FileUse::new(IN, Way::In));
    let begun = seconds(&process);
    let files =
        [(FileRole::Output, plan.as_fd()), (named.clone(), clip.as_fd()), (FileRole::Shared, shared.as_fd())];
    let task = played.offer_stage((TRANSFORM, chain), Stage::Plan, OutputMode::Descriptor, &files);
    played.send(&[task]);
    played.wait_for(1);
    let parts = parts_in(&plan);
    for part in 0..parts {
        let files = [
            (named.clone(), clip.as_fd()),
            (FileRole::Shared, shared.as_fd()),
            (FileRole::Plan, plan.as_fd()),
        ];
        let stage = Stage::Run { part, parts };
        let task = played.offer_stage((TRANSFORM, chain), stage, OutputMode::Inline, &files);
        played.send(&[task]);
        assert_eq!(inline(&played.wait_for(1).remove(0).result).len(), 24);
    }
    seconds(&process) - begun
}

fn parts_in(plan: &OwnedFd) -> u32 {
    let plan = File::from(plan.try_clone().unwrap());
    let mut head = [0; 8];
    plan.read_exact_at(&mut head, 0).unwrap();
    parts_of(head, plan.metadata().unwrap().len()).unwrap()
}

#[test]
#[ignore = "figures for people; takes a while"]
fn a_transform_in_a_worker_costs_what_its_frames_cost() {
    let clip = clip();
    let mut played = Played::up(false);
    println!("{:24} {:>8} {:>8} {:>7}", "1080p, frames/s", "calls", "worker", "ratio");
    for chain in ["scale=960x540", "gray", "blur=2", "rotate=90"] {
        let (mut calls, mut tasks) = (f64::MAX, f64::MAX);
        for _ in 0..TURNS {
            calls = calls.min(by_calls(&clip, chain));
            tasks = tasks.min(by_tasks(&mut played, &clip, chain));
        }
        let (calls, tasks) = (FRAMES as f64 / calls, FRAMES as f64 / tasks);
        println!("{chain:24} {calls:8.0} {tasks:8.0} {:7.2}", tasks / calls);
    }
}
