//! `hostile-worker`: a worker program that attacks the daemon that starts it, as the folder it is called from says.
//!
//! Started by daemons under test through `worker_program`, and by itself as one of its own children. Never by
//! hand: without the folder of a test it does nothing.

use std::process::ExitCode;

fn main() -> ExitCode {
    bulkhead_tests::hostile::main()
}
