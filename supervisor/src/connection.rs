//! One client's connection: its hello, its frames in, its outbox.
//!
//! Its states stand in `connection_state.rs`. It is removed from any state when its socket ends, and from closing when its
//! outbox is empty, broken or overdue.

mod blocks;

use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;

use bulkhead_core::account::AccountId;
use bulkhead_core::event::{Event, Peer};
use bulkhead_proto::client::frame::{Frames, Hello};
use bulkhead_proto::client::message::{Reply, ReplyFrame, Request, RequestFrame};
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::codec;
use bulkhead_proto::ids::{ClientId, Tag};
use bulkhead_proto::limits::{FRAME_MAX_BYTES, UNREAD_ALLOWANCE_BYTES, UNREAD_MAX_BYTES};
use bulkhead_sys::clock;
use bulkhead_sys::untrusted::SocketRead;
use mio::net::UnixStream;

use crate::access_control::TurnedAway;
use crate::client_files::{ClientFileStore, FileClaim, UnclaimedFiles};
use crate::client_socket::{ClientSocket, is_no_fault};
use crate::connection_state::{ConnectionPhase, ConnectionState};
use crate::outbox::Outbox;
use crate::output_store::OutputFile;
use crate::rate_limit::{self, LineAbout};
use crate::request_share::{RequestShare, is_question};
use crate::result_arena::ToldBlocks;
use crate::socket_watch::{SocketInterest, SocketReadiness};
use crate::unread_descriptors::DescriptorGate;

/// While the outbox holds more bytes than this, the connection is not read.
const OUTBOX_MARK_BYTES: usize = FRAME_MAX_BYTES;

/// So many readable events may come while the socket is known to be readable. The first event of a new connection is one of
/// them, because a connection is read once without an event.
const TOLD_AGAIN_MAX: usize = 4;

/// One client.
#[derive(Debug)]
pub(crate) struct Connection {
    client: ClientId,
    peer: Peer,
    socket: ClientSocket,
    state: ConnectionState,
    outbox: Outbox,
    /// Descriptors that arrived before the frame that names them was complete.
    unclaimed: UnclaimedFiles,
    /// The socket may have unread bytes.
    readable: bool,
    /// The client has closed its sending side; the rest is read up to the end.
    ending: bool,
    /// Readable events that came while the socket was known to be readable.
    told_again: usize,
    /// What is registered with the poll.
    interest: SocketInterest,
    /// The client has closed its socket. `parse` still takes the requests that it sent before, and skips its questions.
    has_left: bool,
    /// The outbox holds only the acceptance of one job, whose end may follow within microseconds.
    may_delay: bool,
    /// There may be whole frames among the bytes that were read.
    has_unparsed: bool,
    /// Replies were queued since the core was last told that the outbox is empty.
    flush_unreported: bool,
    /// What the client did wrong, for the log.
    complaint: Option<String>,
    /// The blocks of arenas that it was told of.
    told: ToldBlocks,
}

impl Connection {
    /// A connection that was just accepted.
    pub(crate) fn new(client: ClientId, peer: Peer, socket: ClientSocket) -> Self {
        Self {
            client,
            peer,
            socket,
            state: ConnectionState::Greeting(Vec::new()),
            outbox: Outbox::default(),
            unclaimed: UnclaimedFiles::default(),
            readable: true,
            ending: false,
            told_again: 0,
            interest: SocketInterest::NEW,
            has_left: false,
            may_delay: false,
            has_unparsed: false,
            flush_unreported: false,
            complaint: None,
            told: ToldBlocks::default(),
        }
    }

    /// The socket, to be registered.
    pub(crate) fn socket(&mut self) -> &mut UnixStream {
        self.socket.stream()
    }

    /// The client's user and rights.
    pub(crate) fn peer(&self) -> Peer {
        self.peer
    }

    /// Ends it; what is left is its socket, and the blocks that its client may still read of in there.
    pub(crate) fn into_parts(self) -> (ClientSocket, ToldBlocks) {
        (self.socket, self.told)
    }

    /// The client's user.
    pub(crate) fn uid(&self) -> u32 {
        self.peer.uid
    }

    /// The account of that user.
    pub(crate) fn account(&self) -> AccountId {
        self.socket.account()
    }

    /// What the client did wrong since the last call.
    pub(crate) fn take_complaint(&mut self) -> Option<String> {
        self.complaint.take()
    }

    /// Memory that its received but incomplete bytes take up.
    pub(crate) fn partial_frame_bytes(&self) -> usize {
        if let ConnectionState::Open(frames) = &self.state { frames.held_bytes() } else { 0 }
    }

