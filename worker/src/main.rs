//! `bulkhead-worker`: the worker of the built-in kinds.
//!
//! Started by the supervisor, never by hand: its standard input is its lane.

use std::process::ExitCode;

use bulkhead_worker::{Registry, run};

fn main() -> ExitCode {
    run(&Registry::builtin())
}
