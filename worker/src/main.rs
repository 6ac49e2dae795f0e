//! `bulkhead-worker`: the worker program of the built-in kinds.
//!
//! The supervisor starts it with the lane as its standard input; it must never be started by hand.

use std::process::ExitCode;

use bulkhead_sys::allocator::TrackingAllocator;
use bulkhead_sys::gmp;
use bulkhead_worker::{Registry, run};

/// Records the size of a refused allocation, GMP's included, so that the death of a task can report it.
#[global_allocator]
static ALLOCATOR: TrackingAllocator = TrackingAllocator;

fn main() -> ExitCode {
    gmp::use_global_allocator();
    run(&Registry::builtin())
}
