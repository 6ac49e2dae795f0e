//! The layout of the shared pages of a worker: the box, which the worker writes, the orders, which only the supervisor
//! writes, and the stack page, in which the worker's own runtime writes text.
//!
//! `crates/link` reads and writes the pages; this file only says where the fields are and how a claim word is packed.
//! Every field is one little-endian u64 that is read and written atomically, so neither side sees half of one. A worker
//! can write anything into its box: the supervisor must copy each field once and check the copy before it uses it, and
//! must accept results only for offers that this worker has.
//!
//! Box: a header, then [`RING`] entries of [`ENTRY_BYTES`], then [`RING`] areas of [`INLINE_MAX_BYTES`] for the
//! results that do not fit an entry. Orders: a header, then [`RING`] orders of [`ORDER_BYTES`].

use std::num::NonZeroU8;

use crate::death::{ProgramEnd, SIGNAL_MAX};
use crate::ids::Seq;
use crate::limits::{
    ARENA_BLOCKS_MAX, BACKTRACE_MAX, IMAGE_NAME_MAX_BYTES, IMAGES_MAX, INLINE_MAX_BYTES,
    LAST_WORDS_MAX_BYTES, OTHER_FRAMES_MAX, RING, STACK_PAGE_BYTES, STACK_TEXT_MAX_BYTES, SURVIVORS_TOLD,
    TEXT_MAX_BYTES,
};

/// Bytes of the box header: one page.
pub const BOX_HEADER_BYTES: usize = 4096;
/// Bytes of one entry of the ring: one cache line.
pub const ENTRY_BYTES: usize = 64;
/// Bytes of a box.
pub const BOX_BYTES: usize = BOX_HEADER_BYTES + RING * ENTRY_BYTES + RING * INLINE_MAX_BYTES;

/// Box header: CLOCK_MONOTONIC nanoseconds at which the worker began to die, in its signal handler or before its exit;
/// 0 is unknown.
pub const LAST_BREATH_AT: usize = 0;
/// Box header: the program that the claimed task runs and that a signal has stopped, a [`ProgramStop`]; 0 is none. The
/// worker clears it before its next claim. It shares no cache line with the fields that a running task writes often.
pub const PROGRAM_STOP_AT: usize = 8;
/// Box header: how many files of clients wait in the worker's closer, the one whose close hangs counted. It is about no task. The
/// supervisor reads it as often as the field before, so it is in the same cache line.
pub const UNCLOSED_AT: usize = 16;
/// Box header: the signal that is ending the worker; 0 is none. The signal handler writes this field and those that
/// explain it once, this one last. The supervisor reads them only if the wait status names the same signal.
pub const CAUSE_SIGNAL_AT: usize = 64;
/// Box header: the signal's `si_code`, sign-extended: 0 and below, a process sent it; above, the kernel did.
pub const CAUSE_CODE_AT: usize = 72;
/// Box header: the address that faulted, for a SIGSEGV, SIGBUS, SIGILL or SIGFPE that the kernel sent.
pub const FAULT_ADDRESS_AT: usize = 80;
/// Box header: the process that sent the signal, if a process did.
pub const SENDER_PID_AT: usize = 88;
/// Box header: 1 if the fault lies at the end of the thread's stack.
pub const STACK_OVERFLOW_AT: usize = 96;
/// Box header: bytes of an allocation that failed right before SIGABRT; 0 is none.
pub const FAILED_ALLOCATION_AT: usize = 104;
/// Box header: the number of frames, stored after the frames.
pub const FRAME_COUNT_AT: usize = 112;
/// Box header: 1 if the stack had to be searched for the frames.
pub const FRAMES_SEARCHED_AT: usize = 120;
/// Box header: up to [`BACKTRACE_MAX`] addresses in the file of the worker program, the innermost first.
pub const FRAMES_AT: usize = 128;

