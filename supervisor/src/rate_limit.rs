//! A rate limit for log lines that clients can provoke.
//!
//! It allows some lines in each period and counts the rest; after the period the caller logs that count. It only
//! counts: its callers write the lines. Driven by `client_table.rs`.

/// Lines that are allowed in one period.
const LINES: u64 = 10;
/// Length of a period, from its first line on.
const PERIOD_NS: u64 = 10_000_000_000;

/// The limit for one kind of line.
#[derive(Debug, Default)]
pub(crate) struct RateLimit {
    /// When the current period ends.
    end_ns: u64,
    count: u64,
}

impl RateLimit {
    /// Whether a line may be logged now. Counts it in any case.
    pub(crate) fn allows(&mut self, now_ns: u64) -> bool {
        if self.count <= LINES && now_ns >= self.end_ns {
            self.count = 0;
        }
        if self.count == 0 {
            self.end_ns = now_ns.saturating_add(PERIOD_NS);
        }
        self.count += 1;
        self.count <= LINES
    }

    /// When [`Self::take_suppressed`] has a count to return, in nanoseconds of the monotonic clock.
    pub(crate) fn deadline(&self) -> Option<u64> {
        (self.count > LINES).then_some(self.end_ns)
    }

    /// How many lines were suppressed, once the period has ended.
    pub(crate) fn take_suppressed(&mut self, now_ns: u64) -> Option<u64> {
        self.deadline().filter(|end_ns| *end_ns <= now_ns)?;
        Some(std::mem::take(&mut self.count) - LINES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_said_in_part_and_then_counted() {
        let mut limit = RateLimit::default();
        let said = (0..1000).filter(|_| limit.allows(5)).count() as u64;
        assert_eq!(said, LINES);
        assert_eq!(limit.deadline(), Some(5 + PERIOD_NS));
        assert_eq!(limit.take_suppressed(4 + PERIOD_NS), None);
        assert!(!limit.allows(5 + PERIOD_NS), "not before it was told");
        assert_eq!(limit.take_suppressed(5 + PERIOD_NS), Some(1001 - LINES));
        assert!(limit.allows(6 + PERIOD_NS));
        assert_eq!((limit.deadline(), limit.take_suppressed(u64::MAX)), (None, None));
    }

    #[test]
    fn what_comes_now_and_then_is_said() {
        let mut limit = RateLimit::default();
        assert!((0..100).all(|turn| limit.allows(turn * PERIOD_NS)));
        assert_eq!(limit.deadline(), None);
    }
}
