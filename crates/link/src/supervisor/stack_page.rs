//! The page in which a worker's own runtime writes its stack as text, from the supervisor's side.
//!
//! The supervisor makes it for a worker whose hello asks for it, keeps a mapping and closes the descriptor that it sent.
//! The page is sealed against changes of its size, so that reading it cannot fault. It is read once, after the proof of
//! death, and only if the word at its start names the offer that the worker had claimed first: a text that was written for
//! another task is nobody's. The text may be anything. It is bounded here, and escaped where it is shown.
//! The worker's side is `worker/stack_page.rs`.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use bulkhead_proto::ids::Seq;
use bulkhead_proto::limits::{STACK_PAGE_BYTES, STACK_TEXT_MAX_BYTES};
use bulkhead_proto::worker::boxes::{STACK_SEQ_AT, STACK_TEXT_AT};
use bulkhead_sys::shared_page::SharedPage;

/// Stands behind a text that fills its page.
pub const CUT_MARK: &str = "\n[cut: the page for it is full]";

/// The page of one worker.
#[derive(Debug)]
pub struct StackPageReader(SharedPage);

impl StackPageReader {
    /// Makes an empty page, and the descriptor for the worker, which is to be closed once it is sent.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM: retry later.
    pub fn create() -> io::Result<(Self, OwnedFd)> {
        let (page, descriptor) = SharedPage::create("bulkhead-stack", STACK_PAGE_BYTES)?;
        Ok((Self(page), descriptor))
    }

    /// The text that was written for this offer; empty if there is none. Invalid UTF-8 is replaced, which can lengthen the
    /// text, so it is cut again.
    pub fn text(&self, seq: Seq) -> String {
        if seq.0 == 0 || self.0.load(STACK_SEQ_AT, Ordering::Acquire) != seq.0 {
            return String::new();
        }
        let mut bytes = [0; STACK_TEXT_MAX_BYTES];
        self.0.read_bytes(STACK_TEXT_AT, &mut bytes);
        let end = bytes.iter().position(|byte| *byte == 0);
        let mut text = String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned();
        if end.is_none() || text.len() > STACK_TEXT_MAX_BYTES {
            text.truncate(text.floor_char_boundary(STACK_TEXT_MAX_BYTES));
            text.push_str(CUT_MARK);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;
    use crate::worker::StackPage;

    fn pages() -> (StackPageReader, StackPage) {
        let (page, descriptor) = StackPageReader::create().unwrap();
        (page, StackPage::map(descriptor).unwrap())
    }

    #[test]
    fn a_text_belongs_to_the_offer_for_which_it_was_written() {
        let (page, worker) = pages();
        assert_eq!(page.text(Seq(0)), "");
        worker.begin(Seq(7));
        (&worker).write_all(b"line 1\nline 2\n").unwrap();
        assert_eq!([7, 6, 8, 0].map(|seq| page.text(Seq(seq))), ["line 1\nline 2\n", "", "", ""]);
        worker.end();
        assert_eq!(page.text(Seq(7)), "");
        worker.begin(Seq(8));
        assert_eq!(page.text(Seq(8)), "", "it was emptied");
        (&worker).write_all(b"new").unwrap();
        assert_eq!(page.text(Seq(8)), "new", "and is written from its start");
    }

    /// A thread that the task before left behind writes between two tasks.
    #[test]
    fn what_is_written_between_two_tasks_belongs_to_neither() {
        let (page, worker) = pages();
        worker.begin(Seq(7));
        worker.end();
        (&worker).write_all(b"late").unwrap();
        assert_eq!([7, 8, 0].map(|seq| page.text(Seq(seq))), ["", "", ""]);
        worker.begin(Seq(8));
        assert_eq!(page.text(Seq(8)), "");
    }

    #[test]
    fn a_text_that_fills_the_page_is_cut_with_a_mark_and_the_page_keeps_its_size() {
        let (page, worker) = pages();
        worker.begin(Seq(1));
        let long = "ä".repeat(STACK_TEXT_MAX_BYTES);
        assert!((&worker).write_all(long.as_bytes()).is_err(), "the size is sealed");
        let text = page.text(Seq(1));
        assert_eq!(text.strip_suffix(CUT_MARK).map(str::len), Some(STACK_TEXT_MAX_BYTES));
        worker.end();
        worker.begin(Seq(2));
        (&worker).write_all(&[0xff; STACK_TEXT_MAX_BYTES]).unwrap();
        assert!(page.text(Seq(2)).len() <= STACK_TEXT_MAX_BYTES + CUT_MARK.len());
    }

    #[test]
    fn any_bytes_are_a_text() {
        let (page, descriptor) = StackPageReader::create().unwrap();
        let hostile = File::from(descriptor.try_clone().unwrap());
        let worker = StackPage::map(descriptor).unwrap();
        worker.begin(Seq(1));
        assert!(hostile.set_len(0).is_err() && hostile.set_len(1 << 20).is_err());
        (&worker).write_all(b"\x1b[2J\xff\0hidden").unwrap();
        assert_eq!(page.text(Seq(1)), "\u{1b}[2J\u{fffd}");
    }
}
