//! The verbs of the command line, one file each: its arguments, and what it does with them.
//!
//! A verb checks its arguments, asks the daemon, prints, and gives an exit code. It must never end the process by
//! itself, nor ask anything before all its arguments are known to be right. `args::Verb` drives them.

pub(crate) mod cancel;
pub(crate) mod deaths;
pub(crate) mod drain;
pub(crate) mod events;
pub(crate) mod forget;
pub(crate) mod job;
pub(crate) mod jobs;
pub(crate) mod kinds;
pub(crate) mod ping;
pub(crate) mod result;
pub(crate) mod retry;
pub(crate) mod run;
pub(crate) mod status;
pub(crate) mod submit;
pub(crate) mod wait;
pub(crate) mod why;
pub(crate) mod workers;

use anyhow::Result;
use bulkhead_client::Changed;
use bulkhead_proto::exit;
use serde_json::json;

use crate::args::Global;
use crate::context::Out;
use crate::words;

/// Says what became of a cancel, retry or forget; `done` is the word for it.
fn tell_changed(changed: &Changed, done: &str, global: &Global) -> Result<u8> {
    let mut out = Out::new();
    if global.json {
        out.json(&json!({ "count": changed.count, "refused": changed.refused }))?;
    } else if !global.quiet {
        out.line(format_args!("{done} {}", words::count(changed.count, "job")))?;
    }
    out.flush()?;
    for refusal in &changed.refused {
        eprintln!("bulkhead: {refusal}");
    }
    Ok(changed.refused.first().map_or(exit::DONE, crate::exit::of_refusal))
}
