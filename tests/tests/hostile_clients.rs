//! Clients that lie in bytes: frames that are none, requests that no honest client makes, and ends in every place.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use std::net::Shutdown;

use bulkhead_proto::client::frame::Hello;
use bulkhead_proto::client::message::{Reply, ReplyFrame, Request, Walk};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::ids::{JobId, Tag};
use bulkhead_proto::job::{Payload, Policy};
use bulkhead_proto::limits::{BATCH_MAX, FRAME_MAX_BYTES};
use bulkhead_tests::daemon::eventually;
use bulkhead_tests::raid::{Attack, assert_answers, body, frame, framed, withstand};
use bulkhead_tests::siege::Siege;
use bulkhead_tests::wire::{Wire, submit};

const FRAMES: &[Attack] = &[
    ("half a length, then silence, then the rest", half_a_length),
    ("half a frame, then silence, then the rest", half_a_frame),
    ("a hello and a frame in single bytes", single_bytes),
    ("a length of 4 GiB", |siege| refused(siege, &u32::MAX.to_le_bytes(), "4294967295")),
    ("a length of one byte too many", |siege| {
        refused(siege, &u32::try_from(FRAME_MAX_BYTES + 1).unwrap().to_le_bytes(), "over the limit");
    }),
    ("a length of zero", |siege| refused(siege, &framed(&[]), "malformed")),
    ("a thousand lengths of zero", |siege| refused(siege, &[0; 4000], "malformed")),
    ("a request that does not exist", |siege| refused(siege, &framed(&[1, 200]), "malformed")),
    ("a tag without a request", |siege| refused(siege, &framed(&[1]), "malformed")),
    ("bytes left over", |siege| {
        refused(siege, &framed(&[body(Request::Ping), vec![0]].concat()), "left over")
    }),
    ("a batch that claims 2^60 inputs", |siege| refused(siege, &framed(&claims_too_much()), "malformed")),
    ("a name that is no text", |siege| refused(siege, &framed(&[1, 0, 2, 0xff, 0xff]), "malformed")),
    ("a whole frame of garbage", |siege| refused(siege, &framed(&vec![0xa5; FRAME_MAX_BYTES]), "malformed")),
    ("garbage of every kind, 300 connections", garbage),
    ("a second hello", |siege| refused(siege, &Hello::new(0).to_bytes(), "over the limit")),
    ("a hello of the future", |siege| {
        turned_away(siege, &Hello { version: u32::MAX, verdict: 0 }.to_bytes())
    }),
    ("sixteen zeros", |siege| turned_away(siege, &[0; 16])),
    ("garbage instead of a hello, 64 KiB", |siege| turned_away(siege, &[0xcc; 64 << 10])),
];

#[test]
fn frames_that_are_none() {
    withstand(FRAMES);
}

const REQUESTS: &[Attack] = &[
    ("one input too many", |siege| {
        invalid(siege, Request::Submit(submit("noop", &["x"; BATCH_MAX + 1], true)))
    }),
    ("one id too many", one_id_too_many),
    ("no input at all", no_input),
    ("a kind with a name of 500 KiB", |siege| {
        invalid(siege, Request::Submit(submit(&"k".repeat(500 << 10), &["x"], true)));
    }),
    ("a kind with control characters", |siege| {
        invalid(siege, Request::Submit(submit("\u{1b}[2J\r\n\0", &["x"], true)));
    }),
    ("an input of one byte too many", |siege| {
        invalid(siege, Request::Submit(submit("noop", &["x".repeat(4097).as_str()], true)));
    }),
    ("a policy out of every range", odd_policies),
    ("ids that never were", forged_ids),
    ("the same id 4096 times", the_same_id),
    ("a tag that is in use", reused_tags),
    ("the greatest of every number", greatest_numbers),
];

#[test]
fn requests_that_no_honest_client_makes() {
    withstand(REQUESTS);
}

const ENDS: &[Attack] = &[
    ("nothing more to say before the answer", |siege| half_closed(siege, Shutdown::Write)),
    ("nothing more to hear", |siege| half_closed(siege, Shutdown::Read)),
    ("an end in every place of a frame", ends_everywhere),
    ("3000 connections that open and close", storm),
    ("3000 that say half a hello and close", half_hello_storm),
    ("500 at once that vanish with jobs running", vanish_with_jobs),
];

#[test]
fn ends_in_every_place() {
    withstand(ENDS);
}

/// What was asked before the bad frame is answered before the goodbye, in order.
#[test]
fn what_came_before_a_malformed_frame_is_answered() {
    let siege = Siege::by_clients();
    for _ in 0..20 {
        let mut wire = siege.connect();
        let good = [frame(1, Request::Ping), frame(2, Request::Submit(submit("noop", &["x"], false)))];
        wire.send(&[&good.concat()[..], &framed(&[0xff; 9])[..], &frame(3, Request::Ping)[..]].concat());
        let (first, second) = (wire.next_reply().unwrap(), wire.next_reply().unwrap());
        assert!(matches!((first.tag, first.reply), (Tag(1), Reply::Pong { .. })));
        assert!(matches!((second.tag, second.reply), (Tag(2), Reply::Accepted { count: 1, .. })));
        assert!(wire.goodbye().contains("malformed"));
    }
    siege.assert_nothing_left();
}

