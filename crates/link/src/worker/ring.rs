//! The worker's side of its ring: claims, results and doorbells.
//!
//! The order matters: the claim right before the task's first instruction, the result before its DONE, DONE before
//! the next claim. [`WorkerRing::finish`] ends with a fence and [`WorkerRing::should_ring`] is called after each
//! finish, and after each change of a program that a signal stops; why no doorbell is lost stands at the supervisor's
//! `Ring::nap`. Driven by the worker runtime.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bulkhead_proto::death::ProgramEnd;
use bulkhead_proto::ids::Seq;
use bulkhead_proto::limits::{
    BACKTRACE_MAX, IMAGE_NAME_MAX_BYTES, IMAGES_MAX, INLINE_MAX_BYTES, LAST_WORDS_MAX_BYTES,
    OTHER_FRAMES_MAX, SURVIVORS_TOLD, TEXT_MAX_BYTES,
};
use bulkhead_proto::worker::boxes::{
    self, BOX_BYTES, CAUSE_CODE_AT, CAUSE_SIGNAL_AT, CLAIMED_NS_AT, ClaimState, ClaimWord, ELAPSED_NS_AT,
    FAILED_ALLOCATION_AT, FAULT_ADDRESS_AT, FRAME_COUNT_AT, FRAMES_AT, FRAMES_SEARCHED_AT, IMAGES_AT,
    LAST_BREATH_AT, LAST_WORDS_AT, LENGTH_AT, NAP_AT, ORDERS_BYTES, OTHER_FRAME_COUNT_AT, OTHER_FRAMES_AT,
    OUTPUT_BYTES_AT, PROGRAM_STOP_AT, PROGRESS_DONE_AT, PROGRESS_NS_AT, PROGRESS_TOTAL_AT, ProgramStop,
    ReportStatus, SENDER_PID_AT, STACK_OVERFLOW_AT, STATUS_AT, SURVIVOR_COUNT_AT, SURVIVORS_AT, UNCLOSED_AT,
    UNWANTED_AT, WORD_AT,
};
use bulkhead_sys::clock::monotonic_ns;
use bulkhead_sys::crash_handler::{self, CrashRecordLayout, OtherFramesLayout};
use bulkhead_sys::shared_page::SharedPage;

use crate::words::Words;

/// Where the crash handler stores its words.
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
    others: OtherFramesLayout {
        count: OTHER_FRAME_COUNT_AT,
        frames: OTHER_FRAMES_AT,
        frames_max: OTHER_FRAMES_MAX,
        names: IMAGES_AT,
        names_max: IMAGES_MAX,
    },
};
const _: () = assert!(OtherFramesLayout::NAME_BYTES == IMAGE_NAME_MAX_BYTES);

/// The order of the ring's own words, which are not in the pages: the thread that runs the tasks alone calls what changes them, but
/// for progress and words, which a lock of the worker runtime orders.
const OWN: Ordering = Ordering::Relaxed;

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish<'a> {
    /// Done, with these bytes: at most [`INLINE_MAX_BYTES`].
    Inline(&'a [u8]),
    /// Done, with its output in the output file.
    Descriptor {
        /// Its size.
        bytes: u64,
    },
    /// Done, with its output in a block of the arena.
    Block {
        /// Where it begins.
        offset: u64,
        /// Its size.
        bytes: usize,
    },
    /// The task's own code failed. The text is cut after [`TEXT_MAX_BYTES`].
    Failed {
        /// The message.
        text: &'a str,
        /// The output before the failure.
        output: PartialOutput<'a>,
        /// How the program ended, if the task was one.
        program: Option<ProgramEnd>,
    },
}

/// The output that a failed task had written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartialOutput<'a> {
    /// None, or none that is kept.
    Nothing,
    /// These bytes, kept if they fit behind the text, see [`PartialOutput::fits`].
    Inline(&'a [u8]),
    /// In the output file, because they do not fit behind any text.
    Descriptor {
        /// Their number.
        bytes: u64,
    },
}

impl PartialOutput<'_> {
    /// Whether so many bytes fit behind a failure's text.
    pub fn fits(text: &str, bytes: usize) -> bool {
        boxes::behind_text(cut(text, TEXT_MAX_BYTES).len(), bytes as u64).is_some()
    }
}

