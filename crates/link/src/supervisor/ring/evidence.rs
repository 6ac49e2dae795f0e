//! Reads the evidence in the box of a dead worker: frames, progress, last words of its task.
//!
//! The worker wrote it, so only its form is checked: lengths are bounded, and invalid UTF-8 is replaced. Nothing is
//! decided by it; a program that shows the words escapes control characters. Called by `ring.rs`.

use std::sync::atomic::Ordering;

use bulkhead_proto::client::evidence::{Evidence, OtherFrame, TaskProgress};
use bulkhead_proto::limits::{
    BACKTRACE_MAX, IMAGE_NAME_MAX_BYTES, IMAGES_MAX, LAST_WORDS_MAX_BYTES, OTHER_FRAMES_MAX, SURVIVORS_TOLD,
};
use bulkhead_proto::plain::is_obeyed;
use bulkhead_proto::worker::boxes::{
    CAUSE_SIGNAL_AT, FRAME_COUNT_AT, FRAMES_AT, FRAMES_SEARCHED_AT, IMAGES_AT, LAST_WORDS_AT,
    OTHER_FRAME_COUNT_AT, OTHER_FRAMES_AT, PROGRESS_DONE_AT, PROGRESS_NS_AT, PROGRESS_TOTAL_AT,
    SURVIVOR_COUNT_AT, SURVIVORS_AT, unpack_words,
};
use bulkhead_sys::shared_page::SharedPage;

/// Reads all of it. `signal` is the one that ended the worker; frames are read only if the crash record names the
/// same one.
pub(super) fn read(page: &SharedPage, signal: Option<i32>) -> Evidence {
    let said = page.load(CAUSE_SIGNAL_AT, Ordering::Acquire);
    let spoke = signal.is_some_and(|signal| said == u64::from(signal.unsigned_abs()));
    let frames = if spoke { frames(page) } else { Vec::new() };
    let other_frames = if spoke { other_frames(page, frames.len()) } else { Vec::new() };
    let has_frames = !frames.is_empty() || !other_frames.is_empty();
    let searched = has_frames && page.load(FRAMES_SEARCHED_AT, Ordering::Relaxed) == 1;
    let (progress, last_words) = (progress(page), last_words(page));
    Evidence { frames, other_frames, searched, progress, last_words, ..Evidence::default() }
}

/// The process ids of what the worker could not end of its last task, as it says.
pub(super) fn survivors(page: &SharedPage) -> Vec<u32> {
    let count = usize::try_from(page.load(SURVIVOR_COUNT_AT, Ordering::Acquire)).unwrap_or(usize::MAX);
    let pid = |place: usize| u32::try_from(page.load(SURVIVORS_AT + 8 * place, Ordering::Relaxed)).ok();
    (0..count.min(SURVIVORS_TOLD)).filter_map(pid).collect()
}

fn frames(page: &SharedPage) -> Vec<u64> {
    let count = usize::try_from(page.load(FRAME_COUNT_AT, Ordering::Acquire)).unwrap_or(usize::MAX);
    let count = count.min(BACKTRACE_MAX);
    (0..count).map(|frame| page.load(FRAMES_AT + 8 * frame, Ordering::Relaxed)).collect()
}

/// Frames of other files, beside `own` frames of the program. One with a name that cannot be is left out.
fn other_frames(page: &SharedPage, own: usize) -> Vec<OtherFrame> {
    let count = usize::try_from(page.load(OTHER_FRAME_COUNT_AT, Ordering::Acquire)).unwrap_or(usize::MAX);
    let read = |frame: usize| {
        let at = OTHER_FRAMES_AT + 16 * frame;
        let (offset, word) = (page.load(at, Ordering::Relaxed), page.load(at + 8, Ordering::Relaxed));
        let image = image_name(page, usize::try_from(word & 0xff).ok()?)?;
        let after = u8::try_from(word >> 8).ok().filter(|after| usize::from(*after) <= own)?;
        Some(OtherFrame { image, offset, after })
    };
    (0..count.min(OTHER_FRAMES_MAX)).filter_map(read).collect()
}

