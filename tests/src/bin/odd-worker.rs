//! `odd-worker`: an honest worker whose `noop` does what its input says, as `src/odd.rs` has it.
//!
//! Started by daemons under test through `worker_program`, never by hand.

use std::process::ExitCode;

use bulkhead_sys::allocator::Watched;

/// As in the worker of the built-in kinds.
#[global_allocator]
static ALLOCATOR: Watched = Watched;

fn main() -> ExitCode {
    bulkhead_tests::odd::main()
}
