//! Tests of `transform` over memory: every task by itself, in any order, twice, and with what it cannot take.

use bulkhead_proto::file::Way;
use bulkhead_proto::worker::stage::pack;

use super::*;
use crate::test_task::{TestFile, TestTask};

/// A clip of so many frames of noise.
fn clip(header: &str, frame_bytes: usize, frames: usize) -> Vec<u8> {
    let mut clip = format!("YUV4MPEG2 {header}\n").into_bytes();
    let mut state = 1_u32;
    for _ in 0..frames {
        clip.extend_from_slice(b"FRAME\n");
        clip.extend((0..frame_bytes).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        }));
    }
    clip
}

/// A job of this clip, and the place of its output.
fn job(clip: &[u8]) -> TestTask {
    TestTask::default().with_file(IN, Way::In, TestFile::of(clip)).with_shared(TestFile::default())
}

/// Does the whole job, its parts in this order, and gives the output.
fn transformed(clip: &[u8], chain: &str, order: impl Fn(usize) -> Vec<usize>) -> Result<Vec<u8>, String> {
    let mut task = job(clip);
    let (input, told) = (chain.as_bytes(), |failure: TaskFailure| failure.to_string());
    let split = TransformKind.plan(input, &mut task).map_err(told)?;
    let planned = Planned { input, common: &split.common };
    let mut results = vec![Vec::new(); split.parts.len()];
    for part in order(split.parts.len()) {
        task.output.clear();
        TransformKind.run(planned, &split.parts[part], &mut task).map_err(told)?;
        results[part] = std::mem::take(&mut task.output);
    }
    let (parts, results) = (TestFile::of(&pack(&split.parts)), TestFile::of(&pack(&results)));
    let parts = PackedParts::open(&parts, parts.len()).unwrap();
    let results = PackedParts::open(&results, results.len()).unwrap();
    TransformKind.merge(planned, &parts, &results, &mut task).map_err(told)?;
    assert!(task.output.is_empty(), "the output is in place");
    Ok(task.shared_bytes())
}

const CHAIN: &str = "scale=1280x960,blur=9,scale=320x240";

#[test]
fn parts_in_any_order_and_twice_give_the_same_clip() {
    let clip = clip("W320 H240", 320 * 240 * 3 / 2, 90);
    let once = transformed(&clip, CHAIN, |parts| (0..parts).collect()).unwrap();
    let twice =
        transformed(&clip, CHAIN, |parts| (0..parts).rev().chain((0..parts).rev()).collect()).unwrap();
    assert!(once == twice && once.starts_with(b"YUV4MPEG2 W320 H240"));
    assert_eq!(once.len(), clip.len() + once.iter().position(|byte| *byte == b'\n').unwrap() - 19);
    let parts = TransformKind.plan(CHAIN.as_bytes(), &mut job(&clip)).unwrap().parts.len();
    assert!(parts > 2, "{parts} parts show nothing");
}

#[test]
fn a_part_that_was_left_out_is_named() {
    let clip = clip("W320 H240", 320 * 240 * 3 / 2, 90);
    let fault = transformed(&clip, CHAIN, |parts| (1..parts).collect()).unwrap_err();
    assert_eq!(fault, "a part or its result is 0 bytes long, not 24");
}

#[test]
fn a_part_tells_how_many_of_its_frames_are_done() {
    let clip = clip("W4 H4", 24, 3);
    let mut task = job(&clip);
    let split = TransformKind.plan(b"gray", &mut task).unwrap();
    let planned = Planned { input: b"gray", common: &split.common };
    TransformKind.run(planned, &split.parts[0], &mut task).unwrap();
    assert_eq!(task.progress, Some((3, 3)));
    assert_eq!(task.said.last().unwrap(), "frames from 0 on");
}

#[test]
fn what_it_cannot_take_is_told_before_a_part_is_run() {
    let whole = clip("W4 H4", 24, 2);
    let told = |clip: &[u8], chain: &str| transformed(clip, chain, |_| Vec::new()).unwrap_err();
    assert!(told(&whole, "spin=3").starts_with("operation \"spin=3\" is not known; give some of"));
    assert!(told(&whole[..whole.len() - 1], "gray").contains("the clip ends within frame 1, 1 bytes early"));
    assert!(told(b"", "gray").starts_with("clip at byte 0: it is empty"));
    let none = TransformKind.plan(b"gray", &mut TestTask::default()).unwrap_err().to_string();
    assert_eq!(none, "the job comes without a file \"in\": give it one");
    let mut placeless = TestTask::default().with_file(IN, Way::In, TestFile::of(&whole));
    let placeless = TransformKind.plan(b"gray", &mut placeless).unwrap_err().to_string();
    assert!(placeless.contains("no place for an output"), "{placeless}");
}

#[test]
fn a_clip_that_changed_under_way_fails_its_part() {
    let whole = clip("W4 H4", 24, 2);
    let mut task = job(&whole);
    let split = TransformKind.plan(b"gray", &mut task).unwrap();
    let planned = Planned { input: b"gray", common: &split.common };
    let mut shrunk = job(&whole[..whole.len() - 7]);
    let fault = TransformKind.run(planned, &split.parts[0], &mut shrunk).unwrap_err().to_string();
    assert!(fault.contains("the clip was changed after the plan was made"), "{fault}");
}

#[test]
fn a_forged_part_is_refused() {
    let whole = clip("W4 H4", 24, 2);
    let mut task = job(&whole);
    let split = TransformKind.plan(b"gray", &mut task).unwrap();
    let planned = Planned { input: b"gray", common: &split.common };
    for part in [&b""[..], b"x", &[0; 47], &[0; 49]] {
        let fault = TransformKind.run(planned, part, &mut task).unwrap_err().to_string();
        assert!(fault.ends_with("bytes long, not 48"), "{fault}");
    }
    let fault = TransformKind.run(planned, &[255; 48], &mut task).unwrap_err().to_string();
    assert!(fault.contains("reaches beyond any clip"), "{fault}");
}
