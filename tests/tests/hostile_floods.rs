//! Clients that want too much: more than they read, more than fits, more often than anybody could.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so by a panic

use bulkhead_proto::client::frame::{Hello, push_frame};
use bulkhead_proto::client::message::{Reply, ReplyFrame, Request, Walk};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::ids::{JobId, Tag};
use bulkhead_proto::limits::{BATCH_MAX, FRAME_MAX_BYTES, UNFINISHED_MAX_BYTES};
use bulkhead_tests::daemon::eventually;
use bulkhead_tests::raid::{Attack, assert_answers, flood, frame, withstand};
use bulkhead_tests::siege::{Siege, large};
use bulkhead_tests::wire::{Wire, submit};

const UNREAD: &[Attack] = &[
    ("submits that are not read", |siege| {
        let request = Request::Submit(submit("noop", &["some input"; 1000], true));
        flood(&mut siege.connect(), &frame(1, request), 100);
    }),
    ("the same result, again and again", the_same_result),
    ("the same output descriptor, again and again", the_same_output),
    ("4096 jobs to wait for, 300 times", many_waits),
    ("4096 unknown jobs to wait for, 2000 times", |siege| {
        flood(&mut siege.connect(), &frame(1, unknown_jobs()), 2000);
    }),
    ("a follower of events that never reads", deaf_follower),
    ("lists of jobs that are not read", |siege| {
        let request = Request::Jobs { state: None, walk: Walk::Up(JobId(0)), limit: u32::MAX };
        flood(&mut siege.connect(), &frame(1, request), 20_000);
    }),
    ("a million pings that are not read", |siege| {
        let pings = frame(1, Request::Ping).repeat(10_000);
        flood(&mut siege.connect(), &pings, 100);
    }),
];

#[test]
fn who_does_not_read_waits_for_itself() {
    withstand(UNREAD);
}

/// Half of a long frame each, on so many connections that all together are too much.
#[test]
fn half_frames_are_held_within_a_bound() {
    let mut siege = Siege::by_clients();
    bulkhead_sys::process::raise_descriptor_limit().unwrap();
    let before = siege.resident_pages();
    let mut half = u32::try_from(FRAME_MAX_BYTES).unwrap().to_le_bytes().to_vec();
    half.resize(FRAME_MAX_BYTES, 0);
    siege.beside_a_neighbour(|siege| {
        let count = UNFINISHED_MAX_BYTES / FRAME_MAX_BYTES + 100;
        let mut wires: Vec<Wire> = (0..count).map(|_| siege.connect()).collect();
        for wire in &mut wires {
            // Who gives way is cut off.
            drop(std::io::Write::write_all(&mut wire.socket, &half));
        }
        // A frame of a fair size still gets through, and its answer comes.
        let long = submit("noop", &["x".repeat(4000).as_str(); 200], false);
        assert!(matches!(siege.connect().call(Request::Submit(long)), Reply::Accepted { count: 200, .. }));
        let grown = siege.resident_pages().saturating_sub(before) * 4096;
        assert!(grown < UNFINISHED_MAX_BYTES as u64 + (128 << 20), "it grew by {grown} bytes");
        let gone = eventually("some gave way", || {
            let log = siege.daemon.log();
            log.contains("bytes of unfinished frames (limit 67108864, which is fixed)").then_some(log)
        });
        assert!(gone.matches("client misbehaved").count() < 50, "not each is said");
    });
    siege.assert_nothing_left();
}

/// Accepted or refused as busy, a million at full speed: the neighbour's turn comes all the same.
#[test]
fn a_million_tiny_jobs() {
    let mut siege = Siege::by_clients();
    siege.beside_a_neighbour(|siege| {
        let mut wire = siege.connect();
        let inputs = vec!["x"; BATCH_MAX];
        let (mut accepted, mut refused) = (0_u64, 0_u64);
        for _ in 0..1_000_000 / BATCH_MAX + 1 {
            match wire.call(Request::Submit(submit("noop", &inputs, false))) {
                Reply::Accepted { count, .. } => accepted += u64::from(count),
                Reply::Refused(_) => refused += BATCH_MAX as u64,
                other => panic!("unexpected reply: {other:?}"),
            }
        }
        println!("accepted={accepted} refused={refused}");
        assert!(accepted > 0);
        let mut queued = || match wire.call(Request::Status) {
            Reply::Status(status) => status.queued,
            other => panic!("unexpected reply: {other:?}"),
        };
        // However slow the machine is, they become fewer.
        let mut left = queued();
        while left > 0 {
            left = eventually("some more have ended", || Some(queued()).filter(|now| *now < left));
        }
    });
    siege.assert_nothing_left();
}

