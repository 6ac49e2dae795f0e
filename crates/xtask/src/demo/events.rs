//! The daemon's events, followed live with `bulkhead events --follow --json`.
//!
//! The demo waits only for these records, and takes all of its times from their timestamps.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use serde_json::Value;

use crate::demo::daemon::{DEADLINE, Daemon};

/// One record, as JSON.
#[derive(Clone, Debug)]
pub(crate) struct EventRecord(Value);

impl EventRecord {
    /// Whether it is this kind of event.
    pub(crate) fn is(&self, event: &str) -> bool {
        self.0["event"] == event
    }

    /// A field that is a number.
    pub(crate) fn number(&self, field: &str) -> Option<u64> {
        self.0[field].as_u64()
    }

    /// A field that is true or false.
    pub(crate) fn flag(&self, field: &str) -> bool {
        self.0[field].as_bool().unwrap_or(false)
    }

    /// Its index, from 1.
    pub(crate) fn index(&self) -> u64 {
        self.number("index").unwrap_or(0)
    }

    /// When it happened, in microseconds since 1970.
    pub(crate) fn at_us(&self) -> u64 {
        self.number("at_us").unwrap_or(0)
    }
}

/// All records from the daemon's start on, as they arrive.
pub(crate) struct EventFollower {
    follower: Child,
    coming: Receiver<Value>,
    seen: Vec<EventRecord>,
}

impl EventFollower {
    /// Begins to follow.
    ///
    /// # Errors
    /// The command cannot be started.
    pub(crate) fn follow(daemon: &Daemon) -> Result<Self> {
        let mut follower = daemon
            .command(&["events", "--follow", "--json"])
            .stdout(Stdio::piped())
            .spawn()
            .context("start bulkhead events --follow")?;
        let pipe = follower.stdout.take().context("bulkhead events --follow has no output")?;
        let (sender, coming) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if sender.send(serde_json::from_str(&line).unwrap_or(Value::Null)).is_err() {
                    break;
                }
            }
        });
        Ok(Self { follower, coming, seen: Vec::new() })
    }

    /// The first record, seen or future, for which `wanted` is true.
    ///
    /// # Errors
    /// None arrives in time; `what` names it in the error.
    pub(crate) fn find(&mut self, what: &str, wanted: impl Fn(&EventRecord) -> bool) -> Result<EventRecord> {
        if let Some(record) = self.seen.iter().find(|record| wanted(record)) {
            return Ok(record.clone());
        }
        let until = Instant::now() + DEADLINE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let next =
                self.coming.recv_timeout(left).map_err(|_| anyhow!("no event arrived about {what}"))?;
            let record = EventRecord(next);
            self.seen.push(record.clone());
            if wanted(&record) {
                return Ok(record);
            }
        }
    }

    /// The process ids of all workers in the spawn records that were seen.
    pub(crate) fn pids(&self) -> Vec<u64> {
        self.seen
            .iter()
            .filter(|record| record.is("spawned"))
            .filter_map(|record| record.number("pid"))
            .collect()
    }
}

impl Drop for EventFollower {
    fn drop(&mut self) {
        _ = self.follower.kill();
        _ = self.follower.wait();
    }
}

/// The lines that `bulkhead events` prints for these records.
///
/// # Errors
/// If the command fails.
pub(crate) fn lines(daemon: &Daemon, records: &[&EventRecord]) -> Result<Vec<String>> {
    let all = daemon.tell(&["events"])?;
    let line_of = |record: &&EventRecord| {
        let place = usize::try_from(record.index().checked_sub(1)?).ok()?;
        all.lines().nth(place).map(str::to_owned)
    };
    records
        .iter()
        .map(|record| line_of(record).context("bulkhead events prints fewer lines than records"))
        .collect()
}