/// The mapped box and orders. `P` is as with the supervisor's `Ring`.
#[derive(Debug)]
pub struct WorkerRing<P = SharedPage> {
    box_page: P,
    orders: P,
    /// The last offer that this worker claimed.
    claimed: AtomicU64,
    claimed_ns: AtomicU64,
    rung_for: AtomicU64,
    /// Stops of programs so far.
    stops: AtomicU64,
    /// The running task has stored progress or words, which must be cleared when it ends.
    told: AtomicBool,
    /// The place for the next words; its lowest bit selects one of two.
    place: AtomicU64,
    /// A task has left processes that this worker may not end.
    has_left: AtomicBool,
}

impl WorkerRing {
    /// Maps the two descriptors of the setup: the box, then the orders.
    ///
    /// # Errors
    /// EINVAL: there are not two, or they are no pages of this version. ENOMEM.
    pub fn map(descriptors: &[OwnedFd]) -> io::Result<Self> {
        let [box_descriptor, orders_descriptor] = descriptors else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "setup needs two descriptors"));
        };
        let box_page = SharedPage::map_shared(box_descriptor.as_fd(), BOX_BYTES)?;
        Ok(Self::over(box_page, SharedPage::map_read_only(orders_descriptor.as_fd(), ORDERS_BYTES)?))
    }

    /// Installs the crash handler, which records the cause of a death by a signal in the box. Once per process, on
    /// the thread that runs the tasks.
    ///
    /// # Errors
    /// As [`crash_handler::install`]; EINVAL, ENOMEM: the box cannot be mapped again.
    pub fn install_crash_handler(descriptors: &[OwnedFd]) -> io::Result<()> {
        let box_descriptor = descriptors.first().ok_or(io::ErrorKind::InvalidInput)?;
        crash_handler::install(SharedPage::map_shared(box_descriptor.as_fd(), BOX_BYTES)?, &CRASH_RECORD)
    }

    /// Installs them again, over those that the program has installed since.
    ///
    /// # Errors
    /// As [`crash_handler::install_again`].
    pub fn install_crash_handler_again() -> io::Result<()> {
        crash_handler::install_again()
    }
}

impl<P: Words> WorkerRing<P> {
    /// The side of a worker that has claimed nothing.
    pub(crate) fn over(box_page: P, orders: P) -> Self {
        Self {
            box_page,
            orders,
            claimed: AtomicU64::new(0),
            claimed_ns: AtomicU64::new(0),
            rung_for: AtomicU64::new(0),
            stops: AtomicU64::new(0),
            told: AtomicBool::new(false),
            place: AtomicU64::new(0),
            has_left: AtomicBool::new(false),
        }
    }

    /// OFFERED -> CLAIMED. `false`: the supervisor took the offer back, so nothing of it may run.
    pub fn claim(&self, seq: Seq) -> bool {
        let at = boxes::entry_at(boxes::index_of(seq));
        let (offered, claimed) =
            (ClaimWord::pack(seq, ClaimState::Offered), ClaimWord::pack(seq, ClaimState::Claimed));
        let won = self.box_page.compare_exchange(at + WORD_AT, offered, claimed).is_ok();
        if won {
            let now_ns = monotonic_ns();
            self.claimed.store(seq.0, OWN);
            self.claimed_ns.store(now_ns, OWN);
            self.box_page.store(at + CLAIMED_NS_AT, now_ns, Ordering::Relaxed);
        }
        won
    }

