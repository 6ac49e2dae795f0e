//! A worker program that has kinds of its own alone, also built without the feature `builtin`: this test program is that
//! worker, and the supervisor that a test plays starts it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

#[allow(dead_code, reason = "each test program uses its own part")]
mod played;

use std::ffi::OsString;
use std::process::ExitCode;

use bulkhead_sys::exit::ExitStatus;
use bulkhead_worker::{Registry, run};
use played::{Born, FACTORIAL, NOOP, Played, SLEEP, TRANSFORM, UNKNOWN, inline};

/// Run by the test below in a process of its own, with a lane as its standard input.
#[test]
#[ignore = "is a worker program: started by own_kinds_are_run"]
fn is_the_worker() {
    let registry = Registry::new().with("noop", |input, task| Ok(task.write_all(input)?));
    assert_eq!(run(&registry), ExitCode::SUCCESS);
}

#[test]
fn own_kinds_are_run() {
    let args = ["--exact", "is_the_worker", "--ignored", "--test-threads=1"].map(OsString::from);
    let mut played = Played::on(Born::of(&std::env::current_exe().unwrap(), &args), false);
    assert_eq!(inline(&played.run(NOOP, "seven")), b"seven");
    for kind in [FACTORIAL, SLEEP, UNKNOWN, TRANSFORM] {
        assert!(played.missing.contains(&kind), "{:?}", played.missing);
    }
    played.sender = None;
    assert_eq!(played.born.end(), ExitStatus::Code(0));
}
