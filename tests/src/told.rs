//! Reads what a daemon reports about a job and about deaths, through the command's `--json`.
//!
//! It waits for reports and reads them; it checks nothing. Used by the end-to-end tests.

use serde_json::Value;

use crate::daemon::{Daemon, eventually};

/// Submits one job with these words (`["--memory", "32M", "chaos", "loop"]`) and waits for its end: its number, and the
/// exit code of `wait`.
pub fn ended(daemon: &Daemon, words: &[&str]) -> (String, Option<i32>) {
    let id = daemon.ok(&[&["submit"], words].concat()).trim().to_owned();
    let code = daemon.cli(&["wait", &id]).status.code();
    (id, code)
}

/// The output of `job --json` for one job.
pub fn job(daemon: &Daemon, id: &str) -> Value {
    serde_json::from_str(&daemon.ok(&["job", id, "--json"])).expect("a job")
}

/// The last death that ended an attempt of a job: proven a moment after the job's end.
pub fn death_of(daemon: &Daemon, id: &str) -> Value {
    eventually("the death is listed", || job(daemon, id)["deaths"].as_array()?.last().cloned())
}

/// The event of the death of this worker.
pub fn died(daemon: &Daemon, worker: &Value) -> Value {
    let events = daemon.events_named("died");
    events.into_iter().find(|event| event["worker"] == *worker).expect("each death is an event")
}
