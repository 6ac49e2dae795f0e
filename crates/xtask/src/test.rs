//! `cargo xtask test`: runs all tests, from an empty build folder on.
//!
//! It runs cargo's tests after it has provided their packages and programs, then those of the Python package. At the end it prints every test that skipped
//! itself with its reason, and a line `N passed, N failed, N skipped`. A test that skipped itself has not passed.

use std::collections::BTreeSet;

use anyhow::{Result, bail, ensure};

use crate::python::{self, PytestSummary};
use crate::{cargo, setup};

/// The beginning of the line in which a test says that it skipped itself, and why: the macro in `tests/src/skip.rs`.
const SKIPPED: &str = "SKIPPED ";

/// Sets up, builds every target, runs every test; with `python` those of the Python package alone.
///
/// # Errors
/// A package is missing and cannot be installed, the build fails, or a test fails.
pub(crate) fn run(selected: &[String]) -> Result<()> {
    let arguments: Vec<&str> = selected.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] => run_all(),
        ["python", rest @ ..] => run_python(rest),
        [other, ..] => bail!("`{other}` names no part of the tests: only `python` can be run alone"),
    }
}

/// Runs the tests of the Python package alone.
fn run_python(arguments: &[&str]) -> Result<()> {
    let mut tally = TestCounts::default();
    tally.add_python(python::test(arguments)?);
    tally.tell();
    ensure!(tally.passed > 0 && tally.failed == 0, "no test ran, or one failed");
    Ok(())
}

fn run_all() -> Result<()> {
    setup::run(setup::Purpose::Tests)?;
    // The end-to-end tests start the real programs, which `cargo test` alone need not build.
    cargo::run(&["build", "--workspace", "--all-targets"])?;
    let mut tally = TestCounts::default();
    let tested = cargo::run_reading(&["test", "--workspace", "--no-fail-fast"], |line| tally.read(line));
    let python = python::test(&[]).map(|summary| tally.add_python(summary));
    tally.tell();
    tested?;
    python?;
    ensure!(tally.passed > 0 && tally.failed == 0, "no test ran, or one failed");
    Ok(())
}

/// The totals of all test programs.
#[derive(Debug, Default, PartialEq, Eq)]
struct TestCounts {
    passed: u64,
    failed: u64,
    skipped: u64,
    ignored: u64,
    /// What was skipped and why: tests, and parts of tests that passed all the same.
    told: Vec<String>,
    /// Names of the tests of the program that runs, and of those that it told to be skipped.
    tests: BTreeSet<String>,
    skips: BTreeSet<String>,
}

impl TestCounts {
    /// Adds what pytest said.
    fn add_python(&mut self, python: PytestSummary) {
        self.passed += python.passed;
        self.failed += python.failed;
        self.skipped += python.skipped;
        self.told.extend(python.told);
    }

    /// Prints what was skipped, and the sums.
    fn tell(&self) {
        for line in &self.told {
            println!("{SKIPPED}{line}");
        }
        println!("{} ignored: run by hand", self.ignored);
        println!("{}", self.closing_line());
    }

    /// Reads a line of a test program's output.
    fn read(&mut self, line: &str) {
        if let Some(told) = line.strip_prefix(SKIPPED) {
            self.told.push(told.to_owned());
            self.skips.extend(told.split_once(": ").map(|(test, _)| test.to_owned()));
        } else if let Some(result) = line.strip_prefix("test result: ") {
            self.add(result);
        } else if let Some((test, _)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ...")) {
            self.tests.insert(test.to_owned());
        }
    }

    /// Adds the result of a program that has ended. It counts a test that skipped itself among those that passed.
    fn add(&mut self, result: &str) {
        let skipped = self.skips.intersection(&self.tests).count() as u64;
        let mut before = 0_u64;
        for word in result.split([' ', ';']) {
            match word {
                "passed" => self.passed += before.saturating_sub(skipped),
                "failed" => self.failed += before,
                "ignored" => self.ignored += before,
                _ => before = word.parse().unwrap_or(before),
            }
        }
        self.skipped += skipped;
        (self.tests, self.skips) = Default::default();
    }

    /// The last line, which stands alone.
    fn closing_line(&self) -> String {
        format!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skip;

    #[test]
    fn results_are_summed_up_and_what_was_skipped_did_not_pass() {
        let mut tally = TestCounts::default();
        for line in [
            "test a ... ",
            "SKIPPED a: only root can: at all",
            "ok",
            "test b::c ... ok",
            "SKIPPED attack: a part of a test",
            "test result: ok. 19 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.11s",
            "SKIPPED b::c: no disk",
            "test b::c ... ok",
            "test a ... FAILED",
            "test result: FAILED. 10 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.36s",
        ] {
            tally.read(line);
        }
        assert_eq!(tally.told, ["a: only root can: at all", "attack: a part of a test", "b::c: no disk"]);
        assert_eq!(tally.ignored, 2);
        assert_eq!(tally.closing_line(), "27 passed, 3 failed, 2 skipped");
    }

    /// The form that the macro prints is the form that is read here.
    #[test]
    fn the_macro_of_the_tests_is_understood() {
        let mut tally = TestCounts::default();
        tally.read(&skip::line("crate::module::test::{{closure}}::here", format_args!("no\ndisk")));
        assert_eq!(tally.told, ["module::test: no disk"]);
    }
}
