//! `foreign-worker`: a worker program as others write them, as `src/foreign.rs` has it.
//!
//! Started by daemons under test through `worker_program`, never by hand.

use std::process::ExitCode;

fn main() -> ExitCode {
    bulkhead_tests::foreign::main()
}
