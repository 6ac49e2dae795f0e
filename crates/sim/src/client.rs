//! A fake client: its user, the requests that it wrote, how it reads.
//!
//! It remembers only what a real client could know. `requests.rs` draws its requests, `people.rs` moves it.

use std::collections::{BTreeSet, VecDeque};

use bulkhead_proto::client::message::Request;
use bulkhead_proto::ids::{ClientId, JobId, Tag};

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientLife {
    /// Its hello was good; the core does not know it yet.
    New,
    /// Known to the core.
    On,
    /// It vanished; the core does not know yet.
    Lost,
    /// Over.
    Over,
}

/// The sort of requests that a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A bit of everything.
    Mixed,
    /// Submits as much as it can.
    Flooder,
    /// Has one job at a time.
    Single,
}

/// How a client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// At once.
    Prompt,
    /// After a while.
    Slow,
    /// Not while there is trouble.
    Never,
}

/// One client.
#[derive(Debug)]
pub struct FakeClient {
    /// Its number.
    pub id: ClientId,
    /// Its user.
    pub uid: u32,
    /// Whether it is an administrator.
    pub admin: bool,
    /// The sort of its requests.
    pub role: Role,
    /// The state of its connection.
    pub connection: ClientLife,
    /// How it reads.
    pub pace: Pace,
    /// Requests written and not yet read by the daemon.
    pub written: VecDeque<(Tag, Request)>,
    /// Bytes sent to it that it has not read.
    pub unread_bytes: u64,
    /// Whether it is about to read them.
    pub reading: bool,
    /// Whether it has read everything and the core does not know yet.
    pub flushed: bool,
    /// Requests to come.
    pub acts_left: u32,
    /// Its last tag.
    pub tag: u32,
    /// The number of the last held end that it got.
    pub held: u64,
    /// What it believes to have registered, by its numbers.
    pub registered: BTreeSet<u32>,
    /// Jobs whose numbers it knows.
    pub jobs: Vec<JobId>,
}

impl FakeClient {
    /// One that just connected.
    pub fn new(id: ClientId, uid: u32, admin: bool, role: Role, pace: Pace, acts_left: u32) -> Self {
        Self {
            id,
            uid,
            admin,
            role,
            connection: ClientLife::New,
            pace,
            written: VecDeque::new(),
            unread_bytes: 0,
            reading: false,
            flushed: false,
            acts_left,
            tag: 0,
            held: 0,
            registered: BTreeSet::new(),
            jobs: Vec::new(),
        }
    }

    /// Whether it can still ask.
    pub fn is_there(&self) -> bool {
        matches!(self.connection, ClientLife::New | ClientLife::On)
    }

    /// Writes a request.
    pub fn ask(&mut self, request: Request) {
        self.tag += 1;
        self.written.push_back((Tag(self.tag), request));
    }

    /// Ends its connection, and drops all that was on its way.
    pub fn hang_up(&mut self) {
        self.connection = ClientLife::Over;
        self.written.clear();
        self.acts_left = 0;
        self.unread_bytes = 0;
        self.flushed = false;
    }
}
