//! `odd-worker`: an honest worker whose `noop` does what its input says, as `src/odd.rs` has it.
//!
//! Started by daemons under test through `worker_program`, never by hand.

use std::process::ExitCode;

use bulkhead_sys::allocator::TrackingAllocator;

/// As in the worker of the built-in kinds.
#[global_allocator]
static ALLOCATOR: TrackingAllocator = TrackingAllocator;

fn main() -> ExitCode {
    bulkhead_tests::odd::main()
}
