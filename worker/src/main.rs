//! `bulkhead-worker`: the worker of the built-in kinds.
//!
//! Started by the supervisor, never by hand: its standard input is its lane.

use std::process::ExitCode;

use bulkhead_sys::allocator::Watched;
use bulkhead_worker::{Registry, run};

/// So that a task that dies of want of memory can say how much it wanted.
#[global_allocator]
static ALLOCATOR: Watched = Watched;

fn main() -> ExitCode {
    run(&Registry::builtin())
}
