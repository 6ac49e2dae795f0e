//! Flavours on a real daemon: the number that the command, the blocking client and a session give reaches the daemon.
//!
//! How many tasks wait in a worker after which durations stands in the tests of the core (`prefetch.rs`).

use std::sync::Arc;
use std::time::Instant;

use bulkhead_client::{
    JobInput, Session, SessionEnd, SessionEvent, SessionOptions, Spec, SubmitOptions, connect,
};
use bulkhead_tests::daemon::{DEADLINE, Daemon, Setup, eventually};

/// Longer than a test takes.
const LONG: &str = "60000";

fn daemon() -> Daemon {
    Daemon::start_with(&Setup { workers: 1, ..Setup::default() })
}

fn spec(flavour: u32) -> Spec {
    Spec { flavour, ..Spec::new("sleep") }
}

fn flavour_of(daemon: &Daemon, job: &str) -> u64 {
    let detail: serde_json::Value = serde_json::from_str(&daemon.ok(&["job", job, "--json"])).expect("JSON");
    detail["flavour"].as_u64().expect("a flavour")
}

#[test]
fn the_command_names_a_flavour() {
    let daemon = daemon();
    let job = daemon.ok(&["submit", "sleep", "0", "--flavour", "4294967295"]);
    assert_eq!(flavour_of(&daemon, job.trim()), u64::from(u32::MAX));
    assert!(daemon.ok(&["job", job.trim()]).contains("sleep, flavour 4294967295\n"));
    let plain = daemon.ok(&["submit", "sleep", "0"]);
    assert_eq!(flavour_of(&daemon, plain.trim()), 0);
    assert!(daemon.ok(&["job", plain.trim()]).contains("sleep\n"));
    let refused = daemon.cli(&["submit", "sleep", "0", "--flavour", "4294967296"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
}

#[test]
fn both_clients_name_a_flavour() {
    let daemon = daemon();
    let input = || JobInput::from(LONG.as_bytes().to_vec());
    let client = connect::connect(&daemon.socket()).expect("the daemon is up");
    let session = Session::over(client, SessionOptions::default()).expect("a new connection");
    session.submit(1, &Arc::new(spec(8)), input()).expect("it has room");
    let row = eventually("it runs", || daemon.workers().into_iter().find(|row| row.job.is_some()));
    assert_eq!(flavour_of(&daemon, &row.job.unwrap_or_default().to_string()), 8);
    session.cancel(&[1]);
    let (mut events, until) = (Vec::new(), Instant::now() + DEADLINE);
    session.lead().turn(Some(until), None, &mut events).expect("the daemon lives");
    assert!(matches!(events.as_slice(), [SessionEvent::Job { token: 1, end: SessionEnd::Ended(_) }]));

    let mut client = connect::connect(&daemon.socket()).expect("the daemon is up");
    let mut submitted = client.submit(spec(9), [input()], SubmitOptions::default());
    let jobs = submitted.next().expect("one batch").expect("it is accepted");
    assert_eq!(flavour_of(&daemon, &jobs.start.to_string()), 9);
}