    /// The socket became readable, or its client has closed it, in part or as a whole.
    pub(crate) fn mark_readable(&mut self, ready: SocketReadiness) {
        self.told_again += usize::from(self.readable);
        self.readable = true;
        self.ending |= ready.ending;
        if ready.is_over {
            self.leave();
        }
    }

    /// The client has closed its socket. What it sent before is heard, such as its last receipt; the read that finds the
    /// end reports it. Nothing counts as flushed: the core keeps further results.
    fn leave(&mut self) {
        (self.readable, self.ending, self.has_left) = (true, true, true);
        self.outbox = Outbox::default();
        self.told = ToldBlocks::default();
        self.flush_unreported = false;
    }

    /// The socket was read empty.
    fn note_empty(&mut self) {
        (self.readable, self.told_again) = (false, 0);
    }

    /// Whether the outbox may wait for the end of a task that is running. Returns `true` at most once per flush.
    pub(crate) fn take_may_delay(&mut self) -> bool {
        std::mem::take(&mut self.may_delay)
    }

    /// The events that are of interest from now on, if others are registered; descriptors may lie `unread`.
    pub(crate) fn interest_change(&self, unread: bool) -> Option<SocketInterest> {
        let wanted =
            SocketInterest { read: self.told_again < TOLD_AGAIN_MAX, write: self.has_unsent() || unread };
        (self.interest != wanted).then_some(wanted)
    }

    /// These events are registered with the poll.
    pub(crate) fn note_interest(&mut self, registered: SocketInterest) {
        self.interest = registered;
    }

    /// Whether it should be read in this turn.
    pub(crate) fn wants_read(&self) -> bool {
        match self.state {
            ConnectionState::Greeting(_) | ConnectionState::Open(_) => {
                (self.readable || self.has_unparsed) && self.outbox.waiting_bytes() <= OUTBOX_MARK_BYTES
            }
            ConnectionState::Faulty(_) => true,
            ConnectionState::Closing => false,
        }
    }

    /// Whether it waits for the client's hello, or for the client to read its goodbye.
    pub(crate) fn has_timeout(&self) -> bool {
        matches!(self.state, ConnectionState::Greeting(_) | ConnectionState::Closing)
    }

    /// Whether it stays open only until its outbox is sent.
    pub(crate) fn is_closing(&self) -> bool {
        matches!(self.state, ConnectionState::Closing)
    }

