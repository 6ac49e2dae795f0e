//! Counts that fall only by what was added to them.
//!
//! In a release build an integer wraps silently below zero, and every decision made by such a count would be wrong.
//! The owners of counts call [`count_down`] instead of `-=`. Pure arithmetic.

/// Subtracts `by` from a count of `what`.
///
/// # Panics
/// If the count is smaller than `by`.
pub(crate) fn count_down<N>(count: &mut N, by: N, what: &str)
where
    N: Copy + Ord + std::ops::SubAssign,
{
    assert!(*count >= by, "{what} are counted before they go");
    *count -= by;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_falls_by_what_was_counted() {
        let mut count = 3_u64;
        count_down(&mut count, 3, "jobs");
        assert_eq!(count, 0);
    }

    #[test]
    #[should_panic(expected = "jobs are counted before they go")]
    fn a_count_never_falls_below_zero() {
        count_down(&mut 1_u32, 2, "jobs");
    }
}
