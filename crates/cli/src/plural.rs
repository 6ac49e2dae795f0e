//! Counts with their nouns: one job, two jobs.
//!
//! For texts that people read; `--json` has the number itself.

/// A number with its noun, which takes an `s` unless there is one of it.
pub(crate) fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_many() {
        let all: Vec<_> = [0, 1, 2].into_iter().map(|number| count(number, "job")).collect();
        assert_eq!(all, ["0 jobs", "1 job", "2 jobs"]);
    }
}
