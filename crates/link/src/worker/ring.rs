//! The worker's view of its ring: claims, results and doorbells.
//!
//! A claim comes right before a task's first instruction, a result before its DONE, and DONE before the next
//! claim. Why no doorbell is lost stands with the supervisor's half; the worker's part of it is that
//! [`WorkerRing::finish`] ends with a fence and [`WorkerRing::should_ring`] is asked after each.

use std::cell::Cell;
use std::io;
use std::num::NonZeroU8;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{Ordering, fence};

use bulkhead_proto::ids::Seq;
use bulkhead_proto::limits::{BACKTRACE_MAX, INLINE_MAX_BYTES, LAST_WORDS_MAX_BYTES, TEXT_MAX_BYTES};
use bulkhead_proto::worker::boxes::{
    self, BOX_BYTES, CAUSE_CODE_AT, CAUSE_SIGNAL_AT, CLAIMED_NS_AT, ClaimState, ClaimWord, ELAPSED_NS_AT,
    FAILED_ALLOCATION_AT, FAULT_ADDRESS_AT, FRAME_COUNT_AT, FRAMES_AT, FRAMES_SEARCHED_AT, LAST_BREATH_AT,
    LAST_WORDS_AT, LENGTH_AT, NAP_AT, ORDERS_BYTES, OUTPUT_BYTES_AT, PROGRESS_DONE_AT, PROGRESS_NS_AT,
    PROGRESS_TOTAL_AT, ReportStatus, SENDER_PID_AT, STACK_OVERFLOW_AT, STATUS_AT, UNWANTED_AT, WORD_AT,
};
use bulkhead_sys::clock::monotonic_ns;
use bulkhead_sys::crash_handler::{self, CrashRecordLayout};
use bulkhead_sys::shared_page::SharedPage;

/// Where the handler of fatal signals leaves its words.
const CRASH_RECORD: CrashRecordLayout = CrashRecordLayout {
    moment: LAST_BREATH_AT,
    signal: CAUSE_SIGNAL_AT,
    code: CAUSE_CODE_AT,
    address: FAULT_ADDRESS_AT,
    sender: SENDER_PID_AT,
    stack_overflow: STACK_OVERFLOW_AT,
    allocation: FAILED_ALLOCATION_AT,
    frame_count: FRAME_COUNT_AT,
    frames_searched: FRAMES_SEARCHED_AT,
    frames: FRAMES_AT,
    frames_max: BACKTRACE_MAX,
};

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish<'a> {
    /// Done, with these bytes: at most [`INLINE_MAX_BYTES`].
    Inline(&'a [u8]),
    /// Done, with its output in its descriptor.
    Descriptor {
        /// So many bytes.
        bytes: u64,
    },
    /// Its own code said no. Cut after [`TEXT_MAX_BYTES`].
    Failed {
        /// What it said.
        text: &'a str,
        /// What it wrote before, as far as it is kept.
        output: PartialOutput<'a>,
        /// The exit code of the program that it was.
        code: Option<NonZeroU8>,
    },
}

/// What a task that failed had written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartialOutput<'a> {
    /// Nothing, or nothing that is kept.
    Nothing,
    /// These bytes; kept if they fit behind the text, see [`PartialOutput::fits`].
    Inline(&'a [u8]),
    /// So many bytes in its descriptor; more than fit behind any text.
    Descriptor {
        /// So many.
        bytes: u64,
    },
}

impl PartialOutput<'_> {
    /// Whether so many bytes fit behind a failure's text.
    pub fn fits(text: &str, bytes: usize) -> bool {
        boxes::behind_text(cut(text, TEXT_MAX_BYTES).len(), bytes as u64).is_some()
    }
}

/// Box and orders, mapped.
#[derive(Debug)]
pub struct WorkerRing {
    box_page: SharedPage,
    orders: SharedPage,
    /// The last offer that was claimed.
    claimed: Cell<Seq>,
    claimed_ns: Cell<u64>,
    rung_for: u64,
    /// The running task has told its progress or its words: they are to be cleared when it is done.
    told: Cell<bool>,
    /// The place of the next last words; its lowest bit counts.
    place: Cell<u64>,
}

