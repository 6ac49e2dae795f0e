//! A worker program that has kinds of its own alone, also built without the feature `builtin`: this test program is that
//! worker, and the supervisor that a test plays starts it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

#[allow(dead_code, reason = "each test program uses its own part")]
mod played;

use std::ffi::OsString;
use std::fs::File;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

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

/// Run by the test of idle work: its only kind tells how often that was done.
#[test]
#[ignore = "is a worker program: started by idle_work_is_done_once_while_no_task_waits"]
fn is_the_worker_with_idle_work() {
    static DONE: AtomicUsize = AtomicUsize::new(0);
    let registry = Registry::new()
        .with("noop", |_, task| Ok(task.write_all(DONE.load(Ordering::Relaxed).to_string().as_bytes())?))
        .with_idle_work(File::open("/dev/zero").unwrap().into(), || {
            DONE.fetch_add(1, Ordering::Relaxed);
        });
    assert_eq!(run(&registry), ExitCode::SUCCESS);
}

/// This test program as a worker: the test of this name.
fn played(test: &str) -> Played {
    let args = ["--exact", test, "--ignored", "--test-threads=1"].map(OsString::from);
    Played::on(Born::of(&std::env::current_exe().unwrap(), &args), false)
}

#[test]
fn idle_work_is_done_once_while_no_task_waits() {
    let mut played = played("is_the_worker_with_idle_work");
    // The first tasks may come before it.
    while inline(&played.run(NOOP, "")) == b"0" {}
    for _ in 0..10 {
        assert_eq!(inline(&played.run(NOOP, "")), b"1");
    }
    played.sender = None;
    assert_eq!(played.born.end(), ExitStatus::Code(0));
}

#[test]
fn own_kinds_are_run() {
    let mut played = played("is_the_worker");
    assert_eq!(inline(&played.run(NOOP, "seven")), b"seven");
    for kind in [FACTORIAL, SLEEP, UNKNOWN, TRANSFORM] {
        assert!(played.missing.contains(&kind), "{:?}", played.missing);
    }
    played.sender = None;
    assert_eq!(played.born.end(), ExitStatus::Code(0));
}