/// Sends this and gets a goodbye that says why.
fn refused(siege: &Siege, bytes: &[u8], why: &str) {
    let mut wire = siege.connect();
    // It may close before it has read all of it.
    drop(std::io::Write::write_all(&mut wire.socket, bytes));
    let said = wire.goodbye();
    assert!(said.contains(why), "{said}");
}

/// Says this instead of a hello.
fn turned_away(siege: &Siege, bytes: &[u8]) {
    let mut wire = Wire::silent(&siege.daemon.socket());
    drop(std::io::Write::write_all(&mut wire.socket, bytes));
    assert_eq!(wire.hello().verdict, Hello::WRONG_VERSION);
    assert!(wire.next_reply().is_none());
}

/// Asks this, is told that it is wrong, and is served on.
fn invalid(siege: &Siege, request: Request) {
    let mut wire = siege.connect();
    match wire.call(request) {
        Reply::Refused(refusal) => assert!(refusal.to_string().len() < 2000, "an answer of its length"),
        other => panic!("not refused: {other:?}"),
    }
    assert_answers(&mut wire);
}

fn half_a_length(siege: &Siege) {
    let mut wire = siege.connect();
    let ping = frame(7, Request::Ping);
    wire.send(&ping[..2]);
    assert_answers(&mut siege.connect());
    wire.send(&ping[2..]);
    assert_eq!(wire.next_reply().unwrap().tag, Tag(7));
}

fn half_a_frame(siege: &Siege) {
    let mut wire = siege.connect();
    let long = frame(7, Request::Submit(submit("noop", &["x".repeat(4000).as_str(); 100], false)));
    let (begin, end) = long.split_at(long.len() / 2);
    wire.send(begin);
    assert_answers(&mut siege.connect());
    wire.send(end);
    assert!(matches!(wire.next_reply().unwrap().reply, Reply::Accepted { count: 100, .. }));
}

fn single_bytes(siege: &Siege) {
    let mut wire = Wire::silent(&siege.daemon.socket());
    for byte in Hello::new(0).to_bytes() {
        wire.send(&[byte]);
    }
    assert_eq!(wire.hello().verdict, Hello::WELCOME);
    for byte in frame(9, Request::Submit(submit("noop", &["abc"; 50], false))) {
        wire.send(&[byte]);
    }
    assert!(matches!(wire.next_reply().unwrap().reply, Reply::Accepted { count: 50, .. }));
}

/// A submit whose list of inputs has a 64-bit length of 2^60.
fn claims_too_much() -> Vec<u8> {
    let mut bytes = body(Request::Submit(submit("noop", &[], true)));
    assert_eq!(bytes.pop(), Some(0), "the count of inputs comes last");
    bytes.push(253);
    bytes.extend_from_slice(&(1_u64 << 60).to_le_bytes());
    bytes
}

fn garbage(siege: &Siege) {
    for seed in 0..300_u32 {
        let mut wire = siege.connect();
        let noise = (0..200).map(|at: u32| ((seed + 1).wrapping_mul(at * at + 2_654_435_769) >> 13) as u8);
        wire.send(&framed(&noise.collect::<Vec<u8>>()));
        assert!(wire.goodbye().contains("malformed"));
    }
}

fn one_id_too_many(siege: &Siege) {
    let jobs = || vec![JobId(1); BATCH_MAX + 1];
    for request in [
        Request::Wait { jobs: jobs() },
        Request::Cancel { jobs: jobs() },
        Request::CancelWaiting { jobs: jobs() },
        Request::Retry { jobs: jobs() },
        Request::Forget { jobs: jobs() },
    ] {
        invalid(siege, request);
    }
}

/// Nothing to do is done at once, or refused; it leaves nothing waiting.
fn no_input(siege: &Siege) {
    let mut wire = siege.connect();
    let reply = wire.call(Request::Submit(submit("noop", &[], true)));
    assert!(matches!(reply, Reply::Refused(_) | Reply::Accepted { count: 0, .. }), "{reply:?}");
    assert_answers(&mut wire);
}

fn odd_policies(siege: &Siege) {
    let policy = Policy::default;
    for odd in [
        Policy { priority: 255, ..policy() },
        Policy { timeout_ms: Some(0), ..policy() },
        Policy { timeout_ms: Some(u64::MAX), ..policy() },
        Policy { expires_ms: Some(u64::MAX), ..policy() },
        Policy { no_progress_ms: Some(u64::MAX), ..policy() },
        Policy { cpu_ms: Some(u64::MAX), ..policy() },
        Policy { memory_bytes: Some(0), ..policy() },
        Policy { crashes_max: Some(0), ..policy() },
    ] {
        let mut odd_one = submit("noop", &["x"], true);
        odd_one.policy = odd;
        invalid(siege, Request::Submit(odd_one));
    }
}

