//! When free pages of the daemon's heap go back to the kernel: between turns, after a busy time.
//!
//! A flood leaves free pieces between blocks that live on, and glibc keeps their pages. To look for them takes a
//! millisecond at worst, so it is done at most once a second, when the loop is about to sleep, and only after
//! [`BUSY_TURNS`] turns: a daemon that has little to do looks seldom, and one that never sleeps needs its memory. When a
//! look is owed, the loop sleeps no longer than until then. Driven by `turn.rs`.

use bulkhead_sys::heap;

/// Turns after which there may be something to give back.
const BUSY_TURNS: u32 = 1000;
/// The shortest time between two looks.
const PAUSE_NS: u64 = 1_000_000_000;

/// Counts turns.
#[derive(Debug, Default)]
pub(crate) struct HeapTrimmer {
    turns: u32,
    next_ns: u64,
}

impl HeapTrimmer {
    /// Counts a turn.
    pub(crate) fn turn_over(&mut self) {
        self.turns = self.turns.saturating_add(1);
    }

    /// When the next look is due, in nanoseconds of the monotonic clock. `None`: none is owed.
    pub(crate) fn deadline(&self) -> Option<u64> {
        (self.turns >= BUSY_TURNS).then_some(self.next_ns)
    }

    /// Looks for free pages, if it is time: the loop is about to sleep.
    pub(crate) fn about_to_sleep(&mut self, now_ns: u64) {
        if self.is_due(now_ns) {
            heap::return_free_pages();
        }
    }

    fn is_due(&mut self, now_ns: u64) -> bool {
        let is_due = self.turns >= BUSY_TURNS && now_ns >= self.next_ns;
        if is_due {
            (self.turns, self.next_ns) = (0, now_ns + PAUSE_NS);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_loop_never_looks_and_a_busy_one_once_a_second() {
        let mut idle = HeapTrimmer::default();
        let is_due = |heap: &mut HeapTrimmer, now_ns| {
            heap.turn_over();
            heap.is_due(now_ns)
        };
        assert!((1..1000).all(|second| !is_due(&mut idle, second * PAUSE_NS)));
        let mut busy = HeapTrimmer::default();
        let looks = (0..10_000).filter(|turn| is_due(&mut busy, turn * PAUSE_NS / 5000)).count();
        assert_eq!(looks, 2, "two seconds");
        let (mut owing, last_ns) = (busy, 3 * PAUSE_NS);
        (0..BUSY_TURNS).for_each(|_| owing.turn_over());
        let at_ns = owing.deadline();
        assert!(at_ns.is_some_and(|at_ns| at_ns <= last_ns && owing.is_due(at_ns)), "{at_ns:?}");
        assert_eq!(owing.deadline(), None, "it has looked");
    }
}
