//! A batch of factorials: submitted by one command, each result checked without GMP.
//!
//! The digits, the exit codes and the counts of attempts are all checked.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::demo::arithmetic;
use crate::demo::daemon::Daemon;

/// The jobs of a batch and the `n` of each.
pub(crate) struct FactorialBatch {
    jobs: Vec<(u64, u64)>,
}

impl FactorialBatch {
    /// Submits n! for every `n`, all decimal digits.
    ///
    /// # Errors
    /// The daemon refuses them.
    pub(crate) fn submit(daemon: &Daemon, range: RangeInclusive<u64>) -> Result<Self> {
        let numbers: Vec<String> = range.clone().map(|n| n.to_string()).collect();
        let mut arguments = vec!["submit", "factorial", "--as", "decimal"];
        arguments.extend(numbers.iter().map(String::as_str));
        let said = daemon.tell(&arguments)?;
        let ids: Vec<u64> = said
            .lines()
            .map(|line| line.trim().parse())
            .collect::<Result<_, _>>()
            .context("ids of submit")?;
        ensure!(
            ids.len() == numbers.len(),
            "{} jobs were submitted, {} ids came back",
            numbers.len(),
            ids.len()
        );
        Ok(Self { jobs: ids.into_iter().zip(range).collect() })
    }

    /// The number of jobs.
    pub(crate) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Waits until the first `count` have ended, all `done`.
    ///
    /// # Errors
    /// A job ends otherwise.
    pub(crate) fn wait(&self, daemon: &Daemon, count: usize) -> Result<()> {
        let ids: Vec<String> = self.jobs.iter().take(count).map(|(job, _)| job.to_string()).collect();
        let mut arguments = vec!["wait"];
        arguments.extend(ids.iter().map(String::as_str));
        daemon.tell(&arguments).map(drop)
    }

    /// Fetches every result and checks it against the product 1 * 2 * ... * n modulo a prime.
    ///
    /// # Errors
    /// A result is missing or wrong.
    pub(crate) fn check(&self, daemon: &Daemon) -> Result<()> {
        for (job, n) in &self.jobs {
            let text = daemon.tell(&["result", &job.to_string()])?;
            let right = arithmetic::digits(text.trim_end()) == Some(arithmetic::factorial(*n));
            ensure!(right, "job {job} gave a wrong {n}!");
        }
        Ok(())
    }

    /// Checks that every job was done at its first attempt, except for the `victim`, which was done at its second.
    ///
    /// # Errors
    /// The counts of a job are different.
    pub(crate) fn judge(&self, rows: &BTreeMap<u64, Value>, victim: u64) -> Result<()> {
        for (job, _) in &self.jobs {
            let row = rows.get(job).with_context(|| format!("job {job} is not in `bulkhead jobs`"))?;
            let expected = if *job == victim { (2, 1) } else { (1, 0) };
            ensure!(row["outcome"] == "done", "job {job} is not done: {row}");
            let counts = (row["attempts"].as_u64().unwrap_or(0), row["crashes"].as_u64().unwrap_or(99));
            ensure!(counts == expected, "job {job} has {counts:?} attempts and crashes, not {expected:?}");
        }
        Ok(())
    }
}

/// All jobs that the daemon keeps, by number.
///
/// # Errors
/// If `bulkhead jobs` fails or prints something else.
pub(crate) fn rows(daemon: &Daemon) -> Result<BTreeMap<u64, Value>> {
    let mut rows = BTreeMap::new();
    for line in daemon.tell(&["jobs", "--json"])?.lines() {
        let row: Value =
            serde_json::from_str(line).with_context(|| format!("bulkhead jobs said {line:?}"))?;
        rows.insert(row["job"].as_u64().context("a row without a job")?, row);
    }
    Ok(rows)
}
