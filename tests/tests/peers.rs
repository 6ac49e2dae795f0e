//! Clients that misbehave: each is dealt with by name, and nobody else notices.

use std::io::{ErrorKind, Write};
use std::process::Command;

use bulkhead_proto::client::frame::{Hello, push_frame};
use bulkhead_proto::client::message::{Reply, Request, RequestFrame, Walk};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::codec;
use bulkhead_proto::ids::{JobId, Tag};
use bulkhead_tests::daemon::{Daemon, eventually};
use bulkhead_tests::wire::{Wire, submit};

/// A neighbour notices nothing.
fn assert_served(daemon: &Daemon) {
    let ended = Wire::connect(&daemon.socket()).run("noop", &["hello"]);
    assert_eq!(ended[0].outcome, Outcome::Done);
}

#[test]
fn a_malformed_frame_ends_its_connection_only() {
    let daemon = Daemon::start();
    let mut wire = Wire::connect(&daemon.socket());
    wire.send(&[5, 0, 0, 0, 1, 255, 255, 255, 255]);
    assert!(wire.goodbye().contains("malformed"));
    assert_served(&daemon);
}

#[test]
fn bytes_left_over_in_a_frame_are_malformed() {
    let daemon = Daemon::start();
    let mut wire = Wire::connect(&daemon.socket());
    let mut body = codec::encode(&RequestFrame { tag: Tag(1), request: Request::Ping });
    body.push(0);
    wire.send(&u32::try_from(body.len()).unwrap().to_le_bytes());
    wire.send(&body);
    assert!(wire.goodbye().contains("left over"));
    assert_served(&daemon);
}

#[test]
fn an_oversized_frame_is_refused_from_its_length_alone() {
    let daemon = Daemon::start();
    let mut wire = Wire::connect(&daemon.socket());
    wire.send(&u32::MAX.to_le_bytes());
    let text = wire.goodbye();
    assert!(text.contains(&u32::MAX.to_string()) && text.contains("1048576"), "{text}");
    assert_served(&daemon);
}

#[test]
fn a_truncated_frame_loses_nothing_of_what_came_before() {
    let daemon = Daemon::start();
    let mut wire = Wire::connect(&daemon.socket());
    let job = wire.submit("noop", &["kept"]);
    wire.send(&100_u32.to_le_bytes());
    wire.send(b"half a fra");
    drop(wire);
    daemon.ok(&["wait", &job.to_string()]);
    assert_eq!(daemon.ok(&["result", &job.to_string()]).trim_end(), "kept");
    assert_served(&daemon);
}

#[test]
fn another_version_and_another_protocol_are_told_so() {
    let daemon = Daemon::start();
    let mut wire = Wire::silent(&daemon.socket());
    wire.send(&Hello { version: 999, verdict: 0 }.to_bytes());
    let hello = wire.hello();
    assert_eq!((hello.verdict, hello.version), (Hello::WRONG_VERSION, Hello::new(0).version));
    assert!(wire.next_reply().is_none());
    let mut wire = Wire::silent(&daemon.socket());
    wire.send(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n");
    assert_eq!(wire.hello().verdict, Hello::WRONG_VERSION);
    assert!(wire.next_reply().is_none());
    assert_served(&daemon);
}

#[test]
fn a_client_that_says_nothing_is_dropped_and_keeps_nobody_waiting() {
    let daemon = Daemon::start();
    let mut silent = Wire::silent(&daemon.socket());
    let mut stutters = Wire::silent(&daemon.socket());
    stutters.send(&Hello::new(0).to_bytes()[..7]);
    assert_served(&daemon);
    assert!(silent.next_reply().is_none(), "dropped when its time is over");
    assert!(stutters.next_reply().is_none());
    assert_served(&daemon);
}

/// Resident size of a process, in bytes.
fn resident_bytes(pid: u32) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).expect("it lives");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("resident pages") * 4096
}