/// Box header: how much the running task has reported as done.
pub const PROGRESS_DONE_AT: usize = 256;
/// Box header: how much there is to do in all; 0 is unknown.
pub const PROGRESS_TOTAL_AT: usize = 264;
/// Box header: CLOCK_MONOTONIC nanoseconds of the last progress, stored after the two fields above; 0 is none. The worker
/// clears progress and last words between two tasks, so they always belong to the task that it has claimed.
pub const PROGRESS_NS_AT: usize = 272;
/// Box header: length and place of the last words, see [`pack_words`], stored after their bytes; 0 is none.
pub const LAST_WORDS_AT: usize = 280;
/// Box header: two places for last words, written in turn: after a death during a write, the older words are intact.
const WORDS_PLACES_AT: usize = 320;
/// Box header: how many processes of its last task the worker could not end, stored after their process ids and before
/// that task's DONE; 0 is none. The worker leaves after it has reported some.
pub const SURVIVOR_COUNT_AT: usize = 1024;
/// Box header: the process ids of the first [`SURVIVORS_TOLD`] of them.
pub const SURVIVORS_AT: usize = 1032;
/// Box header: the number of frames of files other than the program's, stored after these and their names.
pub const OTHER_FRAME_COUNT_AT: usize = 1152;
/// Box header: up to [`OTHER_FRAMES_MAX`] such frames, the innermost first, two words each: the address in its file, and
/// `own << 8 | image` with the number of frames at [`FRAMES_AT`] that are further in and the place of the file's name.
pub const OTHER_FRAMES_AT: usize = 1160;
/// Box header: up to [`IMAGES_MAX`] names of files, [`IMAGE_NAME_MAX_BYTES`] each and filled up with zeros.
pub const IMAGES_AT: usize = 1536;

/// Entry: the claim word.
pub const WORD_AT: usize = 0;
/// Entry: how the task ended, a [`ReportStatus`].
pub const STATUS_AT: usize = 8;
/// Entry: length of the result or of the failure's text, in bytes.
pub const LENGTH_AT: usize = 16;
/// Entry: length of the output in the output descriptor, in bytes. Of a result in the arena: its offset there. Of a failure: length of the output that is kept with
/// its text, which is behind the text if both fit an inline result, else in the output descriptor.
pub const OUTPUT_BYTES_AT: usize = 24;
/// Entry: CLOCK_MONOTONIC nanoseconds of the claim.
pub const CLAIMED_NS_AT: usize = 32;
/// Entry: nanoseconds from the claim to the result.
pub const ELAPSED_NS_AT: usize = 40;
/// Entry: the result itself, if it has at most [`SMALL_BYTES`]; a longer one is in the entry's area.
pub const SMALL_AT: usize = 48;
/// Bytes of the longest result that fits an entry.
pub const SMALL_BYTES: usize = ENTRY_BYTES - SMALL_AT;

/// Bytes of the orders header.
pub const ORDERS_HEADER_BYTES: usize = 64;
/// Bytes of one order.
pub const ORDER_BYTES: usize = 32;
/// Bytes of the orders page.
pub const ORDERS_BYTES: usize = ORDERS_HEADER_BYTES + RING * ORDER_BYTES;

/// Orders header: the nap count. It is odd while the supervisor sleeps or is about to. A worker rings its doorbell once
/// for each odd value.
pub const NAP_AT: usize = 0;
/// Orders header: the seq of a claimed offer whose task was cancelled; 0 is none. That task may end early. A worker that
/// finds another seq here than that of its claimed offer ignores it.
pub const UNWANTED_AT: usize = 8;
/// Orders header: the seq of a claimed offer whose stack the worker is to write; 0 is none. A worker that finds another
/// seq here than that of its claimed offer when [`STACK_SIGNAL`] arrives writes nothing.
pub const STACK_ASKED_AT: usize = 16;
/// The signal that asks for it: a real-time signal, which no C library keeps for itself.
pub const STACK_SIGNAL: i32 = 42;

/// Page of freed blocks: how many blocks were freed in all. The supervisor stores it after the entry.
pub const FREED_COUNT_AT: usize = 0;
/// Page of freed blocks: the first entry of a ring of [`ARENA_BLOCKS_MAX`]. An entry is the offset of a block.
pub const FREED_AT: usize = 64;
/// Bytes of the page of freed blocks.
pub const FREED_PAGE_BYTES: usize = FREED_AT + 8 * ARENA_BLOCKS_MAX;

/// Stack page: the seq of the claimed offer whose stack the text is; 0 is none.
pub const STACK_SEQ_AT: usize = 0;
/// Stack page: the text, up to the first zero byte.
pub const STACK_TEXT_AT: usize = 8;

/// Order: the seq of its offer.
pub const ORDER_SEQ_AT: usize = 0;
/// Order: the job.
pub const ORDER_JOB_AT: usize = 8;
/// Order: the fence.
pub const ORDER_FENCE_AT: usize = 16;

