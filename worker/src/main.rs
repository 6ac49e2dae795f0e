//! `bulkhead-worker`: the worker of the built-in kinds.
//!
//! Started by the supervisor, never by hand: its standard input is its lane.

use std::process::ExitCode;

use bulkhead_sys::allocator::TrackingAllocator;
use bulkhead_sys::gmp;
use bulkhead_worker::{Registry, run};

/// So that a task that dies of want of memory can say how much it wanted, GMP's numbers included.
#[global_allocator]
static ALLOCATOR: TrackingAllocator = TrackingAllocator;

fn main() -> ExitCode {
    gmp::use_global_allocator();
    run(&Registry::builtin())
}