/// It submits at full speed and never reads. It stalls by itself: the daemon's memory does not grow with what it
/// would like to send, and a neighbour is served throughout.
#[test]
fn a_client_that_never_reads_waits_for_itself_only() {
    let daemon = Daemon::start();
    let before = resident_bytes(daemon.pid());
    let mut wire = Wire::connect(&daemon.socket());
    wire.socket.set_nonblocking(true).expect("non-blocking");
    let text = "x".repeat(4000);
    let mut frame = Vec::new();
    let request = Request::Submit(submit("noop", &[text.as_str(); 200], true));
    push_frame(&RequestFrame { tag: Tag(1), request }, &mut frame).expect("it fits");
    // Up to 2 GB of jobs are offered; after 200 stalls in a row it counts as stopped.
    let (mut frames, mut stalls, mut rest) = (0, 0, &frame[..]);
    while frames < 2500 && stalls < 200 {
        match wire.socket.write(rest) {
            Ok(count) => {
                (rest, stalls) = (&rest[count..], 0);
                if rest.is_empty() {
                    (rest, frames) = (&frame[..], frames + 1);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                stalls += 1;
                assert_served(&daemon);
            }
            Err(error) => panic!("the daemon cut the connection: {error}"),
        }
    }
    let grown = resident_bytes(daemon.pid()).saturating_sub(before);
    assert!(grown < 1_500 << 20, "resident size grew by {grown} bytes");
    drop(wire);
    assert_served(&daemon);
}

/// Thousands of requests fit one read, and each asks for a long list: only some are taken up before the client has
/// to read what came of them.
#[test]
fn many_small_requests_with_long_answers_do_not_pile_up() {
    let daemon = Daemon::start();
    let first = Wire::connect(&daemon.socket()).submit("noop", &[""; 4000]);
    daemon.ok(&["wait", &(first.0 + 3999).to_string()]);
    let before = resident_bytes(daemon.pid());
    let mut wire = Wire::connect(&daemon.socket());
    let (mut frames, count) = (Vec::new(), 4000);
    for number in 1..=count {
        let request = Request::Jobs { state: None, walk: Walk::Up(JobId(0)), limit: 4096 };
        push_frame(&RequestFrame { tag: Tag(number), request }, &mut frames).expect("it fits");
    }
    wire.send(&frames);
    assert_served(&daemon);
    let grown = resident_bytes(daemon.pid()).saturating_sub(before);
    assert!(grown < 100 << 20, "resident size grew by {grown} bytes");
    for number in 1..=200 {
        let frame = wire.next_reply().expect("the daemon answers");
        assert_eq!(frame.tag, Tag(number), "answers come in order, none is lost");
    }
    drop(wire);
    assert_served(&daemon);
}

/// Sets the soft limit of open files of a running process.
fn limit_open_files(pid: u32, count: u32) {
    let limit = format!("--nofile={count}:");
    let status = Command::new("prlimit").arg("--pid").arg(pid.to_string()).arg(limit).status();
    assert!(status.expect("prlimit runs, it is part of every Debian").success());
}

/// Descriptors come back without a word from the kernel, and no client leaves: whoever waits is served all the same.
#[test]
fn clients_that_came_while_descriptors_were_short_are_served_afterwards() {
    let daemon = Daemon::start();
    limit_open_files(daemon.pid(), 4);
    let mut waiting: Vec<_> = (0..3).map(|_| Wire::silent(&daemon.socket())).collect();
    eventually("it says so", || daemon.log().contains("cannot accept connections").then_some(()));
    waiting.push(Wire::silent(&daemon.socket()));
    for wire in &mut waiting {
        wire.send(&Hello::new(0).to_bytes());
    }
    limit_open_files(daemon.pid(), 1000);
    for wire in &mut waiting {
        assert_eq!(wire.hello().verdict, Hello::WELCOME);
    }
    eventually("it says so", || daemon.log().contains("accepted again").then_some(()));
    assert_eq!(daemon.log().matches("cannot accept connections").count(), 1, "said once, not each time");
}

#[test]
fn a_client_that_vanishes_hurts_nobody() {
    let daemon = Daemon::start();
    for _ in 0..20 {
        let mut vanishing = Wire::connect(&daemon.socket());
        let tag = vanishing.ask(Request::Submit(submit("noop", &["x"; 1000], true)));
        assert_eq!(vanishing.next_reply().expect("the daemon answers").tag, tag);
        drop(vanishing);
        assert_served(&daemon);
    }
}

#[test]
fn a_thousand_clients_at_once_are_all_served() {
    let daemon = Daemon::start();
    bulkhead_sys::process::raise_descriptor_limit().expect("a thousand descriptors");
    let mut wires: Vec<_> = (0..1000).map(|_| Wire::silent(&daemon.socket())).collect();
    for wire in &mut wires {
        wire.send(&Hello::new(0).to_bytes());
    }
    for wire in &mut wires {
        assert_eq!(wire.hello().verdict, Hello::WELCOME);
        wire.ask(Request::Submit(submit("noop", &["mine"], true)));
    }
    for wire in &mut wires {
        let mut ended = None;
        while ended.is_none() {
            if let Reply::Ended(some) = wire.next_reply().expect("the daemon answers").reply {
                ended = some.into_iter().next();
            }
        }
        assert_eq!(ended.expect("one end").outcome, Outcome::Done);
    }
    drop(wires);
    eventually("all of them are gone", || {
        let status: serde_json::Value =
            serde_json::from_str(&daemon.ok(&["status", "--json"])).expect("json");
        (status["clients"].as_u64() < Some(10)).then_some(())
    });
}

/// One at a time beside a flood of the same user: it is served in its turn, not after the flood.
#[test]
fn a_flood_does_not_starve_a_neighbour() {
    let daemon = Daemon::start();
    let mut flooding = Wire::connect(&daemon.socket());
    for _ in 0..40 {
        flooding.ask(Request::Submit(submit("sleep", &["20"; 100], false)));
    }
    while flooding.next_reply().expect("the daemon answers").tag != Tag(40) {}
    let mut wire = Wire::connect(&daemon.socket());
    for _ in 0..20 {
        assert_eq!(wire.run("noop", &["one"])[0].outcome, Outcome::Done);
    }
    let Reply::Status(status) = wire.call(Request::Status) else { panic!("no status") };
    assert!(status.queued > 1000, "the flood still waits, so the neighbour did not wait for it: {status:?}");
}
