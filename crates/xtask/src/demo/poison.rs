//! The chapter of the poison job: one that kills every worker that runs it, among harmless jobs.
//!
//! The daemon must retry it exactly to its budget and then quarantine it, and must charge no other job.

use anyhow::{Context, Result, ensure};

use crate::demo::daemon::Daemon;
use crate::demo::events::{self, EventFollower, EventRecord};

/// Deaths that quarantine a job, unless its client asks for fewer.
const CRASHES_MAX: u64 = 3;

/// The exit code of `bulkhead wait` for a quarantined job.
const EXIT_CRASHED: i32 = 125;

/// Submits the job that kills its workers.
///
/// # Errors
/// The daemon refuses it.
pub(crate) fn submit(daemon: &Daemon) -> Result<u64> {
    let id = daemon.tell(&["submit", "chaos", "segv"])?;
    id.trim().parse().with_context(|| format!("bulkhead submit said {id:?}"))
}

/// Waits for its end and prints the events that led there.
///
/// # Errors
/// It was not retried exactly to its budget and then quarantined.
pub(crate) fn run(daemon: &Daemon, events: &mut EventFollower, job: u64) -> Result<()> {
    let is_of_job = |record: &EventRecord| record.number("job") == Some(job);
    let ended = events.find("the poison job's end", |record| record.is("ended") && is_of_job(record))?;
    let mut story = Vec::new();
    for crash in 1..=CRASHES_MAX {
        let blamed = events.find("its blame", |record| {
            record.is("blamed") && is_of_job(record) && record.number("crashes") == Some(crash)
        })?;
        let worker = blamed.number("worker");
        story.push(
            events.find("its worker's death", |record| {
                record.is("died") && record.number("worker") == worker
            })?,
        );
        story.push(blamed);
    }
    story.push(ended);
    println!("    $ bulkhead events");
    for line in events::lines(daemon, &story.iter().collect::<Vec<_>>())? {
        println!("      {line}");
    }
    let waited = daemon.ask(&["wait", &job.to_string()])?;
    println!("    $ bulkhead wait {job}; echo $?\n      {}", waited.status.code().unwrap_or(-1));
    ensure!(waited.status.code() == Some(EXIT_CRASHED), "`bulkhead wait {job}` ended with {}", waited.status);
    let attempts = story.last().and_then(|ended| ended.number("attempts"));
    ensure!(
        attempts == Some(CRASHES_MAX),
        "the poison job was run {attempts:?} times, its budget is {CRASHES_MAX}"
    );
    Ok(())
}
