//! `payload-worker`: an honest worker whose `noop` does with its files what its input says, as `src/payload.rs` has it.
//!
//! Started by daemons under test through `worker_program`, never by hand.

use std::process::ExitCode;

fn main() -> ExitCode {
    bulkhead_tests::payload::main()
}
