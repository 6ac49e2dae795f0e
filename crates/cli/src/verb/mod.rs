//! The verbs of the command line, one file each: its arguments, and what it does with them.
//!
//! A verb checks its arguments, sends requests, prints the answers and returns an exit code. It must never end the
//! process by itself, and must send nothing before all its arguments are checked. Driven by `args::Verb`.

pub(crate) mod cancel;
pub(crate) mod deaths;
pub(crate) mod drain;
pub(crate) mod events;
pub(crate) mod forget;
pub(crate) mod job;
pub(crate) mod jobs;
pub(crate) mod kinds;
pub(crate) mod logs;
pub(crate) mod ping;
pub(crate) mod result;
pub(crate) mod retry;
pub(crate) mod run;
pub(crate) mod status;
pub(crate) mod submit;
pub(crate) mod wait;
pub(crate) mod why;
pub(crate) mod workers;

use bulkhead_client::{Changed, DaemonClient, Error};
use bulkhead_proto::client::exit;
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::ids::JobId;
use bulkhead_views::answer;

use crate::args::GlobalArgs;
use crate::job_ids::JobIdArgs;
use crate::plural;
use crate::stdio::{StdoutWriter, say};

/// Cancels, retries or forgets jobs by calling `ask`, and prints the result; `done` is the verb in that text.
fn change(
    ids: &JobIdArgs,
    global: &GlobalArgs,
    done: &str,
    ask: impl FnOnce(&mut DaemonClient, &[JobId]) -> Result<Changed, Error>,
) -> anyhow::Result<u8> {
    let jobs = ids.read()?;
    let changed = ask(&mut global.connect()?, &jobs)?;
    let mut out = StdoutWriter::new();
    if global.json {
        out.json(&answer::changed(changed.count, &changed.refused))?;
    } else if !global.quiet {
        out.line(format_args!("{done} {}", plural::count(changed.count, "job")))?;
    }
    out.flush()?;
    Ok(say_refused(&changed.refused))
}

/// Says why jobs were not changed, and gives the exit code.
fn say_refused(refused: &[Refusal]) -> u8 {
    for refusal in refused {
        say(format_args!("bulkhead: {refusal}"));
    }
    refused.first().map_or(exit::DONE, crate::exit::of_refusal)
}
