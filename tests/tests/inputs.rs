//! Bad input gets a clear error and loses nothing, on the command line and on the wire.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use bulkhead_proto::client::exit;
use bulkhead_proto::client::message::{Reply, Request, Submit};
use bulkhead_proto::client::outcome::{JobOutput, Outcome};
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::client::view::WorkerState;
use bulkhead_proto::ids::JobId;
use bulkhead_proto::job::{Payload, Policy};
use bulkhead_proto::limits::{BATCH_MAX, INLINE_MAX_BYTES};
use bulkhead_tests::daemon::{Daemon, Setup};
use bulkhead_tests::wire::{Wire, submit};

/// A command's exit code and what it says.
fn said(daemon: &Daemon, arguments: &[&str]) -> (i32, String) {
    let output = daemon.cli(arguments);
    (output.status.code().expect("it exits"), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn an_unknown_kind_is_refused_with_the_kinds_there_are() {
    let daemon = Daemon::start_with(&Setup { chaos: false, ..Setup::default() });
    let (code, text) = said(&daemon, &["run", "fibonacci", "7"]);
    assert_ne!(code, 0);
    assert!(text.contains("fibonacci") && text.contains("factorial"), "{text}");
    let (code, text) = said(&daemon, &["run", "chaos", "segv"]);
    assert_ne!(code, 0, "chaos is off unless enabled");
    assert!(text.contains("chaos"), "{text}");
}

#[test]
fn a_bad_factorial_is_a_usage_error_that_names_the_limit() {
    let daemon = Daemon::start();
    for (n, fault) in [
        ("2.5", "whole number"),
        ("abc", "not a number"),
        ("10000001", "10000000"),
        ("99999999999999999999", "too large"),
        ("-3", "negative"),
    ] {
        let (code, text) = said(&daemon, &["run", "factorial", "--", n]);
        assert_eq!(code, i32::from(exit::USAGE), "{n}: {text}");
        assert!(text.contains(fault) && text.contains(n), "{n}: {text}");
    }
    assert!(daemon.events_named("accepted").is_empty(), "nothing was sent");
}

/// A client that does not check gets the same answer from the worker.
#[test]
fn a_bad_factorial_on_the_wire_is_a_failure_that_names_it() {
    let daemon = Daemon::start();
    let mut wire = Wire::connect(&daemon.socket());
    for input in ["-3", "2.5", "abc", "10000001", "", "5 roman", "5 hex 6"] {
        let ended = wire.run("factorial", &[input]).remove(0);
        let Outcome::Failed { message, .. } = &ended.outcome else { panic!("{input:?}: {ended:?}") };
        assert!(message.contains("factorial"), "{input:?}: {message}");
        assert_eq!(ended.output, JobOutput::None);
    }
    let fine = wire.run("factorial", &["20"]).remove(0);
    assert_eq!(fine.output, JobOutput::Inline(Payload::from(b"2432902008176640000".to_vec())));
}

/// What the daemon says to a submit that it must refuse whole.
fn refused(wire: &mut Wire, submit: Submit) -> String {
    match wire.call(Request::Submit(submit)) {
        Reply::Refused(refusal) => refusal.to_string(),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn requests_out_of_bounds_are_refused_by_name() {
    let daemon = Daemon::start();
    let mut wire = Wire::connect(&daemon.socket());
    let too_many = submit("noop", &["x"; BATCH_MAX + 1], false);
    assert!(refused(&mut wire, too_many).contains("4096"));
    assert!(!refused(&mut wire, submit("noop", &[], false)).is_empty());
    let mut long = submit("noop", &[], false);
    long.inputs.push(Payload::from(vec![b'x'; INLINE_MAX_BYTES + 1]));
    assert!(refused(&mut wire, long).contains("4096"));
    let mut wrong = submit("noop", &["x"], false);
    wrong.policy = Policy { priority: 77, ..Policy::default() };
    assert!(refused(&mut wire, wrong).contains("priority 77"));
    let nobody = Request::Result { job: JobId(u64::MAX) };
    assert!(matches!(wire.call(nobody), Reply::Refused(Refusal::NeverWas { .. })));
    assert!(matches!(wire.call(Request::Ping), Reply::Pong { .. }), "the connection lives on");
}

/// Submits until the daemon says no; what it took, and how it said no.
fn fill_queue(wire: &mut Wire) -> (Vec<JobId>, Refusal) {
    let mut taken = Vec::new();
    loop {
        assert!(taken.len() <= 11, "the queue has no end");
        match wire.call(Request::Submit(submit("noop", &["a", "b", "c"], false))) {
            Reply::Accepted { first, count, refused } => {
                taken.extend((0..u64::from(count)).map(|index| JobId(first.0 + index)));
                if let Some(refusal) = refused {
                    return (taken, refusal);
                }
            }
            Reply::Refused(refusal) => return (taken, refusal),
            other => panic!("unexpected reply: {other:?}"),
        }
    }
}

/// A full queue takes what fits, says how much that was and when to come back, and loses nothing of it.
#[test]
fn a_full_queue_answers_busy_and_keeps_what_it_took() {
    let config = "queue_max = 10".to_owned();
    let daemon = Daemon::start_with(&Setup { workers: 1, config, ..Setup::default() });
    let mut wire = Wire::connect(&daemon.socket());
    let blocker = wire.submit("sleep", &["60000"]);
    daemon.await_worker(WorkerState::Busy);
    let (taken, refusal) = fill_queue(&mut wire);
    let Refusal::Busy { limit: 10, retry_after_ms, .. } = refusal else { panic!("not busy: {refusal:?}") };
    assert!(retry_after_ms > 0);
    assert!(taken.len() >= 10);
    let (code, text) = said(&daemon, &["submit", "noop", "x"]);
    assert_eq!(code, i32::from(exit::BUSY), "{text}");
    assert!(text.contains("10"), "it names the limit: {text}");
    assert!(matches!(wire.call(Request::Cancel { jobs: vec![blocker] }), Reply::Changed { count: 1, .. }));
    for job in &taken {
        daemon.ok(&["wait", &job.to_string()]);
    }
}

#[test]
fn an_argument_that_is_no_text_is_named() {
    let daemon = Daemon::start();
    let folder = tempfile::tempdir().expect("a folder");
    let odd = OsStr::from_bytes(b"a\xffb");
    let output = daemon.command(&["run", "noop"]).arg(odd).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(i32::from(exit::USAGE)), "{said}");
    assert!(said.starts_with("error: argument 5 is not UTF-8 text: \"a\\xFFb\""), "{said}");
    // A path of -o may be anything.
    let run = daemon.command(&["run", "noop", "x", "-o"]).arg(folder.path().join(odd)).output();
    assert!(run.expect("it runs").status.success());
    assert_eq!(std::fs::read(folder.path().join(odd)).expect("it is there"), b"x");
}
