//! Output habits: whether tasks of a kind or flavour lately had results for which a reserve would have been right.
//!
//! A task that may ask for an output asks when its result has grown longer than inline, and waits for the answer. If most of the
//! last tasks like it did so, an output goes with the next offer beforehand (`machine/on_demand.rs`): one question less for
//! each. Results that fit inline, and those that are longer than a reserve, end that after three of them. `settle.rs` of the machine
//! reports each result.

use crate::turn::Flavour;
use crate::worker::Workers;

/// Of the last eight results so many have to be right for a reserve.
const MOST: u32 = 6;

/// The last eight results, the newest in the lowest bit: 1 if a reserve was right for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct OutputHabit(u8);

impl OutputHabit {
    /// Hears of one result.
    pub(super) fn hear(&mut self, reserve_fits: bool) {
        self.0 = self.0 << 1 | u8::from(reserve_fits);
    }

    /// Whether the next result is expected to be like that.
    pub(super) fn expects_reserve(self) -> bool {
        self.0.count_ones() >= MOST
    }
}

impl<T: Copy> Workers<T> {
    /// A task of this flavour that might have asked has ended, and whether a reserve was right for its result.
    pub(crate) fn note_output(&mut self, flavour: Flavour, reserve_fits: bool) {
        if flavour.is_none() {
            self.output_habits[usize::from(flavour.kind.0)].hear(reserve_fits);
        } else {
            self.flavours.hear_output(flavour, reserve_fits);
        }
    }

    /// Whether a reserve is to go with the next task of this flavour.
    pub(crate) fn expects_reserve(&self, flavour: Flavour) -> bool {
        let habit = if flavour.is_none() {
            self.output_habits[usize::from(flavour.kind.0)]
        } else {
            self.flavours.habit(flavour)
        };
        habit.expects_reserve()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_of_eight_begin_it_and_three_that_are_not_end_it() {
        let mut habit = OutputHabit::default();
        let mut after = |fits| {
            habit.hear(fits);
            habit.expects_reserve()
        };
        assert_eq!([true; 6].map(&mut after), [false, false, false, false, false, true]);
        assert_eq!([true, true, false, false, false].map(&mut after), [true, true, true, true, false]);
        let mixed = (0..40).any(|at| after(at % 2 == 0));
        assert!(!mixed, "a kind whose every second result is inline never gets a reserve");
    }
}
