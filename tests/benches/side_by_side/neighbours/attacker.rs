//! The attacks on a neighbour: what one user sends over three thousand connections, and whether they are read.
//!
//! A process of its own, called with `attack NAME SOCKET JOB`: it connects as its user, says `ready`, and then writes and
//! reads without a pause until it is killed.

use std::io::{ErrorKind, Read, Write};
use std::path::Path;

use bulkhead_proto::client::frame::Frames;
use bulkhead_proto::client::message::{Request, Walk};
use bulkhead_proto::ids::JobId;
use bulkhead_proto::limits::{BATCH_MAX, FRAME_MAX_BYTES};
use bulkhead_sys::hostile_peer;
use bulkhead_tests::other_users::GROUP;
use bulkhead_tests::raid::frame;
use bulkhead_tests::wire::{Wire, submit};

/// Connections of one attack.
pub(crate) const CONNECTIONS: usize = 3000;
/// How the reply begins that accepts a job: the tag of the request, and the reply's number.
const ACCEPTED: [u8; 2] = [1, 0];
/// The attacker's user.
pub(super) const ATTACKER: u32 = 60_101;

/// One attack.
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    /// The bytes that each connection sends again and again.
    bytes: fn(running: JobId) -> Vec<u8>,
    reads: bool,
    then: Then,
}

/// What a connection does when all its bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// It writes them again.
    Again,
    /// Nothing.
    Rest,
    /// It ends, and another one takes its place.
    Leave,
}

/// What attacks are compared with.
pub(crate) const NO_OPS: Attack = Attack { name: "no_ops", bytes: no_op, reads: true, then: Then::Again };

pub(crate) const ATTACKS: [Attack; 9] = [
    Attack { name: "lists", bytes: list, reads: true, then: Then::Again },
    Attack { name: "unread_lists", bytes: list, reads: false, then: Then::Again },
    Attack { name: "unread_kinds", bytes: |_| frame(1, Request::Kinds), reads: false, then: Then::Again },
    Attack { name: "unknown_ids", bytes: unknown_ids, reads: false, then: Then::Again },
    Attack { name: "waits", bytes: waits, reads: true, then: Then::Again },
    Attack { name: "followers", bytes: follow, reads: false, then: Then::Again },
    Attack { name: "unread_jobs", bytes: many_no_ops, reads: false, then: Then::Again },
    Attack { name: "half_frames", bytes: half_frame, reads: false, then: Then::Rest },
    Attack { name: "comings", bytes: no_op, reads: true, then: Then::Leave },
];

fn no_op(_: JobId) -> Vec<u8> {
    frame(1, Request::Submit(submit("noop", &["word"], true)))
}

fn many_no_ops(_: JobId) -> Vec<u8> {
    frame(1, Request::Submit(submit("noop", &["word"; 256], true)))
}

fn list(_: JobId) -> Vec<u8> {
    let walk = Walk::Up(JobId(0));
    frame(1, Request::Jobs { state: None, walk, limit: BATCH_MAX as u32 })
}

fn unknown_ids(_: JobId) -> Vec<u8> {
    frame(1, Request::Wait { jobs: (1..=BATCH_MAX as u64).map(|number| JobId(1 << 40 | number)).collect() })
}

fn waits(running: JobId) -> Vec<u8> {
    frame(1, Request::Wait { jobs: vec![running; BATCH_MAX] })
}

fn follow(_: JobId) -> Vec<u8> {
    frame(1, Request::Events { after: 0, follow: true })
}

/// All but the last byte of a frame.
fn half_frame(_: JobId) -> Vec<u8> {
    let length = FRAME_MAX_BYTES as u32;
    [&length.to_le_bytes()[..], &vec![0; FRAME_MAX_BYTES - 1]].concat()
}

/// One connection and what is left of its bytes.
struct Connection {
    wire: Wire,
    replies: Frames,
    sent: usize,
    was_answered: bool,
    is_over: bool,
}

/// Runs the attack of this name on the daemon at this socket, until it is killed.
pub(crate) fn attack(arguments: &[String]) {
    let [name, socket, job] = arguments else { panic!("attack NAME SOCKET JOB") };
    let found = ATTACKS.iter().chain([&NO_OPS]).find(|attack| attack.name == name);
    let (attack, socket) = (found.expect("an attack of that name"), Path::new(socket));
    let bytes = (attack.bytes)(JobId(job.parse().expect("a job's number")));
    let mut connections: Vec<_> = (0..CONNECTIONS).map(|_| connect(socket)).collect();
    println!("ready");
    let mut buffer = vec![0; 256 << 10];
    loop {
        for connection in &mut connections {
            connection.go_on(attack, &bytes, &mut buffer);
            if connection.is_over || attack.then == Then::Leave && connection.sent == bytes.len() {
                *connection = connect(socket);
            }
        }
    }
}

fn connect(socket: &Path) -> Connection {
    let socket = hostile_peer::connect_as(socket, ATTACKER, GROUP).expect("it listens");
    let wire = Wire::on(socket).welcome();
    wire.socket.set_nonblocking(true).expect("a socket can be made so");
    Connection { wire, replies: Frames::default(), sent: 0, was_answered: false, is_over: false }
}

impl Connection {
    /// Writes and reads what goes without waiting.
    fn go_on(&mut self, attack: &Attack, bytes: &[u8], buffer: &mut [u8]) {
        // Who reads asks again once all was answered: more than that would be a flood of requests.
        let may_go_on = !attack.reads || std::mem::take(&mut self.was_answered);
        if self.sent == bytes.len() && attack.then == Then::Again && may_go_on {
            self.sent = 0;
        }
        if self.sent < bytes.len() {
            match self.wire.socket.write(&bytes[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => self.is_over = true,
            }
        }
        if attack.reads {
            match self.wire.socket.read(buffer) {
                Ok(0) => self.is_over = true,
                Ok(count) => self.hear(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => self.is_over = true,
            }
        }
    }

    /// Notes whether the request was answered to its end: by more than the acceptance of its job.
    fn hear(&mut self, bytes: &[u8]) {
        self.replies.feed(bytes);
        while let Some(reply) = self.replies.next_frame().expect("the daemon's frames are of a fair size") {
            self.was_answered |= !reply.starts_with(&ACCEPTED);
        }
    }
}
