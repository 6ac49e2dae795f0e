//! `bulkhead-supervisor`: the program of the daemon.
//!
//! All code stands in the library `bulkhead_supervisor`, so that tests can read a config without a daemon. This file
//! only calls it.

use std::process::ExitCode;

fn main() -> ExitCode {
    bulkhead_supervisor::run()
}
