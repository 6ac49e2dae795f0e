//! What a daemon tells of a job and of deaths, as the end-to-end tests ask for it: by the command, as JSON.
//!
//! It waits for what must come and reads; it judges nothing.

use serde_json::Value;

use crate::daemon::{Daemon, eventually};

/// Submits one job with these words (`["--memory", "32M", "chaos", "loop"]`) and waits for its end: its number, and the
/// exit code of `wait`.
pub fn ended(daemon: &Daemon, words: &[&str]) -> (String, Option<i32>) {
    let id = daemon.ok(&[&["submit"], words].concat()).trim().to_owned();
    let code = daemon.cli(&["wait", &id]).status.code();
    (id, code)
}

/// All about one job, as `job --json` has it.
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
