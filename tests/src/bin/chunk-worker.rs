//! `chunk-worker`: a worker whose kinds take chunks of items, honest or not, as `src/chunks.rs` has them.
//!
//! Started by daemons under test through `worker_program`, never by hand.

use std::process::ExitCode;

fn main() -> ExitCode {
    bulkhead_tests::chunks::main()
}
