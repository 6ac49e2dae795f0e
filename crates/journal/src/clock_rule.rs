//! Whether the wall clock may be believed when ended jobs are removed by their age.
//!
//! Not for a day after it has jumped by more than an hour against the clock since boot, which nobody can set; and not for a day
//! after a start that lies more than a day past the last commit, or more than an hour before it. A doubt outlives the run: what is
//! left of it stands in the row of the run, and the next start takes it over. Pure: both clocks are arguments, in microseconds.
//! Driven by `opening.rs`, and by `session.rs` at each commit.

use crate::bounds::{DAY_US, HOUR_US};

/// The state of the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClockRule {
    wall_us: u64,
    boot_us: u64,
    /// Until then, on the clock since boot, the wall clock is not believed.
    doubted_until_us: u64,
    /// Whether it has jumped since the last [`Self::take_jump`].
    has_jumped: bool,
}

/// The clocks as the last commit before a start has written them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClocksBefore {
    /// The wall clock.
    pub(crate) wall_us: u64,
    /// The clock since boot.
    pub(crate) boot_us: u64,
    /// Until then, on the clock since boot, the wall clock was not believed.
    pub(crate) doubted_until_us: u64,
    /// Whether the machine has not booted since, so that the clock since boot is the same one.
    pub(crate) is_same_boot: bool,
}

impl ClocksBefore {
    /// Until when a doubt of that run goes on, on the clock since boot, which shows `boot_us` now. 0: there was none.
    fn doubted_until_us(&self, boot_us: u64) -> u64 {
        if self.is_same_boot {
            return self.doubted_until_us;
        }
        match self.doubted_until_us.saturating_sub(self.boot_us) {
            0 => 0,
            left_us => boot_us.saturating_add(left_us.min(DAY_US)),
        }
    }
}

impl ClockRule {
    /// The rule at a start.
    pub(crate) fn new(wall_us: u64, boot_us: u64, before: Option<ClocksBefore>) -> Self {
        let is_odd = before.is_some_and(|ClocksBefore { wall_us: last_us, .. }| {
            wall_us > last_us.saturating_add(DAY_US) || wall_us.saturating_add(HOUR_US) < last_us
        });
        let left_us = before.map_or(0, |before| before.doubted_until_us(boot_us));
        let doubted_until_us = if is_odd { boot_us + DAY_US } else { left_us };
        Self { wall_us, boot_us, doubted_until_us, has_jumped: false }
    }

    /// Looks at both clocks.
    pub(crate) fn look(&mut self, wall_us: u64, boot_us: u64) {
        let expected_us = self.wall_us + boot_us.saturating_sub(self.boot_us);
        let has_jumped = wall_us.abs_diff(expected_us) > HOUR_US;
        (self.wall_us, self.boot_us) = (wall_us, boot_us);
        if has_jumped {
            self.doubted_until_us = boot_us + DAY_US;
            self.has_jumped = true;
        }
    }

    /// Whether the wall clock has jumped since the last call.
    pub(crate) fn take_jump(&mut self) -> bool {
        std::mem::take(&mut self.has_jumped)
    }

    /// Both clocks at the last look: the wall clock, and the one since boot.
    pub(crate) fn seen_us(&self) -> (u64, u64) {
        (self.wall_us, self.boot_us)
    }

    /// Until when the wall clock is not believed, on the clock since boot; it may be over.
    pub(crate) fn doubted_until_us(&self) -> u64 {
        self.doubted_until_us
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

    /// A last commit without a doubt.
    fn before(wall_us: u64) -> Option<ClocksBefore> {
        Some(ClocksBefore { wall_us, boot_us: 3, doubted_until_us: 0, is_same_boot: true })
    }

    /// Looks at both clocks; whether the wall clock has jumped.
    fn jumps(rule: &mut ClockRule, wall_us: u64, boot_us: u64) -> bool {
        rule.look(wall_us, boot_us);
        rule.take_jump()
    }

    #[test]
    fn a_jump_of_more_than_an_hour_is_doubted_for_a_day() {
        for jumped_us in [NOW_US + YEAR_US, NOW_US - YEAR_US, NOW_US + HOUR_US + 2, NOW_US - HOUR_US] {
            let mut rule = ClockRule::new(NOW_US, 7, before(NOW_US - 1));
            assert!(rule.is_believed());
            assert!(jumps(&mut rule, jumped_us, 8), "{jumped_us}");
            assert!(!rule.is_believed());
            assert!(!jumps(&mut rule, jumped_us + DAY_US - 1, 8 + DAY_US - 1));
            assert!(!rule.is_believed());
            assert!(!jumps(&mut rule, jumped_us + DAY_US, 8 + DAY_US));
            assert!(rule.is_believed());
        }
    }

    #[test]
    fn slow_steps_and_a_long_sleep_are_no_jump() {
        let mut rule = ClockRule::new(NOW_US, 0, None);
        assert!(!jumps(&mut rule, NOW_US + HOUR_US / 2, 1) && !jumps(&mut rule, NOW_US, 2));
        assert!(
            !jumps(&mut rule, NOW_US + YEAR_US, YEAR_US),
            "the clock since boot counts a suspended machine"
        );
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
            let rule = ClockRule::new(NOW_US, 5, before(last_us));
            assert_eq!(rule.is_believed(), is_believed, "{last_us}");
        }
        assert!(ClockRule::new(NOW_US, 5, None).is_believed());
    }

    #[test]
    fn a_restart_goes_on_with_the_doubt_that_was_left() {
        let boot_us = 40 * DAY_US;
        let doubted = ClocksBefore {
            wall_us: NOW_US,
            boot_us,
            doubted_until_us: boot_us + HOUR_US,
            is_same_boot: true,
        };
        // Half an hour passes until the restart, which counts only without a boot between.
        for (is_same_boot, now_us, left_us) in
            [(true, boot_us + HOUR_US / 2, HOUR_US / 2), (false, 9, HOUR_US)]
        {
            let before = ClocksBefore { is_same_boot, ..doubted };
            let mut rule = ClockRule::new(NOW_US + HOUR_US / 2, now_us, Some(before));
            assert!(!rule.is_believed(), "{is_same_boot}");
            assert!(!jumps(&mut rule, NOW_US + HOUR_US / 2 + left_us - 1, now_us + left_us - 1));
            assert!(!rule.is_believed(), "{is_same_boot}");
            assert!(!jumps(&mut rule, NOW_US + HOUR_US / 2 + left_us, now_us + left_us));
            assert!(rule.is_believed(), "{is_same_boot}");
        }
        let over = ClocksBefore { doubted_until_us: boot_us, is_same_boot: false, ..doubted };
        assert!(ClockRule::new(NOW_US, 1, Some(over)).is_believed());
    }
}
