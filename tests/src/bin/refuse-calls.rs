//! `refuse-calls RULE... -- PROGRAM ARGUMENT...`: installs a filter of system calls and becomes the program.
//!
//! A rule is `container`, for all that the default profile of container runtimes refuses, or `CALL=EPERM` or
//! `CALL=ENOSYS`. Started by tests through `Setup::through`, never by hand.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use bulkhead_sys::hostile_filter::{refuse_as_containers, refuse_calls};

/// The errors that a filter answers with: EPERM and ENOSYS.
const ERRNOS: [(&str, i32); 2] = [("EPERM", 1), ("ENOSYS", 38)];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let rules: Vec<String> = arguments.by_ref().take_while(|argument| argument != "--").collect();
    let mut calls = Vec::new();
    for rule in &rules {
        if rule == "container" {
            refuse_as_containers().expect("this machine has filters of system calls");
            continue;
        }
        let (call, error) = rule.split_once('=').expect("a rule is CALL=ERROR");
        let (_, errno) = ERRNOS.iter().find(|(name, _)| *name == error).expect("an error of filters");
        calls.push((call, *errno));
    }
    refuse_calls(&calls).expect("a call that the filter knows");
    let program = arguments.next().expect("a program");
    let error = Command::new(&program).args(arguments).exec();
    eprintln!("cannot become {program}: {error}");
    ExitCode::FAILURE
}
