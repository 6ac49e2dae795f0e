//! Attacks by results: unknown forms, lengths that do not fit, text that is no UTF-8.
//!
//! Each reports its own bait as DONE, so only the form of the result is wrong. Driven by `hostile::main` when a worker
//! gets its bait.

use std::fs::File;
use std::sync::atomic::Ordering;

use bulkhead_link::worker::Finish;
use bulkhead_proto::limits::{
    ARENA_BYTES, BACKTRACE_MAX, BLOCK_MAX_BYTES, IMAGE_NAME_MAX_BYTES, IMAGES_MAX, INLINE_MAX_BYTES,
    LAST_WORDS_MAX_BYTES, OTHER_FRAMES_MAX, OUTPUT_MAX_BYTES, TEXT_MAX_BYTES,
};
use bulkhead_proto::worker::boxes::{
    self, ClaimState, ELAPSED_NS_AT, LAST_BREATH_AT, LENGTH_AT, OUTPUT_BYTES_AT, STATUS_AT,
};
use bulkhead_proto::worker::message::TaskMessage;

use super::puppet::{After, Puppet};
use super::{Attack, Deed};

const INLINE: u64 = 1;
const DESCRIPTOR: u64 = 2;
const FAILED: u64 = 3;
const BLOCK: u64 = 4;

pub(super) const ATTACKS: &[Attack] = &[
    ("status-0", Deed::Claimed(|puppet, task, _| say(puppet, task, 0, 4))),
    ("status-5", Deed::Claimed(|puppet, task, _| say(puppet, task, 5, 4))),
    ("block-without-an-arena", Deed::Claimed(|puppet, task, _| block(puppet, task, 0, 5000))),
    (
        "arena-block-beyond-the-end",
        Deed::Claimed(|puppet, task, _| block(puppet, task, ARENA_BYTES as u64, 5000)),
    ),
    ("arena-block-between-units", Deed::Claimed(|puppet, task, _| block(puppet, task, 8, 5000))),
    (
        "arena-block-too-long",
        Deed::Claimed(|puppet, task, _| block(puppet, task, 0, BLOCK_MAX_BYTES as u64 + 1)),
    ),
    ("arena-block-of-nothing", Deed::Claimed(|puppet, task, _| block(puppet, task, 0, 0))),
    ("arena-block-that-wraps", Deed::Claimed(|puppet, task, _| block(puppet, task, u64::MAX - 4095, 4096))),
    ("status-all-ones", Deed::Claimed(|puppet, task, _| say(puppet, task, u64::MAX, 4))),
    (
        "length-over-the-limit",
        Deed::Claimed(|puppet, task, _| say(puppet, task, INLINE, INLINE_MAX_BYTES as u64 + 1)),
    ),
    ("length-all-ones", Deed::Claimed(|puppet, task, _| say(puppet, task, INLINE, u64::MAX))),
    ("length-of-a-box", Deed::Claimed(|puppet, task, _| say(puppet, task, INLINE, boxes::BOX_BYTES as u64))),
    (
        "text-over-the-limit",
        Deed::Claimed(|puppet, task, _| say(puppet, task, FAILED, TEXT_MAX_BYTES as u64 + 1)),
    ),
    ("text-that-is-none", Deed::Claimed(no_text)),
    ("descriptor-without-one", Deed::Claimed(|puppet, task, _| say(puppet, task, DESCRIPTOR, 0))),
    (
        "output-over-the-limit",
        Deed::Claimed(|puppet, task, _| {
            puppet.put_field(task.seq, OUTPUT_BYTES_AT, OUTPUT_MAX_BYTES + 1);
            say(puppet, task, DESCRIPTOR, 0)
        }),
    ),
    ("evidence-of-garbage", Deed::Claimed(|puppet, _, _| tell_garbage(puppet))),
    ("takes-for-ever-it-says", Deed::Claimed(|puppet, task, _| elapsed(puppet, task, u64::MAX))),
    ("takes-no-time-it-says", Deed::Claimed(|puppet, task, _| elapsed(puppet, task, 0))),
];

/// Says DONE with this status and length.
fn say(puppet: &mut Puppet, task: &TaskMessage, status: u64, length: u64) -> After {
    puppet.put_field(task.seq, STATUS_AT, status);
    puppet.put_field(task.seq, LENGTH_AT, length);
    puppet.put(task.seq, ClaimState::Done);
    puppet.ring_if_asleep();
    After::Sit
}

/// Says DONE with a block at this place, in which nothing was written.
fn block(puppet: &mut Puppet, task: &TaskMessage, offset: u64, bytes: u64) -> After {
    puppet.put_field(task.seq, OUTPUT_BYTES_AT, offset);
    say(puppet, task, BLOCK, bytes)
}

/// Frames without end, progress beyond all bounds and last words that would paint a terminal; then a death that makes
/// them all credible.
fn tell_garbage(puppet: &mut Puppet) -> ! {
    let page = &puppet.box_page;
    let words = "\u{1b}[2J\u{202e}\r\n\0".repeat(LAST_WORDS_MAX_BYTES / 10 - 1);
    for place in [0, 1] {
        page.write_bytes(boxes::words_at(place), &[words.as_bytes(), &[0xff, 0xfe]].concat());
    }
    for frame in 0..BACKTRACE_MAX {
        page.store(boxes::FRAMES_AT + 8 * frame, u64::MAX << frame, Ordering::SeqCst);
    }
    for frame in 0..OTHER_FRAMES_MAX {
        page.store(boxes::OTHER_FRAMES_AT + 16 * frame, u64::MAX, Ordering::SeqCst);
        page.store(boxes::OTHER_FRAMES_AT + 16 * frame + 8, frame as u64, Ordering::SeqCst);
    }
    for image in 0..IMAGES_MAX {
        let name = "\u{1b}[2J\u{202e}\r\n\u{85}".repeat(IMAGE_NAME_MAX_BYTES / 11);
        page.write_bytes(boxes::IMAGES_AT + image * IMAGE_NAME_MAX_BYTES, name.as_bytes());
    }
    for (at, value) in [
        (boxes::OTHER_FRAME_COUNT_AT, u64::MAX),
        (boxes::FRAME_COUNT_AT, u64::MAX),
        (boxes::FRAMES_SEARCHED_AT, 1),
        (boxes::PROGRESS_DONE_AT, u64::MAX),
        (boxes::PROGRESS_TOTAL_AT, 1),
        (boxes::PROGRESS_NS_AT, u64::MAX),
        (boxes::LAST_WORDS_AT, boxes::pack_words(words.len() + 2, 1)),
        (boxes::CAUSE_CODE_AT, u64::MAX - 60),
        (boxes::CAUSE_SIGNAL_AT, 11),
    ] {
        page.store(at, value, Ordering::SeqCst);
    }
    bulkhead_sys::raise::fault()
}

fn no_text(puppet: &mut Puppet, task: &TaskMessage, _: Option<File>) -> After {
    puppet.put_field(task.seq, boxes::SMALL_AT, u64::MAX);
    say(puppet, task, FAILED, 8)
}

/// A good result, with a time that it cannot have taken, and a death that it did not die.
fn elapsed(puppet: &mut Puppet, task: &TaskMessage, elapsed_ns: u64) -> After {
    puppet.box_page.store(LAST_BREATH_AT, u64::MAX - 1, Ordering::SeqCst);
    puppet.ring.finish(task.seq, &Finish::Inline(task.input.as_bytes()));
    puppet.put_field(task.seq, ELAPSED_NS_AT, elapsed_ns);
    puppet.ring_if_asleep();
    After::Serve
}