const _: () = assert!(SMALL_BYTES == 16 && ENTRY_BYTES.is_multiple_of(8) && ORDER_BYTES.is_multiple_of(8));
const _: () = assert!(UNWANTED_AT + 8 <= STACK_ASKED_AT && STACK_ASKED_AT + 8 <= ORDERS_HEADER_BYTES);
const _: () = assert!(STACK_TEXT_AT + STACK_TEXT_MAX_BYTES == STACK_PAGE_BYTES);
const _: () = assert!(TEXT_MAX_BYTES <= INLINE_MAX_BYTES);
const _: () = assert!(LAST_WORDS_AT + 8 <= WORDS_PLACES_AT);
const _: () = assert!(PROGRAM_STOP_AT + 8 <= UNCLOSED_AT && UNCLOSED_AT + 8 <= CAUSE_SIGNAL_AT);
const _: () = assert!(FRAMES_AT + 8 * BACKTRACE_MAX <= PROGRESS_DONE_AT);
const _: () = assert!(LAST_WORDS_MAX_BYTES.is_multiple_of(8));
const _: () = assert!(WORDS_PLACES_AT + 2 * LAST_WORDS_MAX_BYTES <= SURVIVOR_COUNT_AT);
const _: () = assert!(SURVIVORS_AT + 8 * SURVIVORS_TOLD <= OTHER_FRAME_COUNT_AT);
const _: () = assert!(OTHER_FRAMES_AT + 16 * OTHER_FRAMES_MAX <= IMAGES_AT);
const _: () = assert!(IMAGES_AT + IMAGES_MAX * IMAGE_NAME_MAX_BYTES <= BOX_HEADER_BYTES);

/// The word of [`LAST_WORDS_AT`] for last words of `bytes` bytes (at least 1) in place 0 or 1.
pub fn pack_words(bytes: usize, place: u64) -> u64 {
    (bytes as u64) << 1 | place & 1
}

/// Length and offset of the last words, in bytes; `None` if there are none, or the length is not possible.
pub fn unpack_words(word: u64) -> Option<(usize, usize)> {
    let bytes = usize::try_from(word >> 1).ok()?;
    (1..=LAST_WORDS_MAX_BYTES).contains(&bytes).then(|| (bytes, words_at(word)))
}

/// The offset in the box of the last words of a place; only the lowest bit of `place` counts.
pub fn words_at(place: u64) -> usize {
    WORDS_PLACES_AT + (place & 1) as usize * LAST_WORDS_MAX_BYTES
}

/// The index of the entry that a seq uses.
pub fn index_of(seq: Seq) -> usize {
    (seq.0 % RING as u64) as usize
}

/// The offset of an entry in the box.
pub fn entry_at(index: usize) -> usize {
    BOX_HEADER_BYTES + index * ENTRY_BYTES
}

/// The offset of a result of `length` bytes in the box.
pub fn result_at(index: usize, length: usize) -> usize {
    if length <= SMALL_BYTES {
        entry_at(index) + SMALL_AT
    } else {
        BOX_HEADER_BYTES + RING * ENTRY_BYTES + index * INLINE_MAX_BYTES
    }
}

/// The length of the output behind the text of a failure, in bytes; `None` if both do not fit an inline result.
pub fn behind_text(text_bytes: usize, output_bytes: u64) -> Option<usize> {
    let room = INLINE_MAX_BYTES.checked_sub(text_bytes)?;
    usize::try_from(output_bytes).ok().filter(|bytes| *bytes <= room)
}

/// The entry of the page of freed blocks for the block that is freed as the `count`th, counted from 0.
pub fn freed_at(count: u64) -> usize {
    FREED_AT + 8 * (count % ARENA_BLOCKS_MAX as u64) as usize
}

/// The offset of an order in the orders page.
pub fn order_at(index: usize) -> usize {
    ORDERS_HEADER_BYTES + index * ORDER_BYTES
}

/// The five states of an entry of the ring. The steps between them stand in a table at `Ring` in crates/link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimState {
    /// Free: nothing was offered yet, or the supervisor has applied the result.
    Settled,
    /// Handed to the worker, which has not begun it.
    Offered,
    /// The worker runs it.
    Claimed,
    /// The supervisor took it back before the worker began.
    Taken,
    /// The worker has written its result.
    Done,
}

/// A claim word: `seq << 3 | state`, so that one compare-and-swap decides about one offer and no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimWord {
    /// The number of the offer.
    pub seq: Seq,
    /// The state of the offer.
    pub state: ClaimState,
}

