//! `context-worker`: an honest worker that loads contexts, as `src/contexts.rs` has it.
//!
//! Started by daemons under test through `worker_program`, never by hand.

use std::process::ExitCode;

fn main() -> ExitCode {
    bulkhead_tests::contexts::main()
}
