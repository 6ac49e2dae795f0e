//! Ranges in any order give what one pass from a pipe to a pipe gives.

use std::ops::ControlFlow::{Break, Continue};

use super::*;
use crate::merge::merge;
use crate::plan::Plan;
use crate::stream::stream;
use crate::test_clip::{MemoryClip, clip};

/// The output of a pass from front to back.
fn streamed(clip: &[u8], chain: &str) -> Vec<u8> {
    let mut output = Vec::new();
    stream(clip, &mut output, chain.parse().unwrap(), |_| ()).unwrap();
    output
}

/// A plan whose ranges have this many frames each, whatever they cost.
fn plan(clip: &[u8], chain: &str, each: usize) -> Plan {
    let file = MemoryClip::of(clip);
    let whole = Plan::new(&file, clip.len() as u64, chain.parse().unwrap()).unwrap();
    assert_eq!(whole.ranges.len(), 1);
    let mut ranges = Vec::new();
    let mut next = FrameRange { frames: 0, input_bytes: 0, output_bytes: 0, ..whole.ranges[0] };
    let (mut line, input) = (Vec::new(), whole.recipe.input().shape.bytes());
    for frame in 0..whole.frames() {
        frame_line(&file, (frame, next.input_at + next.input_bytes), &mut line).unwrap();
        next.frames += 1;
        next.input_bytes += line.len() as u64 + input;
        next.output_bytes += line.len() as u64 + whole.recipe.output().shape.bytes();
        if next.frames == each as u64 || frame + 1 == whole.frames() {
            ranges.push(next);
            next.first += next.frames;
            next.input_at += next.input_bytes;
            next.output_at += next.output_bytes;
            (next.frames, next.input_bytes, next.output_bytes) = (0, 0, 0);
        }
    }
    Plan { ranges, ..whole }
}

/// The output of ranges that run from the last to the first, each twice.
fn ranged(clip: &[u8], chain: &str, each: usize) -> Vec<u8> {
    let (file, output) = (MemoryClip::of(clip), MemoryClip::default());
    let plan = plan(clip, chain, each);
    let mut done = Vec::new();
    for range in plan.ranges.iter().rev() {
        let mut told = 0;
        run(&plan.recipe, range, &file, &output, |_| Continue(())).unwrap();
        done.push(
            run(&plan.recipe, range, &file, &output, |frames| {
                told = frames;
                Continue(())
            })
            .unwrap(),
        );
        assert_eq!(told, range.frames);
    }
    merge(&plan, &done, &output).unwrap();
    output.bytes()
}

#[test]
fn one_range_or_many_in_any_order_give_the_same_bytes() {
    let chains =
        ["scale=11x7", "blur=3,rotate=90", "gray,scale=30x20:bilinear", "mono", "crop=8x6+4+2,rotate=270"];
    for colour in ["420jpeg", "420p10", "422", "422p10", "444", "444p10", "mono", "mono10"] {
        let clip = clip(&format!("W21 H13 C{colour}"), &["", " Xsome", "", "", " I???", "", ""]);
        for chain in chains {
            let wanted = streamed(&clip, chain);
            for each in [1, 2, 3, 7] {
                assert!(ranged(&clip, chain, each) == wanted, "{colour} {chain} {each}");
            }
        }
    }
}

#[test]
fn lines_and_header_go_over() {
    let clip = clip("W4 H2 It Cmono Xhello", &["", " Ittt", ""]);
    let output = ranged(&clip, "gray", 2);
    assert_eq!(output, clip, "gray of mono changes nothing");
}

#[test]
fn gray_keeps_luma_and_makes_chroma_neutral() {
    let clip = clip("W5 H3 C420p10", &[""]);
    let output = streamed(&clip, "gray");
    let samples = clip.len() - 54;
    for (index, (before, after)) in clip[samples..].chunks(2).zip(output[samples..].chunks(2)).enumerate() {
        let before = u16::from_le_bytes([before[0], before[1]]).min(1023);
        let after = u16::from_le_bytes([after[0], after[1]]);
        assert_eq!(after, if index < 15 { before } else { 512 }, "{index}");
    }
}