impl ClaimWord {
    /// The word in the box.
    pub fn pack(seq: Seq, state: ClaimState) -> u64 {
        seq.0 << 3 | state as u64
    }

    /// Reads a word; `None` for a state that does not exist, which is a protocol violation.
    pub fn unpack(word: u64) -> Option<Self> {
        let state = match word & 7 {
            0 => ClaimState::Settled,
            1 => ClaimState::Offered,
            2 => ClaimState::Claimed,
            3 => ClaimState::Taken,
            4 => ClaimState::Done,
            _ => return None,
        };
        Some(Self { seq: Seq(word >> 3), state })
    }
}

/// A program that a signal has stopped, as its worker reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramStop {
    /// Its process id.
    pub pid: u32,
    /// The signal's number.
    pub signal: i32,
}

/// The highest process id (PID_MAX_LIMIT of the kernel, less one).
const PID_MAX: u64 = (1 << 22) - 1;
/// SIGSTOP, SIGTSTP, SIGTTIN and SIGTTOU (signal(7), x86 and ARM): no other signal stops a process.
const STOP_SIGNALS: std::ops::RangeInclusive<u64> = 19..=22;

impl ProgramStop {
    /// The word in the box. `count` tells this stop from the one before, which may have been of the same process.
    pub fn pack(self, count: u64) -> u64 {
        u64::from(self.pid) | u64::from(self.signal.unsigned_abs() & 0xff) << 32 | count << 40
    }

    /// Reads a word; `None` for 0, and for a process or a signal that cannot be.
    pub fn unpack(word: u64) -> Option<Self> {
        let (pid, signal) = (word & 0xffff_ffff, word >> 32 & 0xff);
        let is_possible = (1..=PID_MAX).contains(&pid) && STOP_SIGNALS.contains(&signal);
        let stop = is_possible
            .then(|| Some(Self { pid: u32::try_from(pid).ok()?, signal: i32::try_from(signal).ok()? }));
        stop.flatten()
    }
}

/// How a task ended, as its worker reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportStatus {
    /// Done; the result is in the box.
    Inline,
    /// Done; the result is in the output descriptor.
    Descriptor,
    /// Done; the result is a block of the worker's arena.
    Block,
    /// The task's own code failed; the text of the failure is in the box.
    Failed {
        /// How the program ended that an `exec` task ran.
        program: Option<ProgramEnd>,
    },
}

/// The exit code of a failure is in the 8 bits of the status from this one on.
const CODE_SHIFT: u32 = 8;
/// The number of the signal that ended the program, in the 8 bits from this one on; the code is then 0.
const SIGNAL_SHIFT: u32 = 16;
/// The bit that is set if that signal left a core file.
const CORE_SHIFT: u32 = 24;

impl ReportStatus {
    /// The word in the box.
    pub fn pack(self) -> u64 {
        match self {
            Self::Inline => 1,
            Self::Descriptor => 2,
            Self::Block => 4,
            Self::Failed { program: None } => 3,
            Self::Failed { program: Some(ProgramEnd::Code(code)) } => 3 | u64::from(code.get()) << CODE_SHIFT,
            Self::Failed { program: Some(ProgramEnd::Signal { signal, core }) } => {
                3 | u64::from(signal) << SIGNAL_SHIFT | u64::from(core) << CORE_SHIFT
            }
        }
    }