/// Every request that names jobs, with numbers that nobody has.
fn forged_ids(siege: &Siege) {
    let mut wire = siege.connect();
    for job in [JobId(0), JobId(u64::MAX), JobId(u64::MAX - 1), JobId(1 << 63), JobId(1 << 32)] {
        for request in [Request::Result { job }, Request::Job { job }] {
            assert!(matches!(wire.call(request), Reply::Refused(_)));
        }
        let reply = wire.call(Request::Wait { jobs: vec![job] });
        assert!(matches!(&reply, Reply::Unknown(unknown) if unknown.jobs == [job]), "{reply:?}");
        for jobs in [[job], [job]] {
            let jobs = jobs.to_vec();
            for request in [
                Request::Cancel { jobs: jobs.clone() },
                Request::Retry { jobs: jobs.clone() },
                Request::Forget { jobs },
            ] {
                assert!(
                    matches!(wire.call(request), Reply::Changed { count: 0, refused } if refused.len() == 1)
                );
            }
        }
    }
    assert_answers(&mut wire);
}

fn the_same_id(siege: &Siege) {
    let mut wire = siege.connect();
    let job = wire.submit("noop", &["x"]);
    let tag = wire.ask(Request::Wait { jobs: vec![job; BATCH_MAX] });
    match wire.next_reply().unwrap() {
        ReplyFrame { tag: of, reply: Reply::Ended(ends) } => assert_eq!((of, ends.len()), (tag, 1)),
        other => panic!("unexpected reply: {other:?}"),
    }
    let Reply::Changed { count, refused } = wire.call(Request::Forget { jobs: vec![job; BATCH_MAX] }) else {
        panic!("no answer")
    };
    assert_eq!((count, refused.len(), refused[0].jobs().len()), (1, 1, BATCH_MAX - 1));
}

/// Both requests are served, each by itself.
fn reused_tags(siege: &Siege) {
    let mut wire = siege.connect();
    let request = || Request::Submit(submit("sleep", &["50"], true));
    wire.send(&[frame(5, request()), frame(5, request()), frame(0, Request::Ping)].concat());
    let (mut accepted, mut ended, mut pongs) = (0, 0, 0);
    while accepted < 2 || ended < 2 || pongs < 1 {
        let reply = wire.next_reply().unwrap();
        match reply.reply {
            Reply::Accepted { .. } => accepted += 1,
            Reply::Ended(ends) => {
                assert!(ends.iter().all(|end| end.outcome == Outcome::Done));
                ended += ends.len();
            }
            Reply::Pong { .. } => pongs += usize::from(reply.tag == Tag(0)),
            other => panic!("unexpected reply: {other:?}"),
        }
    }
}

fn greatest_numbers(siege: &Siege) {
    let mut wire = siege.connect();
    let jobs = wire.call(Request::Jobs { state: None, walk: Walk::Up(JobId(u64::MAX)), limit: u32::MAX });
    assert!(matches!(jobs, Reply::Jobs { rows, .. } if rows.is_empty()));
    assert!(matches!(wire.call(Request::Deaths { limit: u32::MAX }), Reply::Deaths(_)));
    assert!(matches!(wire.call(Request::Events { after: u64::MAX, follow: false }), Reply::Events { .. }));
    let mut longest = submit("noop", &[], false);
    longest.inputs = vec![Payload::from(vec![0; 4096]); 200];
    assert!(matches!(wire.call(Request::Submit(longest)), Reply::Accepted { count: 200, .. }));
}

fn half_closed(siege: &Siege, how: Shutdown) {
    for _ in 0..50 {
        let mut wire = siege.connect();
        wire.send(&frame(1, Request::Submit(submit("noop", &["x"; 100], true))));
        wire.socket.shutdown(how).unwrap();
        // It is told nothing, or something; then it is over.
        while how == Shutdown::Write && wire.next_reply().is_some() {}
    }
}

fn ends_everywhere(siege: &Siege) {
    let whole = frame(1, Request::Submit(submit("noop", &["abcdef"; 5], true)));
    for end in 0..whole.len() {
        siege.connect().send(&whole[..end]);
    }
}

fn storm(siege: &Siege) {
    for _ in 0..3000 {
        drop(Wire::silent(&siege.daemon.socket()));
    }
    assert_answers(&mut siege.connect());
}

fn half_hello_storm(siege: &Siege) {
    for round in 0..3000 {
        Wire::silent(&siege.daemon.socket()).send(&Hello::new(0).to_bytes()[..1 + round % 15]);
    }
    assert_answers(&mut siege.connect());
}

fn vanish_with_jobs(siege: &Siege) {
    let mut wires: Vec<_> = (0..500).map(|_| siege.connect()).collect();
    for wire in &mut wires {
        wire.ask(Request::Submit(submit("noop", &["x"; 20], true)));
    }
    drop(wires);
    eventually("they are gone", || {
        let Reply::Status(status) = siege.connect().call(Request::Status) else { panic!("no status") };
        (status.clients < 10 && status.queued < 1000).then_some(())
    });
}
