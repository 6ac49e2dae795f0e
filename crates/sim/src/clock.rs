//! The two clocks of the world. They move only when the world says so.
//!
//! The monotonic clock never runs backwards; the wall clock goes along with it and may be set forwards or backwards, as
//! an administrator or NTP does.

use bulkhead_core::event::Now;

/// Nanoseconds in a microsecond.
pub const US: u64 = 1000;
/// Nanoseconds in a millisecond.
pub const MS: u64 = 1_000_000;
/// Nanoseconds in a second.
pub const S: u64 = 1_000_000_000;

/// Both clocks.
#[derive(Debug)]
pub struct Clock {
    now: Now,
}

impl Clock {
    /// Starts a while after boot, at a plausible date.
    pub fn new() -> Self {
        Self { now: Now { mono_ns: 100 * S, wall_us: 1_790_000_000_000_000 } }
    }

    /// Both clocks, as one turn reads them.
    pub fn now(&self) -> Now {
        self.now
    }

    /// Monotonic nanoseconds.
    pub fn ns(&self) -> u64 {
        self.now.mono_ns
    }

    /// Lets time pass until then; does nothing if that is past.
    pub fn advance_to(&mut self, mono_ns: u64) {
        let passed = mono_ns.saturating_sub(self.now.mono_ns);
        // Whole microseconds are counted from the monotonic clock, so that many small steps lose nothing.
        let before = self.now.mono_ns / US;
        self.now.mono_ns += passed;
        self.now.wall_us += self.now.mono_ns / US - before;
    }

    /// Sets the wall clock forwards or backwards by so many microseconds.
    pub fn set_wall(&mut self, by_us: i64) {
        self.now.wall_us = self.now.wall_us.saturating_add_signed(by_us);
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_runs_backwards_and_small_steps_add_up() {
        let mut clock = Clock::new();
        let start = clock.now();
        for _ in 0..1000 {
            clock.advance_to(clock.ns() + 1);
        }
        clock.advance_to(0);
        assert_eq!(clock.now().mono_ns, start.mono_ns + 1000);
        assert_eq!(clock.now().wall_us, start.wall_us + 1);
        clock.set_wall(-5);
        assert_eq!(clock.now().wall_us, start.wall_us - 4);
    }
}