    /// CLAIMED -> DONE: stores the result, then the word. Progress and words are cleared after that and before the
    /// next claim, so they are never taken for another task's.
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
            Finish::Block { offset, bytes } => put(ReportStatus::Block, bytes, &[], offset),
            Finish::Failed { text, output, program } => {
                let text = cut(text, TEXT_MAX_BYTES).as_bytes();
                let status = ReportStatus::Failed { program };
                match output {
                    PartialOutput::Nothing => put(status, text.len(), text, 0),
                    PartialOutput::Inline(bytes) => {
                        put(status, text.len(), &[text, bytes].concat(), bytes.len() as u64);
                    }
                    PartialOutput::Descriptor { bytes } => put(status, text.len(), text, bytes),
                }
            }
        }
        store(ELAPSED_NS_AT, monotonic_ns().saturating_sub(self.claimed_ns.load(OWN)));
        self.box_page.store(at + WORD_AT, ClaimWord::pack(seq, ClaimState::Done), Ordering::Release);
        P::fence();
        if self.told.swap(false, OWN) {
            let header = |field: usize| self.box_page.store(field, 0, Ordering::Relaxed);
            [PROGRESS_NS_AT, PROGRESS_DONE_AT, PROGRESS_TOTAL_AT, LAST_WORDS_AT, PROGRAM_STOP_AT]
                .into_iter()
                .for_each(header);
        }
    }

    /// Stores the progress of the running task: three stores and a clock read.
    pub fn progress(&self, done: u64, total: u64) {
        self.told.store(true, OWN);
        self.box_page.store(PROGRESS_DONE_AT, done, Ordering::Relaxed);
        self.box_page.store(PROGRESS_TOTAL_AT, total, Ordering::Relaxed);
        self.box_page.store(PROGRESS_NS_AT, monotonic_ns(), Ordering::Release);
    }

    /// Stores the words of the running task in place of the earlier ones. Cut after [`LAST_WORDS_MAX_BYTES`]. There
    /// are two places, written in turn, so a death in the middle of a write leaves the earlier words whole.
    pub fn say(&self, words: &str) {
        self.told.store(true, OWN);
        let bytes = cut(words, LAST_WORDS_MAX_BYTES).as_bytes();
        let place = self.place.fetch_add(1, OWN);
        self.box_page.write_bytes(boxes::words_at(place), bytes);
        let word = if bytes.is_empty() { 0 } else { boxes::pack_words(bytes.len(), place) };
        self.box_page.store(LAST_WORDS_AT, word, Ordering::Release);
    }

    /// Stores the processes of the running task that this worker may not end; more than [`SURVIVORS_TOLD`] are cut. To be
    /// called before [`Self::finish`]. The worker has to leave after that.
    pub fn leave_behind(&self, pids: &[u32]) {
        let told = &pids[..pids.len().min(SURVIVORS_TOLD)];
        for (place, pid) in told.iter().enumerate() {
            self.box_page.store(SURVIVORS_AT + 8 * place, u64::from(*pid), Ordering::Relaxed);
        }
        self.box_page.store(SURVIVOR_COUNT_AT, told.len() as u64, Ordering::Release);
        self.has_left.fetch_or(!told.is_empty(), OWN);
    }

    /// Whether processes of a task were left behind.
    pub fn has_left_processes(&self) -> bool {
        self.has_left.load(OWN)
    }

    /// Stores that a signal has stopped the program of the running task, or with `None` that it was continued. Ends with
    /// a fence, as [`Self::finish`] does, and for the same reason: [`Self::should_ring`] is to be called after it.
    pub fn set_program_stop(&self, stop: Option<ProgramStop>) {
        self.told.store(true, OWN);
        let word = stop.map_or(0, |stop| stop.pack(self.stops.fetch_add(1, OWN) + 1));
        self.box_page.store(PROGRAM_STOP_AT, word, Ordering::Release);
        P::fence();
    }

    /// Stores how many files of clients this worker has to close.
    pub fn set_unclosed(&self, files: u64) {
        self.box_page.store(UNCLOSED_AT, files, Ordering::Relaxed);
    }

    /// Whether to ring the doorbell: the supervisor sleeps and was not rung for in this nap. To be called after each
    /// [`Self::finish`] and [`Self::set_program_stop`].
    pub fn should_ring(&self) -> bool {
        let nap = self.orders.load(NAP_AT, Ordering::SeqCst);
        let ring = nap % 2 == 1 && nap != self.rung_for.load(OWN);
        if ring {
            self.rung_for.store(nap, OWN);
        }
        ring
    }

    /// Whether the supervisor has asked to cancel the running task: one load.
    pub fn is_cancelled(&self) -> bool {
        self.orders.load(UNWANTED_AT, Ordering::Acquire) == self.claimed.load(OWN)
    }

    /// Stores the time of a death that is about to come.
    pub fn last_breath(&self) {
        self.box_page.store(LAST_BREATH_AT, monotonic_ns(), Ordering::Release);
    }

    /// Clears that time, because the process lives on.
    pub fn breathe_on(&self) {
        self.box_page.store(LAST_BREATH_AT, 0, Ordering::Release);
    }
}

/// `text`, cut at a character boundary to at most `max` bytes.
fn cut(text: &str, max: usize) -> &str {
    let end = (0..=text.len().min(max)).rev().find(|&end| text.is_char_boundary(end));
    &text[..end.unwrap_or(0)]
}
