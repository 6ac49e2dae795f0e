//! `bulkhead-supervisor`: the program of the daemon.
//!
//! All of it stands in the library beside it, so that the reading of a config can be tested without a daemon. Nothing else
//! may be here.

use std::process::ExitCode;

fn main() -> ExitCode {
    bulkhead_supervisor::run()
}
