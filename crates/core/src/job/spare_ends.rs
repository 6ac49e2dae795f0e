//! Boxes of ends that are used again: an allocation for each end is a tenth of what a short job costs.
//!
//! An ended job holds its [`End`] in a box, so that the other jobs of the table stay small. `Jobs::take_end` and
//! `Jobs::forget` give the box back. At most [`SPARE_MAX`] blank boxes are kept. `ending.rs` alone takes and gives them.

use crate::job::state::End;

/// As many as the ends that a turn tells.
const SPARE_MAX: usize = 1024;

/// Boxes with a blank end: a box goes into a state of the table as it is.
#[derive(Debug, Default)]
#[allow(clippy::vec_box)] // the boxes are what is kept
pub(super) struct SpareEnds(Vec<Box<End>>);

impl SpareEnds {
    /// A box with a blank end, to be filled in.
    pub(super) fn take(&mut self) -> Box<End> {
        self.0.pop().unwrap_or_default()
    }

    /// Takes a box back, and drops what is left in it.
    pub(super) fn give_back(&mut self, mut end: Box<End>) {
        if self.0.len() < SPARE_MAX {
            *end = End::default();
            self.0.push(end);
        }
    }
}
