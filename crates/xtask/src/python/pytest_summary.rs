//! What pytest said, added up over interpreters.
//!
//! pytest's last line counts its tests; the lines before it say what was skipped, and why. A run without such a line has failed.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};

/// The sums of all runs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct PytestSummary {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
    /// What was skipped and why.
    pub(crate) told: Vec<String>,
}

impl PytestSummary {
    /// All tests with this interpreter were skipped.
    pub(super) fn skipped(version: &str, why: &str) -> Self {
        let told = vec![format!("the tests of the Python package with CPython {version}: {why}")];
        Self { skipped: 1, told, ..Self::default() }
    }

    /// Adds another run.
    pub(super) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.told.extend(other.told);
    }

    /// Runs pytest, and prints what it said once it has ended, so that runs beside each other stay apart.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn of(version: &str, command: &mut Command) -> Result<Self> {
        let begun = Instant::now();
        let output = command.stdin(Stdio::null()).output().context("pytest could not be started")?;
        let said = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        println!(
            "$ pytest python/tests (CPython {version})\n{said}{errors}  took {:.1} s",
            begun.elapsed().as_secs_f64()
        );
        let mut summary = Self::default();
        said.lines().for_each(|line| summary.read_skip(version, line));
        summary.read_counts(said.trim_end().lines().next_back().unwrap_or_default());
        // Code 5: no test was selected, by arguments that name one of another file.
        if !output.status.success() && output.status.code() != Some(5) && summary.failed == 0 {
            summary.failed = 1;
        }
        Ok(summary)
    }

    /// A line such as `SKIPPED [2] tests/test_numpy.py:12: no numpy`.
    fn read_skip(&mut self, version: &str, line: &str) {
        if let Some((_, what)) = line.strip_prefix("SKIPPED [").and_then(|rest| rest.split_once("] ")) {
            self.told.push(format!("CPython {version}: {what}"));
        }
    }

    /// Adds the counts of a line such as `1 failed, 12 passed, 2 skipped in 3.21s`.
    fn read_counts(&mut self, line: &str) {
        let words: Vec<&str> = line.split([' ', ',', '=']).filter(|word| !word.is_empty()).collect();
        for pair in words.windows(2) {
            let Ok(count) = pair[0].parse::<u64>() else { continue };
            match pair[1] {
                "passed" | "xfailed" => self.passed += count,
                "failed" | "error" | "errors" | "xpassed" => self.failed += count,
                "skipped" => self.skipped += count,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_counted_and_what_was_skipped_is_told() {
        let mut summary = PytestSummary::default();
        summary.read_skip("3.11", "SKIPPED [2] tests/test_numpy.py:12: no numpy");
        summary.read_counts("1 failed, 12 passed, 2 skipped, 1 xfailed in 3.21s");
        summary.read_counts("=== 3 passed, 1 warning in 0.10s ===");
        summary.read_counts("2 errors in 1.00s");
        assert_eq!((summary.passed, summary.failed, summary.skipped), (16, 3, 2));
        assert_eq!(summary.told, ["CPython 3.11: tests/test_numpy.py:12: no numpy"]);
    }
}
