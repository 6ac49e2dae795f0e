//! Whether the wall clock may be believed when ended jobs are removed by their age.
//!
//! Not for a day after it has jumped by more than an hour against the clock since boot, which nobody can set; and not for a day
//! after a start that lies more than a day past the last commit, or more than an hour before it. Pure: both clocks are
//! arguments, in microseconds. Driven by `opening.rs` and `writer.rs`.

use crate::bounds::{DAY_US, HOUR_US};

/// The state of the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClockRule {
    wall_us: u64,
    boot_us: u64,
    /// Until then, on the clock since boot, the wall clock is not believed.
    doubted_until_us: u64,
}

impl ClockRule {
    /// The rule at a start; `last_us` is the wall time of the last commit before.
    pub(crate) fn new(wall_us: u64, boot_us: u64, last_us: Option<u64>) -> Self {
        let is_odd = last_us.is_some_and(|last_us| wall_us > last_us + DAY_US || wall_us + HOUR_US < last_us);
        Self { wall_us, boot_us, doubted_until_us: if is_odd { boot_us + DAY_US } else { 0 } }
    }

    /// Looks at both clocks; whether the wall clock has jumped since the last look.
    pub(crate) fn look(&mut self, wall_us: u64, boot_us: u64) -> bool {
        let expected_us = self.wall_us + boot_us.saturating_sub(self.boot_us);
        let has_jumped = wall_us.abs_diff(expected_us) > HOUR_US;
        (self.wall_us, self.boot_us) = (wall_us, boot_us);
        if has_jumped {
            self.doubted_until_us = boot_us + DAY_US;
        }
        has_jumped
    }

    /// Whether the wall clock was believed at the last look.
    pub(crate) fn is_believed(&self) -> bool {
        self.boot_us >= self.doubted_until_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YEAR_US: u64 = 365 * DAY_US;
    const NOW_US: u64 = 50 * YEAR_US;

    #[test]
    fn a_jump_of_more_than_an_hour_is_doubted_for_a_day() {
        for jumped_us in [NOW_US + YEAR_US, NOW_US - YEAR_US, NOW_US + HOUR_US + 2, NOW_US - HOUR_US] {
            let mut rule = ClockRule::new(NOW_US, 7, Some(NOW_US - 1));
            assert!(rule.is_believed());
            assert!(rule.look(jumped_us, 8), "{jumped_us}");
            assert!(!rule.is_believed());
            assert!(!rule.look(jumped_us + DAY_US - 1, 8 + DAY_US - 1));
            assert!(!rule.is_believed());
            assert!(!rule.look(jumped_us + DAY_US, 8 + DAY_US));
            assert!(rule.is_believed());
        }
    }

    #[test]
    fn slow_steps_and_a_long_sleep_are_no_jump() {
        let mut rule = ClockRule::new(NOW_US, 0, None);
        assert!(!rule.look(NOW_US + HOUR_US / 2, 1) && !rule.look(NOW_US, 2));
        assert!(!rule.look(NOW_US + YEAR_US, YEAR_US), "the clock since boot counts a suspended machine");
        assert!(rule.is_believed());
    }

    #[test]
    fn a_start_long_after_the_last_commit_or_before_it_is_doubted() {
        for (last_us, is_believed) in [
            (NOW_US - DAY_US, true),
            (NOW_US - DAY_US - 1, false),
            (NOW_US + HOUR_US, true),
            (NOW_US + HOUR_US + 1, false),
        ] {
            let rule = ClockRule::new(NOW_US, 5, Some(last_us));
            assert_eq!(rule.is_believed(), is_believed, "{last_us}");
        }
        assert!(ClockRule::new(NOW_US, 5, None).is_believed());
    }
}
