//! The two shared pages of a worker: the box, which the worker writes, and the orders, which only the
//! supervisor writes. This file is their layout and the claim word; the accesses live in `link`.
//!
//! Every field is one little-endian u64 that is read and written atomically, so that neither side can see half
//! of one. Whatever stands in a box is its worker's own testimony: it is copied once and checked before it is
//! believed, and believed only about what that worker was given.
//!
//! Box: a header, then [`RING`] entries of [`ENTRY_BYTES`], then [`RING`] areas of [`INLINE_MAX_BYTES`] for the
//! results that do not fit their entry. Orders: a header, then [`RING`] entries of [`ORDER_BYTES`].

use std::num::NonZeroU8;

use crate::ids::Seq;
use crate::limits::{BACKTRACE_MAX, INLINE_MAX_BYTES, LAST_WORDS_MAX_BYTES, RING, TEXT_MAX_BYTES};

/// Bytes of the box header, a page of its own.
pub const BOX_HEADER_BYTES: usize = 4096;
/// Bytes of one entry of the ring: one cache line.
pub const ENTRY_BYTES: usize = 64;
/// Size of a box.
pub const BOX_BYTES: usize = BOX_HEADER_BYTES + RING * ENTRY_BYTES + RING * INLINE_MAX_BYTES;

/// Box header: CLOCK_MONOTONIC nanoseconds at which the worker knew that it was about to die; 0 is unknown.
pub const LAST_BREATH_AT: usize = 0;
/// Box header: the signal that is ending the worker, stored after the fields that explain it; 0 is none. These
/// fields are written by a signal handler, once, and read once the wait status names the same signal.
pub const CAUSE_SIGNAL_AT: usize = 64;
/// Box header: the signal's `si_code`, sign-extended: 0 and below, a process sent it; above, the kernel did.
pub const CAUSE_CODE_AT: usize = 72;
/// Box header: the address that faulted, for SIGSEGV, SIGBUS, SIGILL and SIGFPE of the kernel's.
pub const FAULT_ADDRESS_AT: usize = 80;
/// Box header: the process that sent the signal, when one did.
pub const SENDER_PID_AT: usize = 88;
/// Box header: 1 when the fault lies at the end of the thread's stack.
pub const STACK_OVERFLOW_AT: usize = 96;
/// Box header: bytes of the allocation that failed right before SIGABRT; 0 is none.
pub const FAILED_ALLOCATION_AT: usize = 104;
/// Box header: how many frames there are, stored after them.
pub const FRAME_COUNT_AT: usize = 112;
/// Box header: 1 when the stack had to be searched for the frames.
pub const FRAMES_SEARCHED_AT: usize = 120;
/// Box header: [`BACKTRACE_MAX`] addresses in the worker program's file, the innermost first.
pub const FRAMES_AT: usize = 128;

/// Box header: parts that the running task says are done.
pub const PROGRESS_DONE_AT: usize = 256;
/// Box header: of how many; 0 is unknown.
pub const PROGRESS_TOTAL_AT: usize = 264;
/// Box header: CLOCK_MONOTONIC nanoseconds of the last progress, stored after the two before; 0 is none. The worker
/// clears progress and last words between two tasks, so that they are always of the one that it has claimed.
pub const PROGRESS_NS_AT: usize = 272;
/// Box header: the last words, as [`pack_words`] has it, stored after the bytes it speaks of; 0 is none.
pub const LAST_WORDS_AT: usize = 280;
/// Box header: two places for last words, written in turn, so that a death in mid-sentence leaves the one before.
const WORDS_PLACES_AT: usize = 320;

/// Entry: the claim word.
pub const WORD_AT: usize = 0;
/// Entry: how the task ended, a [`ReportStatus`].
pub const STATUS_AT: usize = 8;
/// Entry: bytes of the result or of the failure's text, wherever they stand.
pub const LENGTH_AT: usize = 16;
/// Entry: bytes of the output, if it stands in the output descriptor; of a failure, those of the output that is kept
/// beside its text: behind the text if both fit an inline result, else in the output descriptor.
pub const OUTPUT_BYTES_AT: usize = 24;
/// Entry: CLOCK_MONOTONIC nanoseconds of the claim.
pub const CLAIMED_NS_AT: usize = 32;
/// Entry: nanoseconds from claim to result.
pub const ELAPSED_NS_AT: usize = 40;
/// Entry: the result itself, if at most [`SMALL_BYTES`] long; else it stands in the entry's area.
pub const SMALL_AT: usize = 48;
/// Bytes of a result that fits its entry.
pub const SMALL_BYTES: usize = ENTRY_BYTES - SMALL_AT;

/// Bytes of the orders header.
pub const ORDERS_HEADER_BYTES: usize = 64;
/// Bytes of one order.
pub const ORDER_BYTES: usize = 32;
/// Size of an orders page.
pub const ORDERS_BYTES: usize = ORDERS_HEADER_BYTES + RING * ORDER_BYTES;

/// Orders header: the nap count. Odd while the supervisor sleeps or is about to: ring once for each odd value.
pub const NAP_AT: usize = 0;
/// Orders header: the seq of the offer that nobody wants any more although the worker has begun it; 0 is none. Its task
/// may end early; a worker that sees another number here than that of its own offer goes on.
pub const UNWANTED_AT: usize = 8;
/// Order: the seq it belongs to.
pub const ORDER_SEQ_AT: usize = 0;
/// Order: the job.
pub const ORDER_JOB_AT: usize = 8;
/// Order: the fence.
pub const ORDER_FENCE_AT: usize = 16;