/// A thousand connections, and each of them hungry.
#[test]
fn a_thousand_connections_that_all_submit() {
    let mut siege = Siege::by_clients();
    bulkhead_sys::process::raise_descriptor_limit().unwrap();
    siege.beside_a_neighbour(|siege| {
        let mut wires: Vec<_> = (0..1000).map(|_| Wire::silent(&siege.daemon.socket())).collect();
        let begin =
            [&Hello::new(0).to_bytes()[..], &frame(1, Request::Submit(submit("noop", &["x"; 20], true)))];
        for wire in &mut wires {
            wire.send(&begin.concat());
        }
        for wire in &mut wires {
            assert_eq!(wire.hello().verdict, Hello::WELCOME);
            let mut ends = 0;
            while ends < 20 {
                if let Reply::Ended(some) = wire.next_reply().unwrap().reply {
                    assert!(some.iter().all(|end| end.outcome == Outcome::Done));
                    ends += some.len();
                }
            }
        }
    });
    siege.assert_nothing_left();
}

/// No number of ids makes more replies than there are requests, nor more bytes.
#[test]
fn unknown_jobs_have_one_reply_for_each_request() {
    let siege = Siege::by_clients();
    let mut wire = siege.connect();
    let mut asked_bytes = 0;
    for _ in 0..64 {
        asked_bytes += frame(1, unknown_jobs()).len();
        wire.ask(unknown_jobs());
    }
    let ping = wire.ask(Request::Ping);
    let (mut replies, mut reply_bytes) = (0, 0);
    loop {
        let frame = wire.next_reply().unwrap();
        if frame.tag == ping {
            break;
        }
        let mut bytes = Vec::new();
        push_frame(&frame, &mut bytes).unwrap();
        reply_bytes += bytes.len();
        let Reply::Unknown(unknown) = frame.reply else { panic!("{:?}", frame.reply) };
        assert_eq!(unknown.jobs.len(), BATCH_MAX);
        replies += 1;
    }
    assert_eq!(replies, 64);
    assert!(reply_bytes <= asked_bytes + 64 * 16, "{reply_bytes} bytes for {asked_bytes}");
}

/// What a request changes is told in less room than it takes: each reason once, however many jobs it refuses.
#[test]
fn a_change_of_a_whole_batch_is_one_short_reply() {
    let siege = Siege::by_clients();
    let mut wire = siege.connect();
    let ended = wire.submit("noop", &["x"]);
    assert!(matches!(wire.call(Request::Wait { jobs: vec![ended] }), Reply::Ended(_)));
    let jobs = || {
        let unknown = (1..BATCH_MAX as u64).map(|number| JobId(1_000_000 + number));
        std::iter::once(ended).chain(unknown).collect::<Vec<_>>()
    };
    for request in [Request::Cancel { jobs: jobs() }, Request::Retry { jobs: jobs() }] {
        let asked_bytes = frame(1, request.clone()).len();
        let Reply::Changed { count: 0, refused } = wire.call(request) else { panic!("nothing can change") };
        assert_eq!(refused.iter().map(|same| same.jobs().len()).collect::<Vec<_>>(), [1, BATCH_MAX - 1]);
        let mut bytes = Vec::new();
        let frame = ReplyFrame { tag: Tag(1), reply: Reply::Changed { count: 0, refused } };
        push_frame(&frame, &mut bytes).unwrap();
        assert!(bytes.len() <= asked_bytes + 128, "{} bytes for {asked_bytes}", bytes.len());
    }
}

fn unknown_jobs() -> Request {
    Request::Wait { jobs: (0..BATCH_MAX as u64).map(|number| JobId(1_000_000 + number)).collect() }
}

fn the_same_result(siege: &Siege) {
    let job = siege.connect().submit("noop", &["x".repeat(4000).as_str()]);
    let mut wire = siege.connect();
    assert!(matches!(wire.call(Request::Wait { jobs: vec![job] }), Reply::Ended(_)));
    flood(&mut wire, &frame(1, Request::Result { job }).repeat(1000), 200);
}

fn the_same_output(siege: &Siege) {
    let mut wire = siege.connect();
    let mut one = submit("noop", &["x"], false);
    one.policy = large();
    let Reply::Accepted { first, .. } = wire.call(Request::Submit(one)) else { panic!("not accepted") };
    assert!(matches!(wire.call(Request::Wait { jobs: vec![first] }), Reply::Ended(_)));
    flood(&mut wire, &frame(1, Request::Result { job: first }).repeat(1000), 200);
}

fn many_waits(siege: &Siege) {
    let mut wire = siege.connect();
    let first = wire.submit("sleep", &["600000"]);
    let request = Request::Wait { jobs: vec![first; BATCH_MAX] };
    flood(&mut wire, &frame(1, request), 300);
    drop(wire);
    let mut wire = siege.connect();
    assert!(matches!(wire.call(Request::Cancel { jobs: vec![first] }), Reply::Changed { count: 1, .. }));
}

fn deaf_follower(siege: &Siege) {
    let mut deaf: Vec<_> = (0..20).map(|_| siege.connect()).collect();
    for wire in &mut deaf {
        wire.ask(Request::Events { after: 0, follow: true });
    }
    let mut wire = siege.connect();
    for _ in 0..50 {
        assert_eq!(wire.run("noop", &["x"; 100]).len(), 100);
    }
    assert_answers(&mut wire);
}
