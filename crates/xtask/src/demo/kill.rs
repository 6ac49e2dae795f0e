//! The chapter in which a busy worker is killed, with the times of what followed.
//!
//! The shell that kills stores the time right before the kill; all later times are those of the daemon's records. Both
//! read the same wall clock.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::demo::daemon::Daemon;
use crate::demo::events::{self, EventFollower, EventRecord};

/// bash prints the time and then kills; its `kill` is a builtin, so no process is started in between.
const KILL: &str = r#"echo "$EPOCHREALTIME"; kill -9 "$1""#;

/// How often a kill may hit the moment between two jobs, in which no job is to blame.
const TRIES: usize = 20;

/// The job that lost its worker.
pub(crate) struct Victim {
    /// Its number.
    pub(crate) job: u64,
}

/// Kills a worker in the middle of a job, waits until that job is done all the same, and prints the steps.
///
/// # Errors
/// The daemon does not notice the death, replace the worker, retry the job or answer it.
pub(crate) fn run(daemon: &Daemon, events: &mut EventFollower) -> Result<Victim> {
    for _ in 0..TRIES {
        let (worker, pid) = busy_worker(daemon)?;
        println!("    $ kill -9 {pid}        # worker {worker}, in the middle of a factorial");
        let killed_us = kill(pid)?;
        let died = events.find("the worker's death", |record| {
            record.is("died") && record.number("worker") == Some(worker)
        })?;
        let verdict = events.find("who is to blame", |record| {
            (record.is("blamed") || record.is("nobody-blamed")) && record.number("worker") == Some(worker)
        })?;
        if verdict.is("blamed") {
            return aftermath(daemon, events, killed_us, &died, &verdict);
        }
        println!("      it was between two jobs: nobody is to blame, so once more");
    }
    anyhow::bail!("{TRIES} kills all hit an idle moment: the workers had nothing to run")
}

/// The number and the pid of a worker that runs a job now.
fn busy_worker(daemon: &Daemon) -> Result<(u64, u64)> {
    let rows = daemon.tell(&["workers", "--json"])?;
    for line in rows.lines() {
        let row: Value =
            serde_json::from_str(line).with_context(|| format!("bulkhead workers said {line:?}"))?;
        if row["state"] == "busy" {
            let number = |field: &str| row[field].as_u64().with_context(|| format!("no {field} in {line:?}"));
            return Ok((number("worker")?, number("pid")?));
        }
    }
    anyhow::bail!("no worker is busy:\n{rows}")
}

/// Kills the process and returns the time right before, in microseconds since 1970.
fn kill(pid: u64) -> Result<u64> {
    let output =
        Command::new("bash").args(["-c", KILL, "kill", &pid.to_string()]).output().context("start bash")?;
    ensure!(output.status.success(), "kill -9 {pid}: {}", String::from_utf8_lossy(&output.stderr).trim());
    let stamp = String::from_utf8_lossy(&output.stdout);
    // Seconds and microseconds, with the locale's decimal sign between them.
    let digits: String = stamp.chars().filter(char::is_ascii_digit).collect();
    digits.parse().with_context(|| format!("bash gave the time as {stamp:?}"))
}

/// Waits for the events that followed the death, and prints them.
fn aftermath(
    daemon: &Daemon,
    events: &mut EventFollower,
    killed_us: u64,
    died: &EventRecord,
    blamed: &EventRecord,
) -> Result<Victim> {
    let worker = died.number("worker");
    let job = blamed.number("job").context("a blame without a job")?;
    let placed = events
        .find("the replacement", |record| record.is("placed") && record.number("replaces") == worker)?;
    let is_of_job = |record: &EventRecord| record.number("job") == Some(job);
    let retried = events.find("the retry", |record| record.is("retried") && is_of_job(record))?;
    let ended = events.find("the answer", |record| record.is("ended") && is_of_job(record))?;
    let mut story = [died, blamed, &placed, &retried, &ended];
    story.sort_by_key(|record| record.index());
    println!("    $ bulkhead events --follow");
    for line in events::lines(daemon, &story)? {
        println!("      {line}");
    }
    let after = |record: &EventRecord| record.at_us().saturating_sub(killed_us) as f64 / 1000.0;
    let spare = if placed.flag("warm") { "a warm spare" } else { "started cold" };
    let (next, fresh) = (placed.number("worker").unwrap_or(0), retried.number("worker").unwrap_or(0));
    let attempt = retried.number("attempt").unwrap_or(0);
    println!("    After the kill:");
    println!("      {:9.3} ms  the death is noticed, and job {job} charged with it", after(died));
    println!("      {:9.3} ms  worker {next}, {spare}, has its place", after(&placed));
    println!(
        "      {:9.3} ms  job {job} runs again: attempt {attempt}, alone in worker {fresh}",
        after(&retried)
    );
    println!("      {:9.3} ms  job {job} is answered", after(&ended));
    ensure!(placed.flag("warm"), "the replacement was not warm");
    ensure!(attempt == 2 && retried.flag("alone"), "the retry was not attempt 2 alone in a fresh worker");
    ensure!(died.at_us() >= killed_us && ended.at_us() >= retried.at_us(), "the records are out of order");
    Ok(Victim { job })
}