    /// Reads a word; `None` for a status that does not exist, which is a protocol violation.
    pub fn unpack(status: u64) -> Option<Self> {
        match status {
            1 => Some(Self::Inline),
            2 => Some(Self::Descriptor),
            4 => Some(Self::Block),
            _ if status & 0xff == 3 => {
                let [_, code, signal, core, 0, 0, 0, 0] = status.to_le_bytes() else { return None };
                let program = match (NonZeroU8::new(code), signal, core) {
                    (code, 0, 0) => code.map(ProgramEnd::Code),
                    (None, 1..=SIGNAL_MAX, 0 | 1) => Some(ProgramEnd::Signal { signal, core: core == 1 }),
                    _ => return None,
                };
                Some(Self::Failed { program })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{ARENA_BYTES, ARENA_UNIT_BYTES, BLOCK_MAX_BYTES, is_block};

    #[test]
    fn claim_words_survive_packing() {
        for state in [
            ClaimState::Settled,
            ClaimState::Offered,
            ClaimState::Claimed,
            ClaimState::Taken,
            ClaimState::Done,
        ] {
            let word = ClaimWord { seq: Seq(12_345), state };
            assert_eq!(ClaimWord::unpack(ClaimWord::pack(word.seq, state)), Some(word));
        }
        assert_eq!(ClaimWord::unpack(7), None);
    }

    #[test]
    fn a_status_survives_packing_and_no_other_number_is_one() {
        let failed = |code| ReportStatus::Failed { program: NonZeroU8::new(code).map(ProgramEnd::Code) };
        let died = |signal, core| ReportStatus::Failed { program: Some(ProgramEnd::Signal { signal, core }) };
        for status in [
            ReportStatus::Inline,
            ReportStatus::Descriptor,
            ReportStatus::Block,
            failed(0),
            failed(1),
            failed(255),
            died(1, false),
            died(SIGNAL_MAX, true),
        ] {
            assert_eq!(ReportStatus::unpack(status.pack()), Some(status));
        }
        assert_eq!(
            [ReportStatus::Inline, ReportStatus::Descriptor, failed(0)].map(ReportStatus::pack),
            [1, 2, 3]
        );
        for status in
            [0, 5, 0x101, 0x102, 0x1_0103, 0x41_0003, 0x100_0003, 0x20b_0003, 0x1_0000_0003, u64::MAX]
        {
            assert_eq!(ReportStatus::unpack(status), None, "{status:#x}");
        }
    }

    #[test]
    fn a_block_lies_inside_its_arena_and_begins_with_a_unit() {
        let (end, unit, most) = (ARENA_BYTES as u64, ARENA_UNIT_BYTES as u64, BLOCK_MAX_BYTES as u64);
        for (offset, bytes) in [(0, 1), (unit, most), (end - most, most), (end - unit, unit)] {
            assert!(is_block(offset, bytes), "{offset} {bytes}");
        }
        for (offset, bytes) in
            [(0, 0), (0, most + 1), (8, 8), (end - unit, unit + 1), (end, 1), (u64::MAX - unit + 1, unit)]
        {
            assert!(!is_block(offset, bytes), "{offset} {bytes}");
        }
        assert_eq!(freed_at(ARENA_BLOCKS_MAX as u64), freed_at(0));
        assert_eq!(freed_at(ARENA_BLOCKS_MAX as u64 - 1) + 8, FREED_PAGE_BYTES);
    }

    #[test]
    fn a_stopped_program_survives_packing_and_nonsense_is_none() {
        for (pid, signal) in [(1, 19), (4_194_303, 22), (812, 20)] {
            let stop = ProgramStop { pid, signal };
            for count in [0, 1, 0xff_ffff] {
                assert_eq!(ProgramStop::unpack(stop.pack(count)), Some(stop));
            }
            assert_ne!(stop.pack(1), stop.pack(2), "each stop is another word");
        }
        for (pid, signal) in
            [(0, 19), (4_194_304, 19), (u32::MAX, 21), (812, 0), (812, 9), (812, 18), (812, 23)]
        {
            assert_eq!(ProgramStop::unpack(ProgramStop { pid, signal }.pack(3)), None, "{pid} {signal}");
        }
        assert_eq!([0, u64::MAX].map(ProgramStop::unpack), [None, None]);
    }

    #[test]
    fn last_words_stand_in_one_of_two_places() {
        for place in [0, 1] {
            for bytes in [1, LAST_WORDS_MAX_BYTES] {
                assert_eq!(unpack_words(pack_words(bytes, place)), Some((bytes, words_at(place))));
            }
        }
        assert_eq!(words_at(1) - words_at(0), LAST_WORDS_MAX_BYTES);
        assert_eq!(words_at(2), words_at(0));
        for word in [0, 1, pack_words(LAST_WORDS_MAX_BYTES + 1, 0), u64::MAX] {
            assert_eq!(unpack_words(word), None, "{word:#x}");
        }
    }

    #[test]
    fn entries_and_areas_do_not_overlap() {
        let mut end = BOX_HEADER_BYTES;
        for index in 0..RING {
            assert_eq!(entry_at(index), end);
            end += ENTRY_BYTES;
            assert!(result_at(index, SMALL_BYTES) + SMALL_BYTES <= end);
        }
        for index in 0..RING {
            assert_eq!(result_at(index, SMALL_BYTES + 1), end);
            end += INLINE_MAX_BYTES;
        }
        assert_eq!(end, BOX_BYTES);
    }
}
