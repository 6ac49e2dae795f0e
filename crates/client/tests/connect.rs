//! Connecting: every way in which there is no daemon is an error that says so, and none is a hang.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod fake;

use std::io::{Read, Write};
use std::time::Duration;

use bulkhead_client::{ConnectFailure, ListenerTrust, connect};
use bulkhead_proto::client::frame::{Hello, push_frame};
use bulkhead_proto::client::message::{Reply, ReplyFrame};
use bulkhead_proto::client::refusal::{BoundPart, Refusal};
use bulkhead_proto::ids::Tag;
use bulkhead_proto::limits::PROTOCOL_VERSION;
use fake::{Fake, nowhere};

fn answer(hello: Hello) -> ConnectFailure {
    let fake = Fake::raw(move |mut stream| {
        stream.read_exact(&mut [0; Hello::BYTES]).unwrap();
        stream.write_all(&hello.to_bytes()).unwrap();
    });
    let error = connect::connect(&fake.path()).unwrap_err();
    fake.finish();
    error
}

#[test]
fn another_version_is_an_error_that_names_both() {
    let version = PROTOCOL_VERSION + 41;
    let error = answer(Hello { version, verdict: Hello::WRONG_VERSION });
    assert!(matches!(error, ConnectFailure::WrongVersion { daemon, .. } if daemon == version));
    let text = error.to_string();
    assert!(text.contains(&format!("version {version},")), "{text}");
    assert!(text.contains(&format!("version {PROTOCOL_VERSION}:")), "{text}");
}

#[test]
fn verdicts_are_told_apart() {
    assert!(matches!(answer(Hello::new(Hello::BUSY)), ConnectFailure::Busy { .. }));
    assert!(matches!(answer(Hello::new(Hello::DENIED)), ConnectFailure::Denied { .. }));
    assert!(matches!(answer(Hello::new(77)), ConnectFailure::NotADaemon { .. }));
}

#[test]
fn one_connection_too_many_is_told_the_bound() {
    let why = Refusal::Busy {
        what: "connections".to_owned(),
        limit: 75,
        part: BoundPart::Share { of: 100 },
        key: Some("clients_max".to_owned()),
        retry_after_ms: 1000,
    };
    let reply = ReplyFrame { tag: Tag(0), reply: Reply::Goodbye(why.clone()) };
    let mut bytes = Hello::new(Hello::BUSY).to_bytes().to_vec();
    push_frame(&reply, &mut bytes).unwrap();
    // The goodbye comes in pieces, and not at all.
    for (cut, told) in [(Hello::BYTES + 3, Some(why)), (bytes.len(), None)] {
        // Without the last byte there is no goodbye.
        let (first, rest) = (bytes[..cut.min(bytes.len() - 1)].to_vec(), bytes[cut..].to_vec());
        let fake = Fake::raw(move |mut stream| {
            stream.write_all(&first).unwrap();
            stream.write_all(&rest).unwrap();
        });
        let error = connect::connect(&fake.path()).unwrap_err();
        assert!(matches!(&error, ConnectFailure::Busy { why, .. } if *why == told), "{error}");
        assert_eq!(
            told.is_some(),
            error.to_string().contains("limit 75 of 100, set by clients_max"),
            "{error}"
        );
        fake.finish();
    }
}

#[test]
fn a_verdict_is_read_even_if_it_comes_before_our_hello_is_read() {
    let fake = Fake::raw(|mut stream| stream.write_all(&Hello::new(Hello::BUSY).to_bytes()).unwrap());
    let error = connect::connect(&fake.path()).unwrap_err();
    assert!(matches!(error, ConnectFailure::Busy { .. }), "{error}");
    fake.finish();
}

#[test]
fn a_daemon_that_never_says_hello_is_an_error() {
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let fake = Fake::raw(move |_stream| assert!(wait.recv().is_err()));
    let error =
        connect::connect_within(&fake.path(), ListenerTrust::Anybody, Duration::from_millis(50)).unwrap_err();
    assert!(matches!(error, ConnectFailure::NoAnswer { .. }), "{error}");
    drop(done);
    fake.finish();
}

#[test]
fn another_service_and_an_early_end_are_no_daemon() {
    let fake = Fake::raw(|mut stream| stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap());
    assert!(matches!(connect::connect(&fake.path()), Err(ConnectFailure::NotADaemon { .. })));
    fake.finish();
    let fake = Fake::raw(|mut stream| stream.write_all(b"BULKH").unwrap());
    assert!(matches!(connect::connect(&fake.path()), Err(ConnectFailure::NotADaemon { .. })));
    fake.finish();
}

#[test]
fn nobody_there_names_the_path_and_how_to_start_a_daemon() {
    let (_folder, path) = nowhere();
    let error = connect::connect(&path).unwrap_err().to_string();
    assert!(error.contains(&path.display().to_string()), "{error}");
    assert!(error.contains("bulkhead-supervisor --socket"), "{error}");
}

#[test]
fn a_user_who_is_not_served_is_told_whom_the_daemon_serves() {
    let needed = "it serves the members of group render".to_owned();
    let reply = ReplyFrame { tag: Tag(0), reply: Reply::Goodbye(Refusal::Denied { needed }) };
    let mut bytes = Hello::new(Hello::DENIED).to_bytes().to_vec();
    push_frame(&reply, &mut bytes).unwrap();
    let fake = Fake::raw(move |mut stream| {
        stream.read_exact(&mut [0; Hello::BYTES]).unwrap();
        stream.write_all(&bytes).unwrap();
    });
    let error = connect::connect(&fake.path()).unwrap_err().to_string();
    assert!(error.ends_with("does not serve this user: it serves the members of group render"), "{error}");
    fake.finish();
}

#[test]
fn a_path_that_fits_no_address_is_an_error() {
    let path = std::path::PathBuf::from(format!("/tmp/{}", "x".repeat(200)));
    assert!(matches!(connect::connect(&path), Err(ConnectFailure::Io { .. })));
}
