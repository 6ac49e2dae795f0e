//! What pytest said, added up over interpreters.
//!
//! pytest's last line counts its tests; the lines before it say what was skipped, and why. A run without such a line has failed.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

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
    /// Something was skipped as a whole.
    pub(super) fn skip(&mut self, what: &str) {
        self.skipped += 1;
        self.told.push(what.to_owned());
    }

    /// Runs pytest, passes its lines on, and adds its counts.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn run(&mut self, version: &str, command: &mut Command) -> Result<()> {
        let mut child = command.stdout(Stdio::piped()).spawn().context("pytest could not be started")?;
        let output = child.stdout.take().context("pytest has no output")?;
        let mut last = String::new();
        for line in BufReader::new(output).split(b'\n') {
            let line = line.context("read pytest's output")?;
            let line = String::from_utf8_lossy(&line).into_owned();
            println!("{line}");
            self.read_skip(version, &line);
            if !line.trim().is_empty() {
                last = line;
            }
        }
        let status = child.wait().context("wait for pytest")?;
        let before = self.failed;
        self.add(&last);
        // Code 5: no test was selected, by arguments that name one of another file.
        if !status.success() && status.code() != Some(5) && self.failed == before {
            self.failed += 1;
        }
        Ok(())
    }

    /// A line such as `SKIPPED [2] tests/test_numpy.py:12: no numpy`.
    fn read_skip(&mut self, version: &str, line: &str) {
        if let Some((_, what)) = line.strip_prefix("SKIPPED [").and_then(|rest| rest.split_once("] ")) {
            self.told.push(format!("CPython {version}: {what}"));
        }
    }

    /// Adds the counts of a line such as `1 failed, 12 passed, 2 skipped in 3.21s`.
    fn add(&mut self, line: &str) {
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
        summary.add("1 failed, 12 passed, 2 skipped, 1 xfailed in 3.21s");
        summary.add("=== 3 passed, 1 warning in 0.10s ===");
        summary.add("2 errors in 1.00s");
        assert_eq!((summary.passed, summary.failed, summary.skipped), (16, 3, 2));
        assert_eq!(summary.told, ["CPython 3.11: tests/test_numpy.py:12: no numpy"]);
    }
}
