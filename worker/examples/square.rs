//! A worker program with one kind of its own: `square`, of a whole number.
//!
//! `bulkhead.toml` names this program and the kind:
//!
//! ```toml
//! worker_program = "/path/to/square"
//! workers = 5
//! builtin_kinds = false
//! [kinds.square]
//! usage = "N"
//! summary = "the square of a whole number"
//! ```
//!
//! Then `bulkhead run square --each 0 1 2 3 4` gives 0, 1, 4, 9, 16, each from a worker of its own.

use std::process::ExitCode;

use bulkhead_worker::{Registry, TaskContext, run};

fn square(n: i64, _task: &mut dyn TaskContext) -> Result<i64, String> {
    n.checked_mul(n).ok_or_else(|| format!("the square of {n} does not fit 64 bits"))
}

fn main() -> ExitCode {
    run(&Registry::new().typed("square", square))
}