    /// Reads at most one share and turns frames into events; `files` stores the descriptors. Returns `false` if the
    /// connection has ended.
    pub(crate) fn read(
        &mut self,
        buffer: &mut [u8],
        share: &mut RequestShare,
        files: &mut ClientFileStore,
        events: &mut Vec<Event>,
    ) -> bool {
        if let ConnectionState::Faulty(why) = &self.state {
            let why = why.clone();
            events.push(Event::ClientGone { client: self.client });
            self.say_goodbye(why);
            return true;
        }
        if self.wants_read() && self.has_unparsed {
            self.parse(share, files, events);
        }
        while !share.is_read() && !self.has_unparsed && !self.is_faulty() && self.wants_read() {
            match self.read_socket(buffer, files) {
                Ok(None) => {}
                Ok(Some(0)) => return self.end(events),
                Ok(Some(count)) => {
                    share.take_bytes(count);
                    self.feed(&buffer[..count], share, files, events);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.note_empty(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.end(events),
            }
        }
        true
    }

    fn enter(&mut self, state: ConnectionState) {
        let (from, to) = (self.state.phase(), state.phase());
        assert!(from.leads_to().contains(&to), "client {} went from {from:?} to {to:?}", self.client);
        self.state = state;
    }

    fn is_faulty(&self) -> bool {
        matches!(self.state, ConnectionState::Faulty(_))
    }

    /// One read. `None`: nothing was read, and the connection will end.
    fn read_socket(&mut self, buffer: &mut [u8], files: &mut ClientFileStore) -> io::Result<Option<usize>> {
        // Reads no further than the hello, because descriptors attached to the first frame belong to that frame.
        let (buffer, is_greeting) = match &self.state {
            ConnectionState::Greeting(hello) => (&mut buffer[..Hello::BYTES - hello.len()], true),
            ConnectionState::Open(_) | ConnectionState::Faulty(_) | ConnectionState::Closing => {
                (buffer, false)
            }
        };
        let shortage = files.shortage(self.socket.account());
        if !is_greeting && shortage.is_none() {
            return self.receive(buffer, files).map(Some);
        }
        match (self.socket.read(buffer)?, shortage) {
            (SocketRead::Bytes(count), _) => {
                self.note_read(count < buffer.len());
                return Ok(Some(count));
            }
            (SocketRead::Attached, Some(why)) if !is_greeting => self.fail(why),
            (SocketRead::Attached, _) => {
                self.complaint = Some("it sent descriptors with its hello".to_owned());
                self.reject(Hello::WRONG_VERSION);
            }
        }
        Ok(None)
    }

    fn receive(&mut self, buffer: &mut [u8], files: &mut ClientFileStore) -> io::Result<usize> {
        let before = self.unclaimed.len();
        let received =
            files.receive(&self.socket, (self.peer.uid, self.socket.account()), buffer, &mut self.unclaimed);
        match &received {
            // A read ends with the first message that has descriptors, so behind those there may be more.
            Ok(count) => self.note_read(*count < buffer.len() && self.unclaimed.len() == before),
            Err(error) if is_no_fault(error) => {}
            Err(error) => self.complaint = Some(format!("what it sent could not be received: {error}")),
        }
        received
    }

    /// The socket is empty: the poll reports new bytes and a later end, but not an end that it has reported already.
    fn note_read(&mut self, is_empty: bool) {
        if is_empty && !self.ending {
            self.note_empty();
        }
    }

    /// Ends the connection one turn later, after its earlier requests were answered. A connection that is ending already
    /// stays as it is.
    pub(crate) fn fail(&mut self, why: Refusal) {
        if self.state.phase() != ConnectionPhase::Open {
            return;
        }
        self.complaint = Some(why.to_string());
        self.has_unparsed = false;
        self.unclaimed.clear();
        self.enter(ConnectionState::Faulty(why));
    }

    /// The connection is over. Returns `false`.
    pub(crate) fn end(&mut self, events: &mut Vec<Event>) -> bool {
        if let ConnectionState::Open(frames) = &self.state
            && frames.is_partial()
        {
            self.complaint = Some("it left in the middle of a frame".to_owned());
        }
        if matches!(self.state, ConnectionState::Open(_) | ConnectionState::Faulty(_)) {
            events.push(Event::ClientGone { client: self.client });
        }
        false
    }

    fn feed(
        &mut self,
        bytes: &[u8],
        share: &mut RequestShare,
        files: &mut ClientFileStore,
        events: &mut Vec<Event>,
    ) {
        match &mut self.state {
            ConnectionState::Greeting(hello) => {
                hello.extend_from_slice(bytes);
                if let Some(hello) = hello.first_chunk().copied() {
                    self.handle_hello(&hello, events);
                }
            }
            ConnectionState::Open(frames) => {
                frames.feed(bytes);
                self.parse(share, files, events);
            }
            ConnectionState::Faulty(_) | ConnectionState::Closing => {}
        }
    }

    fn handle_hello(&mut self, hello: &[u8; Hello::BYTES], events: &mut Vec<Event>) {
        match Hello::from_bytes(hello) {
            Some(hello) if hello.version == Hello::new(0).version => {
                self.outbox.push_raw(&Hello::new(Hello::WELCOME).to_bytes());
                self.enter(ConnectionState::Open(Frames::default()));
                events.push(Event::ClientConnected { client: self.client, peer: self.peer });
            }
            Some(hello) => {
                self.complaint = Some(format!("it speaks version {}", hello.version));
                self.reject(Hello::WRONG_VERSION);
            }
            None => {
                self.complaint = Some("it does not speak the protocol".to_owned());
                self.reject(Hello::WRONG_VERSION);
            }
        }
    }

    /// Ends a connection that is not let in.
    pub(crate) fn turn_away(&mut self, away: TurnedAway) {
        match away {
            TurnedAway::Denied(why) => self.turn_away_with(Hello::DENIED, why),
            TurnedAway::Busy(why) => self.turn_away_with(Hello::BUSY, why),
        }
    }

    fn turn_away_with(&mut self, verdict: u32, why: Refusal) {
        self.outbox.push_raw(&Hello::new(verdict).to_bytes());
        self.say_goodbye(why);
    }

    /// Ends a connection whose hello is wrong.
    fn reject(&mut self, verdict: u32) {
        self.outbox.push_raw(&Hello::new(verdict).to_bytes());
        self.enter(ConnectionState::Closing);
    }

    /// Turns whole frames into events, as many as the share has room for; the rest stays unparsed.
    fn parse(&mut self, share: &mut RequestShare, files: &mut ClientFileStore, events: &mut Vec<Event>) {
        let ConnectionState::Open(frames) = &mut self.state else { return };
        let fault = loop {
            self.has_unparsed = share.is_used();
            if self.has_unparsed {
                return;
            }
            let decoded = match frames.next_frame() {
                Ok(None) => match self.unclaimed.fault(frames.is_partial()) {
                    Some(fault) => break fault,
                    None => return,
                },
                Ok(Some(bytes)) => codec::decode::<RequestFrame>(bytes).map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            let RequestFrame { tag, request } = match decoded {
                Ok(frame) => frame,
                Err(why) => break Refusal::Invalid { why },
            };
            if self.has_left && is_question(&request) {
                share.take_unanswered();
                continue;
            }
            share.take(&request);
            if let Request::Freed { blocks } = &request {
                // A client that has left holds none any more.
                if !self.has_left {
                    blocks::free(&mut self.told, &mut self.outbox, tag, blocks);
                    self.flush_unreported |= self.outbox.waiting_bytes() > 0;
                }
                continue;
            }
            let files = match self.unclaimed.claim_for(&request) {
                FileClaim::Granted(claimed) => files.hold(claimed),
                FileClaim::Lost(fault) => break fault,
                FileClaim::Refused(why) => {
                    refuse(&mut self.outbox, tag, why);
                    self.flush_unreported = true;
                    continue;
                }
            };
            events.push(Event::ClientSaid { client: self.client, tag, request, files });
        };
        self.fail(fault);
    }

    /// Queues a reply.
    pub(crate) fn reply(&mut self, frame: &ReplyFrame, descriptor: Option<Rc<OutputFile>>) {
        if self.is_closing() || self.has_left {
            return;
        }
        self.flush_unreported = true;
        let is_one = matches!(frame.reply, Reply::Accepted { count: 1, refused: None, .. });
        self.may_delay = is_one && !self.has_unsent();
        if let Err(error) = self.outbox.push(frame, descriptor) {
            if rate_limit::may_log(LineAbout::Client(self.peer.uid), clock::monotonic_ns()) {
                log::error!("reply does not fit a frame client={} error={error}", self.client);
            }
            let why = Refusal::Invalid { why: format!("the answer is too long: {error}; ask for less") };
            refuse(&mut self.outbox, frame.tag, why);
        }
    }

    /// Queues a goodbye; the connection ends when it has left. A closing connection gets no second one.
    pub(crate) fn say_goodbye(&mut self, why: Refusal) {
        if !self.is_closing() {
            self.reply(&ReplyFrame { tag: Tag(0), reply: Reply::Goodbye(why) }, None);
            self.enter(ConnectionState::Closing);
        }
    }

    /// Sends what the socket takes and `gate` lets pass, about `left` bytes at most, and takes it off `left`. Returns
    /// `false` if the connection has ended.
    pub(crate) fn flush(
        &mut self,
        left: &mut usize,
        gate: &mut DescriptorGate<'_>,
        events: &mut Vec<Event>,
    ) -> bool {
        if let Err(error) = self.outbox.flush(self.socket.as_fd(), left, gate) {
            let has_left = matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset);
            if !has_left || self.state.phase() != ConnectionPhase::Open {
                return self.end(events);
            }
            self.leave();
            return true;
        }
        if self.outbox.waiting_bytes() > 0 {
            return true;
        }
        if std::mem::take(&mut self.flush_unreported) && !self.is_closing() {
            events.push(Event::ClientFlushed { client: self.client });
        }
        !self.is_closing()
    }

    /// Whether sending waits for kernel resources, whose return the poll does not report.
    pub(crate) fn is_short(&self) -> bool {
        self.outbox.is_short()
    }

    /// Whether it goes on once its client has read more.
    pub(crate) fn is_unread(&self) -> bool {
        self.state.phase() == ConnectionPhase::Open && self.has_unsent()
    }

    /// Bytes of replies that wait for the client to read, unless they are few.
    pub(crate) fn unread_bytes(&self) -> usize {
        let held = self.outbox.held_bytes();
        if held > UNREAD_ALLOWANCE_BYTES { held } else { 0 }
    }

    /// Ends the connection at once: its user's clients do not read.
    pub(crate) fn cut_off(&mut self, events: &mut Vec<Event>) {
        let unread = self.outbox.waiting_bytes();
        self.end(events);
        self.complaint = Some(format!(
            "it left {unread} bytes of replies unread, the most of the user with the most; all clients together may leave \
             {UNREAD_MAX_BYTES}"
        ));
    }

    /// Whether the outbox holds unsent bytes.
    pub(crate) fn has_unsent(&self) -> bool {
        self.outbox.waiting_bytes() > 0
    }
}

fn refuse(outbox: &mut Outbox, tag: Tag, why: Refusal) {
    let refused = ReplyFrame { tag, reply: Reply::Refused(why) };
    outbox.push(&refused, None).expect("a short refusal fits a frame");
}

#[cfg(test)]
mod tests;