#[test]
fn a_clip_that_changes_under_way_is_noticed() {
    let bytes = clip("W8 H8", &["", " Xa", ""]);
    for chain in ["scale=4x4", "gray"] {
        let plan = plan(&bytes, chain, 3);
        let told = |clip: &MemoryClip| {
            let output = MemoryClip::default();
            run(&plan.recipe, &plan.ranges[0], clip, &output, |_| Continue(())).unwrap_err().to_string()
        };
        for length in [30, 60, bytes.len() - 97, bytes.len() - 1] {
            let shrunk = MemoryClip::of(&bytes);
            shrunk.truncate(length);
            let told = told(&shrunk);
            assert!(told.contains("changed after the plan") || told.contains("ends within frame"), "{told}");
        }
        let other = clip("W8 H8", &["", "", "", ""]);
        assert!(told(&MemoryClip::of(&other)).contains("changed after the plan"));
        let longer = clip("W8 H8", &["", " Xa", " X"]);
        assert!(told(&MemoryClip::of(&longer)).contains("changed after the plan"));
    }
}

#[test]
fn an_output_without_room_is_told_with_its_byte() {
    let bytes = clip("W8 H8 Cmono", &["", ""]);
    let plan = plan(&bytes, "gray", 2);
    let output = MemoryClip { room: Some(100), ..MemoryClip::default() };
    let told =
        run(&plan.recipe, &plan.ranges[0], &MemoryClip::of(&bytes), &output, |_| Continue(())).unwrap_err();
    assert!(told.to_string().starts_with("output at byte 98: it cannot be written: "), "{told}");
}

#[test]
fn merge_counts_every_range_once() {
    let bytes = clip("W8 H8", &["", "", ""]);
    let plan = plan(&bytes, "gray", 1);
    let output = MemoryClip::default();
    let run = |range| run(&plan.recipe, range, &MemoryClip::of(&bytes), &output, |_| Continue(())).unwrap();
    let done: Vec<RangeDone> = plan.ranges.iter().map(run).collect();
    assert_ne!(&output.bytes()[..9], b"YUV4MPEG2", "no clip before the merge");
    let told = |done: &[RangeDone]| merge(&plan, done, &output).unwrap_err().to_string();
    assert_eq!(told(&done[1..]), "range of frame 0: it is missing from the output");
    assert_eq!(told(&[done[0], done[1], done[1], done[2]]), "range of frame 1: it was reported twice");
    let short = RangeDone { frames: 0, ..done[2] };
    assert_eq!(told(&[done[0], done[1], short]), "range of frame 2: it was not done as planned");
    let stray = RangeDone { first: 9, ..done[2] };
    assert_eq!(told(&[done[0], done[1], done[2], stray]), "range of frame 9: it is not in the plan");
    let total = merge(&plan, &done, &output).unwrap();
    assert_eq!((total.frames, total.bytes), (3, output.bytes().len() as u64));
}

#[test]
fn a_run_that_is_stopped_leaves_the_rest_as_it_is() {
    let bytes = clip("W4 H4", &[""; 5]);
    let plan = plan(&bytes, "gray", 5);
    let output = MemoryClip::of(&[]);
    let stop = |frames| if frames == 2 { Break(()) } else { Continue(()) };
    let stopped = run(&plan.recipe, &plan.ranges[0], &MemoryClip::of(&bytes), &output, stop).unwrap_err();
    assert!(matches!(stopped, TransformError::Stopped), "{stopped}");
    let whole = plan.ranges[0].output_bytes;
    assert!(output.bytes().len() as u64 <= plan.ranges[0].output_at + whole * 2 / 5);
    let told_late = |frames| if frames == 5 { Break(()) } else { Continue(()) };
    let done = run(&plan.recipe, &plan.ranges[0], &MemoryClip::of(&bytes), &output, told_late).unwrap();
    assert_eq!(done.frames, 5, "all of it was done");
}