/// The name of a file: a character that a terminal would obey becomes a question mark.
fn image_name(page: &SharedPage, place: usize) -> Option<String> {
    if place >= IMAGES_MAX {
        return None;
    }
    let mut bytes = [0; IMAGE_NAME_MAX_BYTES];
    page.read_bytes(IMAGES_AT + place * IMAGE_NAME_MAX_BYTES, &mut bytes);
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let name = String::from_utf8_lossy(&bytes[..end]);
    let mut name: String = name.chars().map(|letter| if is_obeyed(letter) { '?' } else { letter }).collect();
    name.truncate(name.floor_char_boundary(IMAGE_NAME_MAX_BYTES));
    (!name.is_empty()).then_some(name)
}

pub(super) fn progress(page: &SharedPage) -> Option<TaskProgress> {
    let ns = page.load(PROGRESS_NS_AT, Ordering::Acquire);
    let word = |at: usize| page.load(at, Ordering::Relaxed);
    (ns != 0).then(|| TaskProgress { done: word(PROGRESS_DONE_AT), total: word(PROGRESS_TOTAL_AT) })
}

/// Invalid UTF-8 is replaced, which can lengthen the text, so it is cut again.
fn last_words(page: &SharedPage) -> String {
    let Some((bytes, at)) = unpack_words(page.load(LAST_WORDS_AT, Ordering::Acquire)) else {
        return String::new();
    };
    let mut words = vec![0; bytes];
    page.read_bytes(at, &mut words);
    let mut text = String::from_utf8_lossy(&words).into_owned();
    text.truncate(text.floor_char_boundary(LAST_WORDS_MAX_BYTES));
    text
}

#[cfg(test)]
mod tests {
    use bulkhead_proto::ids::Seq;
    use bulkhead_proto::worker::boxes::{BOX_HEADER_BYTES, pack_words, words_at};

    use super::super::tests::{offer, rings};
    use super::*;
    use crate::worker::Finish;

    fn forged(words: &[(usize, u64)]) -> SharedPage {
        let (page, _) = SharedPage::create("box", BOX_HEADER_BYTES).unwrap();
        words.iter().for_each(|(at, value)| page.store(*at, *value, Ordering::Relaxed));
        page
    }

    #[test]
    fn progress_and_words_are_those_of_the_running_task() {
        let (mut ring, worker, _) = rings();
        offer(&mut ring, 1..=2);
        assert!(worker.claim(Seq(1)));
        assert_eq!(ring.evidence(None), Evidence::default());
        assert_eq!(ring.progress_ns(u64::MAX), None);
        worker.progress(3, 7);
        worker.say("row 3");
        worker.say("row 4");
        let told = ring.evidence(None);
        assert_eq!(told.progress, Some(TaskProgress { done: 3, total: 7 }));
        assert_eq!(ring.progress(), told.progress);
        assert_eq!(told.last_words, "row 4");
        let moment = ring.progress_ns(u64::MAX).unwrap();
        assert!(moment != u64::MAX && ring.progress_ns(moment - 1) == Some(moment - 1));
        worker.finish(Seq(1), &Finish::Inline(&[]));
        assert!(worker.claim(Seq(2)));
        assert_eq!(ring.evidence(None), Evidence::default());
        assert_eq!(ring.progress_ns(u64::MAX), None);
    }

    #[test]
    fn long_words_are_cut_and_no_words_take_the_last_ones_back() {
        let (ring, worker, _) = rings();
        worker.say(&"ä".repeat(LAST_WORDS_MAX_BYTES));
        assert_eq!(ring.evidence(None).last_words, "ä".repeat(LAST_WORDS_MAX_BYTES / 2));
        worker.say("");
        assert_eq!(ring.evidence(None).last_words, "");
    }

