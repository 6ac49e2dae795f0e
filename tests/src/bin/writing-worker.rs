//! `writing-worker`: a worker that writes the text of its stack, as `src/writing.rs` has it.
//!
//! Started by daemons under test through `worker_program`, never by hand.

use std::process::ExitCode;

fn main() -> ExitCode {
    bulkhead_tests::writing::main()
}