impl WorkerRing {
    /// Maps the two descriptors that came with the setup: the box, then the orders.
    ///
    /// # Errors
    /// EINVAL: there are not two, or they are not the pages of this version. ENOMEM.
    pub fn map(descriptors: &[OwnedFd]) -> io::Result<Self> {
        let [box_descriptor, orders_descriptor] = descriptors else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "setup needs two descriptors"));
        };
        Ok(Self {
            box_page: SharedPage::map_shared(box_descriptor.as_fd(), BOX_BYTES)?,
            orders: SharedPage::map_read_only(orders_descriptor.as_fd(), ORDERS_BYTES)?,
            claimed: Cell::new(Seq(0)),
            claimed_ns: Cell::new(0),
            rung_for: 0,
            told: Cell::new(false),
            place: Cell::new(0),
        })
    }

    /// Has every death of this process by a signal leave its cause in the box that [`Self::map`] was given. Once a
    /// process, on the thread that runs the tasks.
    ///
    /// # Errors
    /// As [`crash_handler::install`]; EINVAL, ENOMEM: the box cannot be mapped again.
    pub fn install_crash_handler(descriptors: &[OwnedFd]) -> io::Result<()> {
        let box_descriptor = descriptors.first().ok_or(io::ErrorKind::InvalidInput)?;
        crash_handler::install(SharedPage::map_shared(box_descriptor.as_fd(), BOX_BYTES)?, &CRASH_RECORD)
    }

    /// OFFERED -> CLAIMED. `false`: the offer was taken back; nothing of it may run.
    pub fn claim(&self, seq: Seq) -> bool {
        let at = boxes::entry_at(boxes::index_of(seq));
        let (offered, claimed) =
            (ClaimWord::pack(seq, ClaimState::Offered), ClaimWord::pack(seq, ClaimState::Claimed));
        let won = self.box_page.compare_exchange(at + WORD_AT, offered, claimed).is_ok();
        if won {
            let now_ns = monotonic_ns();
            self.claimed.set(seq);
            self.claimed_ns.set(now_ns);
            self.box_page.store(at + CLAIMED_NS_AT, now_ns, Ordering::Relaxed);
        }
        won
    }

    /// CLAIMED -> DONE: the result, then the word. Progress and last words are cleared after it, before anything
    /// else is claimed: they are never taken for another task's.
    ///
    /// # Panics
    /// If inline bytes are over [`INLINE_MAX_BYTES`].
    pub fn finish(&self, seq: Seq, finish: &Finish<'_>) {
        let index = boxes::index_of(seq);
        let at = boxes::entry_at(index);
        let store = |field: usize, value: u64| self.box_page.store(at + field, value, Ordering::Relaxed);
        let put = |status: ReportStatus, length: usize, bytes: &[u8], output_bytes: u64| {
            assert!(bytes.len() <= INLINE_MAX_BYTES, "an inline result is bounded by its writer");
            self.box_page.write_bytes(boxes::result_at(index, bytes.len()), bytes);
            store(STATUS_AT, status.pack());
            store(LENGTH_AT, length as u64);
            store(OUTPUT_BYTES_AT, output_bytes);
        };
        match *finish {
            Finish::Inline(bytes) => put(ReportStatus::Inline, bytes.len(), bytes, 0),
            Finish::Descriptor { bytes } => put(ReportStatus::Descriptor, 0, &[], bytes),
            Finish::Failed { text, output, code } => {
                let text = cut(text, TEXT_MAX_BYTES).as_bytes();
                let status = ReportStatus::Failed { code };
                match output {
                    PartialOutput::Nothing => put(status, text.len(), text, 0),
                    PartialOutput::Inline(bytes) => {
                        put(status, text.len(), &[text, bytes].concat(), bytes.len() as u64);
                    }
                    PartialOutput::Descriptor { bytes } => put(status, text.len(), text, bytes),
                }
            }
        }
        store(ELAPSED_NS_AT, monotonic_ns().saturating_sub(self.claimed_ns.get()));
        self.box_page.store(at + WORD_AT, ClaimWord::pack(seq, ClaimState::Done), Ordering::Release);
        fence(Ordering::SeqCst);
        if self.told.replace(false) {
            let header = |field: usize| self.box_page.store(field, 0, Ordering::Relaxed);
            [PROGRESS_NS_AT, PROGRESS_DONE_AT, PROGRESS_TOTAL_AT, LAST_WORDS_AT].into_iter().for_each(header);
        }
    }

    /// How far the running task is: three stores and a look at the clock.
    pub fn progress(&self, done: u64, total: u64) {
        self.told.set(true);
        self.box_page.store(PROGRESS_DONE_AT, done, Ordering::Relaxed);
        self.box_page.store(PROGRESS_TOTAL_AT, total, Ordering::Relaxed);
        self.box_page.store(PROGRESS_NS_AT, monotonic_ns(), Ordering::Release);
    }

    /// What the running task says, in place of what it said before. Cut after [`LAST_WORDS_MAX_BYTES`].
    pub fn say(&self, words: &str) {
        self.told.set(true);
        let bytes = cut(words, LAST_WORDS_MAX_BYTES).as_bytes();
        let place = self.place.replace(self.place.get() + 1);
        self.box_page.write_bytes(boxes::words_at(place), bytes);
        let word = if bytes.is_empty() { 0 } else { boxes::pack_words(bytes.len(), place) };
        self.box_page.store(LAST_WORDS_AT, word, Ordering::Release);
    }

    /// Whether the supervisor sleeps and was not rung for in this nap: ring once if so. To be asked after each
    /// [`Self::finish`].
    pub fn should_ring(&mut self) -> bool {
        let nap = self.orders.load(NAP_AT, Ordering::SeqCst);
        let ring = nap % 2 == 1 && nap != self.rung_for;
        if ring {
            self.rung_for = nap;
        }
        ring
    }

    /// Whether nobody wants the running task any more: one load.
    pub fn is_cancelled(&self) -> bool {
        self.orders.load(UNWANTED_AT, Ordering::Acquire) == self.claimed.get().0
    }

    /// Leaves the moment of a death that is about to come.
    pub fn last_breath(&self) {
        self.box_page.store(LAST_BREATH_AT, monotonic_ns(), Ordering::Release);
    }

    /// The death did not come.
    pub fn breathe_on(&self) {
        self.box_page.store(LAST_BREATH_AT, 0, Ordering::Release);
    }
}

/// `text`, cut at the border of a character so that it is at most `max` bytes long.
fn cut(text: &str, max: usize) -> &str {
    let end = (0..=text.len().min(max)).rev().find(|&end| text.is_char_boundary(end));
    &text[..end.unwrap_or(0)]
}