    #[test]
    fn a_death_in_mid_sentence_leaves_the_one_before() {
        let (ring, worker, hostile) = rings();
        worker.say("whole");
        // The bytes of the next words are there, the word that points to them is not.
        hostile.write_bytes(words_at(1), b"half");
        assert_eq!(ring.evidence(None).last_words, "whole");
    }

    #[test]
    fn words_that_cannot_be_are_none_and_no_text_is_made_text() {
        for word in [1, pack_words(LAST_WORDS_MAX_BYTES + 1, 0), u64::MAX] {
            assert_eq!(read(&forged(&[(LAST_WORDS_AT, word)]), None).last_words, "");
        }
        let page = forged(&[(LAST_WORDS_AT, pack_words(LAST_WORDS_MAX_BYTES, 1))]);
        page.write_bytes(words_at(1), &[0xff; LAST_WORDS_MAX_BYTES]);
        let text = read(&page, None).last_words;
        assert!(
            text.len() <= LAST_WORDS_MAX_BYTES && text.chars().all(|letter| letter == '\u{fffd}'),
            "{text:?}"
        );
    }

    #[test]
    fn frames_are_bounded_and_of_the_signal_that_the_kernel_names() {
        let page = forged(&[(CAUSE_SIGNAL_AT, 11), (FRAME_COUNT_AT, u64::MAX)]);
        let addresses: Vec<u64> = (0..BACKTRACE_MAX as u64).map(|frame| 0x1000 + frame).collect();
        for (frame, address) in addresses.iter().enumerate() {
            page.store(FRAMES_AT + 8 * frame, *address, Ordering::Relaxed);
        }
        assert_eq!(read(&page, Some(11)).frames, addresses);
        assert!(!read(&page, Some(11)).searched);
        page.store(FRAMES_SEARCHED_AT, 1, Ordering::Relaxed);
        assert!(read(&page, Some(11)).searched);
        for other in [None, Some(9), Some(6)] {
            assert_eq!(read(&page, other), Evidence::default());
        }
    }

    #[test]
    fn frames_of_other_files_have_clean_names_and_a_bound() {
        let page = forged(&[(CAUSE_SIGNAL_AT, 11), (FRAME_COUNT_AT, 2), (OTHER_FRAME_COUNT_AT, u64::MAX)]);
        let put = |frame: usize, offset: u64, word: u64| {
            page.store(OTHER_FRAMES_AT + 16 * frame, offset, Ordering::Relaxed);
            page.store(OTHER_FRAMES_AT + 16 * frame + 8, word, Ordering::Relaxed);
        };
        page.write_bytes(IMAGES_AT, "lib\u{1b}[2J\u{202e}\n ü.so".as_bytes());
        page.write_bytes(IMAGES_AT + IMAGE_NAME_MAX_BYTES, &[0xff; IMAGE_NAME_MAX_BYTES]);
        put(0, 0x10, 0);
        put(1, 0x20, 2 << 8 | 1);
        // No name, no such place for a name, more own frames than there are.
        put(2, 0x30, 2);
        put(3, 0x30, IMAGES_MAX as u64);
        put(4, 0x30, 3 << 8);
        put(5, 0x30, u64::MAX);
        (6..OTHER_FRAMES_MAX).for_each(|frame| put(frame, 0x30, 0));
        let found = read(&page, Some(11)).other_frames;
        assert_eq!(found.len(), 2 + OTHER_FRAMES_MAX - 6);
        let first = OtherFrame { image: "lib?[2J?? ü.so".to_owned(), offset: 0x10, after: 0 };
        assert_eq!((&found[0], found[1].after, found[1].offset), (&first, 2, 0x20));
        assert!(found[1].image.len() <= IMAGE_NAME_MAX_BYTES, "{found:?}");
        assert!(read(&page, Some(6)).other_frames.is_empty());
    }
}
