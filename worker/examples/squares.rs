//! A worker program whose jobs are chunks of items: `squares` squares each number of a chunk.
//!
//! `bulkhead.toml` names this program and the kind:
//!
//! ```toml
//! worker_program = "/path/to/squares"
//! builtin_kinds = false
//! [kinds.squares]
//! ring = 16
//! ```
//!
//! Then `crates/client/examples/chunks.rs` sends chunks, and goes on with what is left when a number kills a worker.

use std::process::ExitCode;

use bulkhead_worker::{Registry, TaskContext, TaskFailure, run};

/// Called once for each item. An error fails the item alone; a crash takes it and no other.
fn square(_: &[u8], item: &[u8], _: &mut dyn TaskContext) -> Result<Vec<u8>, TaskFailure> {
    let number = std::str::from_utf8(item).ok().and_then(|text| text.parse::<i64>().ok());
    let number = number.ok_or_else(|| TaskFailure::new("it is no whole number"))?;
    if number == 13 {
        std::process::abort();
    }
    let square = number.checked_mul(number);
    let square =
        square.ok_or_else(|| TaskFailure::new(format!("the square of {number} does not fit 64 bits")))?;
    Ok(square.to_string().into_bytes())
}

fn main() -> ExitCode {
    run(&Registry::new().with_items("squares", square))
}
