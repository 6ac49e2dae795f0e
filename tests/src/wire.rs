//! A client by hand: frames on a socket, without the checks of the client library.
//!
//! It shares only the protocol's types with the daemon, so a test can send half a frame, stop reading, or vanish. Every
//! read has a long deadline against hangs.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use bulkhead_proto::client::frame::{Frames, Hello, push_frame};
use bulkhead_proto::client::message::{Reply, ReplyFrame, Request, RequestFrame, Submit};
use bulkhead_proto::client::outcome::JobEnded;
use bulkhead_proto::client::record::Record;
use bulkhead_proto::client::view::{JobDetail, Status, WorkerRow};
use bulkhead_proto::codec;
use bulkhead_proto::ids::{JobId, Tag};
use bulkhead_proto::job::{Payload, Policy};

use crate::daemon::DEADLINE;

/// One connection.
#[derive(Debug)]
pub struct Wire {
    /// The socket itself.
    pub socket: UnixStream,
    /// The daemon's notices so far.
    pub notices: Vec<String>,
    frames: Frames,
    last: u32,
}

impl Wire {
    /// Connects without sending a hello.
    pub fn silent(path: &Path) -> Self {
        Self::on(UnixStream::connect(path).expect("the daemon listens"))
    }

    /// Takes over a socket that is connected.
    pub fn on(socket: UnixStream) -> Self {
        socket.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        Self { socket, notices: Vec::new(), frames: Frames::default(), last: 0 }
    }

    /// Connects and is welcome.
    pub fn connect(path: &Path) -> Self {
        Self::silent(path).welcome()
    }

    /// Says hello and is welcome.
    pub fn welcome(self) -> Self {
        let mut wire = self;
        wire.send(&Hello::new(0).to_bytes());
        let hello = wire.hello();
        assert_eq!(hello.verdict, Hello::WELCOME);
        wire
    }

    /// The daemon's hello.
    pub fn hello(&mut self) -> Hello {
        let mut bytes = [0; Hello::BYTES];
        self.socket.read_exact(&mut bytes).expect("a hello");
        Hello::from_bytes(&bytes).expect("the daemon's magic")
    }

    /// Sends these bytes.
    pub fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the daemon reads");
    }

    /// Sends a request and returns its tag.
    pub fn ask(&mut self, request: Request) -> Tag {
        let mut bytes = Vec::new();
        self.last += 1;
        let tag = Tag(self.last);
        push_frame(&RequestFrame { tag, request }, &mut bytes).expect("a request fits a frame");
        self.send(&bytes);
        tag
    }

    /// The next reply, or `None` if the daemon has closed the connection. Notices are collected.
    pub fn next_reply(&mut self) -> Option<ReplyFrame> {
        loop {
            match self.next_frame()? {
                ReplyFrame { reply: Reply::Notice(text), .. } => self.notices.push(text),
                other => return Some(other),
            }
        }
    }

    /// The next frame, or `None` when the daemon has closed the connection.
    pub fn next_frame(&mut self) -> Option<ReplyFrame> {
        let mut buffer = [0; 64 << 10];
        loop {
            if let Some(bytes) = self.frames.next_frame().expect("the daemon's frames are of a fair size") {
                return Some(codec::decode(bytes).expect("the daemon's frames can be decoded"));
            }
            match self.socket.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => self.frames.feed(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => panic!("no reply within the deadline: {error}"),
            }
        }
    }

    /// The reason of the goodbye that must come next, and then the end.
    pub fn goodbye(&mut self) -> String {
        match self.next_reply() {
            Some(ReplyFrame { reply: Reply::Goodbye(refusal), .. }) => {
                assert!(self.next_reply().is_none(), "the connection ends after a goodbye");
                refusal.to_string()
            }
            other => panic!("no goodbye: {other:?}"),
        }
    }

    /// Asks and takes the reply to it.
    pub fn call(&mut self, request: Request) -> Reply {
        let tag = self.ask(request);
        loop {
            let frame = self.next_reply().expect("the daemon answers");
            if frame.tag == tag {
                return frame.reply;
            }
        }
    }

    /// The daemon's status.
    pub fn status(&mut self) -> Status {
        match self.call(Request::Status) {
            Reply::Status(status) => *status,
            other => panic!("unexpected reply: {other:?}"),
        }
    }

    /// The workers as they are now.
    pub fn workers(&mut self) -> Vec<WorkerRow> {
        match self.call(Request::Workers) {
            Reply::Workers(rows) => rows,
            other => panic!("unexpected reply: {other:?}"),
        }
    }

    /// The details of one job.
    pub fn job(&mut self, job: JobId) -> JobDetail {
        match self.call(Request::Job { job }) {
            Reply::Job(detail) => *detail,
            other => panic!("unexpected reply: {other:?}"),
        }
    }

    /// All events so far.
    pub fn records(&mut self) -> Vec<Record> {
        let mut all: Vec<Record> = Vec::new();
        loop {
            let after = all.last().map_or(0, |record| record.index);
            match self.call(Request::Events { after, follow: false }) {
                Reply::Events { records, caught_up, .. } => {
                    all.extend(records);
                    if caught_up {
                        return all;
                    }
                }
                other => panic!("unexpected reply: {other:?}"),
            }
        }
    }

    /// Submits under the default policy, not attached; the id of the first.
    pub fn submit(&mut self, kind: &str, inputs: &[&str]) -> JobId {
        match self.call(Request::Submit(submit(kind, inputs, false))) {
            Reply::Accepted { first, count, refused: None } if count as usize == inputs.len() => first,
            other => panic!("the submit was not accepted: {other:?}"),
        }
    }

    /// Submits attached and takes all results, in the order of their ends.
    pub fn run(&mut self, kind: &str, inputs: &[&str]) -> Vec<JobEnded> {
        self.run_submit(submit(kind, inputs, true))
    }

    /// Submits durable jobs and waits for their ends, in the order in which they come.
    pub fn run_durable(&mut self, kind: &str, inputs: &[&str]) -> Vec<JobEnded> {
        let durable = Submit { durable: Some(Box::default()), ..submit(kind, inputs, false) };
        let first = match self.call(Request::Submit(durable)) {
            Reply::Accepted { first, refused: None, .. } => first.0,
            other => panic!("the submit was not accepted: {other:?}"),
        };
        self.ask(Request::Wait { jobs: (first..).map(JobId).take(inputs.len()).collect() });
        let mut ended = Vec::new();
        while ended.len() < inputs.len() {
            match self.next_reply().expect("the daemon answers").reply {
                Reply::Ended(some) => ended.extend(some),
                other => panic!("unexpected reply: {other:?}"),
            }
        }
        ended
    }

    /// The same for a submit of any policy.
    pub fn run_submit(&mut self, submit: Submit) -> Vec<JobEnded> {
        let count = submit.inputs.len();
        let tag = self.ask(Request::Submit(submit));
        let mut ended = Vec::new();
        while ended.len() < count {
            let frame = self.next_reply().expect("the daemon answers");
            match frame.reply {
                Reply::Ended(some) if frame.tag == tag => ended.extend(some),
                Reply::Accepted { refused: None, .. } => {}
                other => panic!("unexpected reply: {other:?}"),
            }
        }
        ended
    }
}

/// A submit under the default policy.
pub fn submit(kind: &str, inputs: &[&str], attached: bool) -> Submit {
    let inputs = inputs.iter().map(|input| Payload::from(input.as_bytes().to_vec())).collect();
    Submit { kind: kind.to_owned(), policy: Policy::default(), attached, inputs, ..Submit::default() }
}
