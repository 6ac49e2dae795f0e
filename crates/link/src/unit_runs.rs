//! Ranges of the units of an arena, as both of its sides give them back to the system.
//!
//! Pure: it knows no arena and no memory. Used by `worker/arena.rs` and by the supervisor's `result_arena.rs`.

use std::ops::Range;

/// The ranges that these units form, which come in ascending order.
pub fn runs_of(units: impl Iterator<Item = usize>) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for unit in units {
        match runs.last_mut().filter(|last| last.end == unit) {
            Some(last) => last.end = unit + 1,
            None => runs.push(unit..unit + 1),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_one_range() {
        assert_eq!(runs_of([0, 1, 2, 5, 7, 8].into_iter()), [0..3, 5..6, 7..9]);
        assert!(runs_of(std::iter::empty()).is_empty());
    }
}
