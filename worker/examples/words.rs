//! A worker program whose jobs share a context: `words` counts the words of a text that are in a list of the client.
//!
//! `bulkhead.toml` names this program and the kind:
//!
//! ```toml
//! worker_program = "/path/to/words"
//! builtin_kinds = false
//! [kinds.words]
//! usage = "TEXT"
//! ```
//!
//! Then `crates/client/examples/arena.rs` registers a list, which each worker loads once, and sends texts through an arena.

use std::collections::HashSet;
use std::process::ExitCode;

use bulkhead_worker::{RegisteredContext, Registry, TaskContext, TaskFailure, run};

/// The list of a client.
type List = HashSet<String>;

/// Called once for each list in a worker, as a part of the first task that names it.
fn load(context: &RegisteredContext, _: &mut dyn TaskContext) -> Result<List, TaskFailure> {
    let text = str::from_utf8(context.bytes()).map_err(|_| TaskFailure::new("the list is no text"))?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

fn count(text: &[u8], task: &mut dyn TaskContext) -> Result<(), TaskFailure> {
    let list = task.context(0)?.loaded::<List>();
    let list = list.ok_or_else(|| TaskFailure::new("the job came with files, not with a list"))?;
    let text = str::from_utf8(text).map_err(|_| TaskFailure::new("the input is no text"))?;
    let found = text.split_whitespace().filter(|word| list.contains(*word)).count();
    Ok(write!(task, "{found}")?)
}

fn main() -> ExitCode {
    run(&Registry::new().with_loader(load).with("words", count))
}
