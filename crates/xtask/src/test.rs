//! `cargo xtask test`: everything that is tested, from an empty build folder to the last line.
//!
//! It adds nothing to the tests of cargo but what they need beforehand, packages and programs, and at the end one
//! line that sums them up, with every test that skipped itself.

use anyhow::{Result, ensure};

use crate::{cargo, setup};

/// How a test begins the line in which it says that, and why, it skipped itself.
const SKIPPED: &str = "SKIPPED ";

/// Sets up, builds every target, runs every test.
///
/// # Errors
/// If a package is missing and cannot be installed, the build fails, or a test does.
pub(crate) fn run() -> Result<()> {
    setup::run(setup::For::Tests)?;
    // The end-to-end tests start the real programs, which `cargo test` alone need not build.
    cargo::run(&["build", "--workspace", "--all-targets"])?;
    let mut tally = Tally::default();
    let tested = cargo::run_reading(&["test", "--workspace", "--no-fail-fast"], |line| tally.read(line));
    for line in &tally.skipped {
        println!("{line}");
    }
    let (passed, failed, ignored) = (tally.passed, tally.failed, tally.ignored);
    println!(
        "tests: {passed} passed, {failed} failed, {ignored} ignored, {} skipped themselves",
        tally.skipped.len()
    );
    tested?;
    ensure!(passed > 0 && failed == 0, "no test ran, or one failed");
    Ok(())
}

/// The sum of all test programs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    skipped: Vec<String>,
}

impl Tally {
    /// Reads a line of a test program's output.
    fn read(&mut self, line: &str) {
        if let Some(at) = line.find(SKIPPED) {
            self.skipped.push(line[at..].to_owned());
        }
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let mut before = 0;
        for word in result.split([' ', ';']) {
            match word {
                "passed" => self.passed += before,
                "failed" => self.failed += before,
                "ignored" => self.ignored += before,
                _ => before = word.parse().unwrap_or(before),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_summed_up() {
        let mut tally = Tally::default();
        for line in [
            "test a ... ok",
            "SKIPPED the service: only root can",
            "test result: ok. 19 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.11s",
            "test result: FAILED. 10 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.36s",
        ] {
            tally.read(line);
        }
        let skipped = vec!["SKIPPED the service: only root can".to_owned()];
        assert_eq!(tally, Tally { passed: 29, failed: 3, ignored: 2, skipped });
    }
}
