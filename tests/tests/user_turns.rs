//! Turns of the loop by user: 800 connections of one user beside one of another. Counted, never timed.
//!
//! The witness is the number of a job: jobs are numbered in the order in which their submits were taken, so the
//! neighbour's numbers tell how many requests of the others came before and between its own.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use bulkhead_proto::client::message::{Reply, Request, Walk};
use bulkhead_proto::ids::{JobId, Tag};
use bulkhead_proto::limits::UNREAD_MAX_BYTES;
use bulkhead_tests::daemon::{Daemon, send_signal};
use bulkhead_tests::or_skip;
use bulkhead_tests::other_users::{ALICE, BOB, connect_as, system_daemon};
use bulkhead_tests::raid::{frame, may_become_others};
use bulkhead_tests::wire::{Wire, submit};

/// Connections of the one user.
const CROWD: usize = 800;
/// Lists that each connection asks for which reads none.
const LISTS: u32 = 60;
/// On each: so many submits of one job, and a long request behind each.
const ROUNDS: u32 = 20;

/// Submits of one job each, with odd tags, each before a list of jobs.
fn requests() -> Vec<u8> {
    let lists = || Request::Jobs { state: None, walk: Walk::Up(JobId(0)), limit: 1 };
    let pair = |round| {
        let one = frame(2 * round + 1, Request::Submit(submit("noop", &["x"], false)));
        [one, frame(2 * round + 2, lists())].concat()
    };
    (0..ROUNDS).flat_map(pair).collect()
}

/// Takes the answers to all of [`requests`], each once; gives the numbers of the jobs.
fn take_all(wire: &mut Wire) -> Vec<JobId> {
    let mut open: std::collections::BTreeSet<Tag> = (1..=2 * ROUNDS).map(Tag).collect();
    let mut jobs = Vec::new();
    while !open.is_empty() {
        let answer = wire.next_reply().unwrap();
        assert!(open.remove(&answer.tag), "{} is answered once", answer.tag);
        match answer.reply {
            Reply::Accepted { first, count: 1, refused: None } if !answer.tag.0.is_multiple_of(2) => {
                jobs.push(first)
            }
            Reply::Jobs { .. } if answer.tag.0.is_multiple_of(2) => {}
            other => panic!("unexpected reply: {other:?}"),
        }
    }
    jobs
}

fn resident_bytes(daemon: &Daemon) -> u64 {
    let statm = std::fs::read_to_string(format!("/proc/{}/statm", daemon.pid())).unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// What a client asked before it left is not answered: it would keep the loop busy for thousands of turns.
#[test]
fn nobody_waits_for_the_questions_of_a_client_that_has_left() {
    or_skip!(may_become_others());
    let daemon = system_daemon("");
    let (mut alice, mut bob) = (connect_as(&daemon, ALICE).welcome(), connect_as(&daemon, BOB).welcome());
    let lists = || Request::Jobs { state: None, walk: Walk::Up(JobId(0)), limit: 1 };
    let mut asked: Vec<u8> = (1..=4000).flat_map(|tag| frame(tag, lists())).collect();
    asked.extend(frame(4001, Request::Submit(submit("noop", &["x"], false))));
    send_signal(daemon.pid(), "STOP");
    alice.send(&asked);
    drop(alice);
    send_signal(daemon.pid(), "CONT");
    // A list takes a whole share, so that each of them would take a turn; one of his calls takes a turn or two.
    let place = (1..2000).find(|number| bob.submit("noop", &["x"]) != JobId(*number));
    assert!(place.is_some_and(|place| place < 300), "her submit is heard, and soon: {place:?}");
}

/// 300 connections of one user ask for 500 MB of lists and read none of it.
#[test]
fn what_all_connections_of_a_user_leave_unread_is_bounded() {
    or_skip!(may_become_others());
    bulkhead_sys::process::raise_descriptor_limit().unwrap();
    let daemon = system_daemon("");
    let mut bob = connect_as(&daemon, BOB).welcome();
    let mut alice = connect_as(&daemon, ALICE).welcome();
    alice.submit("noop", &["x"; 4096]);
    let before = resident_bytes(&daemon);
    let lists = || Request::Jobs { state: None, walk: Walk::Up(JobId(0)), limit: 4096 };
    let asked: Vec<u8> = (1..=LISTS).flat_map(|tag| frame(tag, lists())).collect();
    let mut crowd: Vec<Wire> = (0..300).map(|_| connect_as(&daemon, ALICE).welcome()).collect();
    crowd.iter_mut().for_each(|wire| wire.send(&asked));
    // A turn takes two lists: after so many turns, twice as much as may lie unread would.
    for _ in 0..4000 {
        bob.submit("noop", &["x"]);
    }
    let grown = resident_bytes(&daemon).saturating_sub(before);
    assert!(grown < (UNREAD_MAX_BYTES + (32 << 20)) as u64, "it grew by {} MiB", grown >> 20);
    // Who reads is told all that was asked.
    let answered = |wire: &mut Wire| (1..=LISTS).all(|tag| wire.next_reply().unwrap().tag == Tag(tag));
    assert!(crowd.iter_mut().take(20).all(answered));
}

#[test]
fn requests_of_800_connections_are_not_taken_before_those_of_a_neighbour() {
    or_skip!(may_become_others());
    bulkhead_sys::process::raise_descriptor_limit().unwrap();
    let daemon = system_daemon("");
    let mut crowd: Vec<Wire> = (0..CROWD).map(|_| connect_as(&daemon, ALICE).welcome()).collect();
    let mut bob = connect_as(&daemon, BOB).welcome();
    let before = bob.submit("noop", &["x"]);
    // All of it lies in the sockets when the daemon looks.
    send_signal(daemon.pid(), "STOP");
    crowd.iter_mut().for_each(|wire| wire.send(&requests()));
    bob.ask(Request::Submit(submit("noop", &["x"], false)));
    send_signal(daemon.pid(), "CONT");
    let Some(Reply::Accepted { first, .. }) = bob.next_reply().map(|answer| answer.reply) else {
        panic!("bob's job was not accepted")
    };
    let ahead = first.0 - before.0 - 1;
    assert!(ahead <= 8, "{ahead} of {CROWD} connections were read before the one of a neighbour");
    // Each of these is sent after the answer to the one before it: between two of them are one turn or two. The test
    // may be kept from running; not 20 times.
    let mut last = first;
    let between = (0..ROUNDS).map(|_| {
        let next = bob.submit("noop", &["x"]);
        next.0 - std::mem::replace(&mut last, next).0 - 1
    });
    let between: Vec<u64> = between.collect();
    let least = between.iter().min().unwrap();
    assert!(*least <= 16, "between two requests of a neighbour, each of {between:?} others were taken");
    let mut jobs: Vec<JobId> = crowd.iter_mut().flat_map(take_all).collect();
    jobs.sort_unstable();
    jobs.dedup();
    assert_eq!(jobs.len(), CROWD * ROUNDS as usize, "each submit made a job of its own");
}