const _: () = assert!(SMALL_BYTES == 16 && ENTRY_BYTES.is_multiple_of(8) && ORDER_BYTES.is_multiple_of(8));
const _: () = assert!(UNWANTED_AT + 8 <= ORDERS_HEADER_BYTES);
const _: () = assert!(TEXT_MAX_BYTES <= INLINE_MAX_BYTES);
const _: () = assert!(FRAMES_AT + 8 * BACKTRACE_MAX <= PROGRESS_DONE_AT);
const _: () = assert!(LAST_WORDS_MAX_BYTES.is_multiple_of(8));
const _: () = assert!(WORDS_PLACES_AT + 2 * LAST_WORDS_MAX_BYTES <= BOX_HEADER_BYTES);

/// The word that makes `bytes` bytes (at least 1) in place 0 or 1 the last words.
pub fn pack_words(bytes: usize, place: u64) -> u64 {
    (bytes as u64) << 1 | place & 1
}

/// How many bytes the last words have and where they stand; `None` when there are none, or they cannot be.
pub fn unpack_words(word: u64) -> Option<(usize, usize)> {
    let bytes = usize::try_from(word >> 1).ok()?;
    (1..=LAST_WORDS_MAX_BYTES).contains(&bytes).then(|| (bytes, words_at(word)))
}

/// Where the last words of a place (its lowest bit counts) begin in the box.
pub fn words_at(place: u64) -> usize {
    WORDS_PLACES_AT + (place & 1) as usize * LAST_WORDS_MAX_BYTES
}

/// The entry of the ring that a seq uses.
pub fn index_of(seq: Seq) -> usize {
    (seq.0 % RING as u64) as usize
}

/// Where an entry begins in the box.
pub fn entry_at(index: usize) -> usize {
    BOX_HEADER_BYTES + index * ENTRY_BYTES
}

/// Where a result of `length` bytes stands in the box.
pub fn result_at(index: usize, length: usize) -> usize {
    if length <= SMALL_BYTES {
        entry_at(index) + SMALL_AT
    } else {
        BOX_HEADER_BYTES + RING * ENTRY_BYTES + index * INLINE_MAX_BYTES
    }
}

/// How many bytes of output stand behind the text of a failure; `None` if they do not fit there.
pub fn behind_text(text_bytes: usize, output_bytes: u64) -> Option<usize> {
    let room = INLINE_MAX_BYTES.checked_sub(text_bytes)?;
    usize::try_from(output_bytes).ok().filter(|bytes| *bytes <= room)
}

/// Where an order begins in the orders page.
pub fn order_at(index: usize) -> usize {
    ORDERS_HEADER_BYTES + index * ORDER_BYTES
}

/// The five states of an entry of the ring. Legal steps, and who may take them, stand in ARCHITECTURE.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimState {
    /// Free: nothing offered, or all said and recorded.
    Settled,
    /// Handed to the worker, which has not begun.
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
    /// Which offer.
    pub seq: Seq,
    /// How far it is.
    pub state: ClaimState,
}

impl ClaimWord {
    /// As it stands in the box.
    pub fn pack(seq: Seq, state: ClaimState) -> u64 {
        seq.0 << 3 | state as u64
    }

    /// Reads one; `None` for a state that does not exist, which is a lie.
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

/// How a task ended, as its worker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportStatus {
    /// Done; the result stands in the box.
    Inline,
    /// Done; the result stands in the output descriptor.
    Descriptor,
    /// The task's own code said no; its text stands in the box.
    Failed {
        /// The exit code of the program that it was, never 0.
        code: Option<NonZeroU8>,
    },
}

/// Where the exit code of a failure stands in its status.
const CODE_SHIFT: u32 = 8;

impl ReportStatus {
    /// As it stands in the box.
    pub fn pack(self) -> u64 {
        match self {
            Self::Inline => 1,
            Self::Descriptor => 2,
            Self::Failed { code } => 3 | code.map_or(0, |code| u64::from(code.get()) << CODE_SHIFT),
        }
    }

    /// Reads one; `None` for a status that does not exist, which is a lie.
    pub fn unpack(status: u64) -> Option<Self> {
        match status {
            1 => Some(Self::Inline),
            2 => Some(Self::Descriptor),
            _ if status & 0xff == 3 => {
                let code = u8::try_from(status >> CODE_SHIFT).ok()?;
                Some(Self::Failed { code: NonZeroU8::new(code) })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let failed = |code| ReportStatus::Failed { code: NonZeroU8::new(code) };
        for status in [ReportStatus::Inline, ReportStatus::Descriptor, failed(0), failed(1), failed(255)] {
            assert_eq!(ReportStatus::unpack(status.pack()), Some(status));
        }
        assert_eq!(
            [ReportStatus::Inline, ReportStatus::Descriptor, failed(0)].map(ReportStatus::pack),
            [1, 2, 3]
        );
        for status in [0, 4, 0x101, 0x102, 0x1_0003, u64::MAX] {
            assert_eq!(ReportStatus::unpack(status), None, "{status:#x}");
        }
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
