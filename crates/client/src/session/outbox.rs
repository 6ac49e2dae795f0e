//! The jobs of a session, from their submit to their event, and the requests that carry them.
//!
//! | a job, by its token | leaves it when |
//! |---|---|
//! | queued | it is sent; it is withdrawn by a cancel; the connection ends |
//! | asked | the daemon accepts it, refuses it, or is busy (queued again); the connection ends |
//! | accepted | its end arrives; the connection ends |
//! | told | the leader returns its one event: the token is free again |
//!
//! It sends what the socket takes and waits for nothing. Bounds: `jobs_max` and
//! `bytes_max` of the options; at most [`UNSENT_MAX_BYTES`] and one frame more are encoded; a job is named in at most two
//! cancels. `outbox/submits.rs` has how jobs come in and go out, `outbox/answers.rs` what replies make of them. `session.rs` and
//! `session/lead.rs` call it, under its lock.

mod answers;
mod cancels;
mod questions;
mod registrations;
mod submits;

use std::collections::{HashMap, VecDeque};
use std::os::fd::BorrowedFd;
use std::time::Instant;

use bulkhead_proto::client::message::{Request, RequestFrame};
use bulkhead_proto::ids::{JobId, Tag};
use bulkhead_proto::limits::{BATCH_MAX, FRAME_MAX_BYTES};

use crate::arena::InputBlock;
use crate::error::Error;
use crate::frame_halves::FrameSender;
use crate::read_arenas::FreedNumbers;
use crate::session::number_map::NumberMap;
use crate::session::{SessionEnd, SessionEvent, SessionOptions, SessionQuestion};

pub(super) use answers::HeardReply;
pub(super) use cancels::CancelScope;
pub(super) use submits::NewJobs;

use cancels::CancelRequests;
use registrations::SessionRegistrations;
use submits::{QueuedJob, SentSubmit};

/// No further frame is encoded while so many bytes are not sent.
const UNSENT_MAX_BYTES: usize = FRAME_MAX_BYTES;
/// Where a job is.
#[derive(Clone, Copy, Debug)]
enum JobPlace {
    Queued,
    Asked {
        wish: Option<CancelScope>,
    },
    Accepted {
        job: JobId,
        wish: Option<CancelScope>,
    },
    /// Its event waits for the leader.
    Told,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct SessionOutbox {
    sender: FrameSender,
    options: SessionOptions,
    jobs: NumberMap<u64, JobPlace>,
    queue: VecDeque<QueuedJob>,
    /// Bytes of inputs that were not accepted.
    bytes: usize,
    submits: NumberMap<Tag, SentSubmit>,
    /// How many of those have no answer.
    asked: usize,
    /// Jobs that were sent and have not ended.
    in_flight: u64,
    /// Those among them with an output in a descriptor.
    with_descriptor: u64,
    cancels: CancelRequests,
    /// Blocks of arenas that were read.
    freed: FreedNumbers,
    told: Vec<SessionEvent>,
    /// The number of the last held end that was told, of the last that the caller has, and of the last receipt that was sent.
    held_through: u64,
    receipt: u64,
    receipt_sent: u64,
    /// Since when the daemon has sent nothing, or the first request without an answer was made.
    silent_since: Instant,
    /// The blocks of accepted jobs that a worker may read.
    blocks: NumberMap<JobId, InputBlock>,
    registrations: SessionRegistrations,
    /// Questions that were not sent, with their numbers, and the numbers of those without an answer.
    questions: VecDeque<(u64, SessionQuestion)>,
    questioned: HashMap<Tag, u64>,
    /// Ended jobs that the daemon is to drop.
    forgets: Vec<JobId>,
    /// Replies to requests up to this one are dropped: the client had sent them.
    base: Tag,
    last: Tag,
    not_before: Option<Instant>,
    fault: Option<Error>,
    is_closed: bool,
    /// Threads that wait for room.
    pub(super) room_waiters: usize,
}

impl SessionOutbox {
    /// Nothing is under way; `last` is the last tag that was used.
    pub(super) fn new(sender: FrameSender, last: Tag, options: SessionOptions) -> Self {
        Self {
            sender,
            options,
            jobs: NumberMap::default(),
            queue: VecDeque::new(),
            bytes: 0,
            submits: NumberMap::default(),
            asked: 0,
            in_flight: 0,
            with_descriptor: 0,
            cancels: CancelRequests::default(),
            freed: FreedNumbers::default(),
            told: Vec::new(),
            silent_since: Instant::now(),
            held_through: 0,
            receipt: 0,
            receipt_sent: 0,
            blocks: NumberMap::default(),
            registrations: SessionRegistrations::default(),
            questions: VecDeque::new(),
            questioned: HashMap::new(),
            forgets: Vec::new(),
            base: last,
            last,
            not_before: None,
            fault: None,
            is_closed: false,
            room_waiters: 0,
        }
    }

    /// Whether nothing is under way, so that the caller may send by itself.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.queue.is_empty() && self.sender.unsent_bytes() == 0
    }

    /// Whether something waits for a turn of the leader: jobs or bytes that are not sent, or a fault.
    pub(super) fn needs_leader(&self) -> bool {
        !self.queue.is_empty() || self.sender.unsent_bytes() > 0 || self.fault.is_some()
    }

    /// Jobs whose events were not returned.
    pub(super) fn jobs(&self) -> usize {
        self.jobs.len()
    }

    /// Whether a further job would be refused.
    pub(super) fn is_full(&self) -> bool {
        !self.is_closed && (self.jobs.len() >= self.options.jobs_max || self.bytes >= self.options.bytes_max)
    }

    /// Until when a busy daemon wants no submit, if one waits for it.
    pub(super) fn not_before(&self) -> Option<Instant> {
        self.not_before.filter(|_| !self.queue.is_empty())
    }

    /// Blocks of arenas were read.
    pub(super) fn free(&mut self, freed: &mut FreedNumbers) {
        self.freed.append(freed);
    }

    /// Encodes what may be sent now, and sends what the socket takes. Gives whether something is left to be sent.
    pub(super) fn flush(&mut self, socket: BorrowedFd<'_>, now: Instant) -> bool {
        loop {
            let mut is_new = false;
            while self.sender.unsent_bytes() < UNSENT_MAX_BYTES && self.encode_next(now) {
                is_new = true;
            }
            if let Err(fault) = self.sender.send(socket) {
                self.fail(fault);
            }
            if !is_new || self.sender.unsent_bytes() > 0 {
                break;
            }
        }
        self.sender.unsent_bytes() > 0
    }

    fn encode_next(&mut self, now: Instant) -> bool {
        if self.is_closed || self.fault.is_some() {
            return false;
        }
        let encoded = if let Some(request) = self.cancels.next() {
            self.encode_cancel(now, request)
        } else if let Some(through) = self.take_receipt() {
            self.encode(Request::Received { through })
        } else if let Some(blocks) = self.freed.take(false) {
            self.encode(Request::Freed { blocks })
        } else if !self.forgets.is_empty() {
            let jobs = first_of(&mut self.forgets);
            self.encode(Request::Forget { jobs })
        } else if let Some((question, about)) = self.questions.pop_front() {
            self.encode_question(now, question, about)
        } else if self.may_submit(now) {
            self.asks(now);
            // The daemon has then freed them before the jobs are offered.
            let freed = self.freed.take(true);
            freed
                .map_or(Ok(()), |blocks| self.encode(Request::Freed { blocks }))
                .and_then(|()| self.encode_submit())
        } else {
            return false;
        };
        encoded.map_err(|fault| self.fail(fault)).is_ok()
    }

    fn encode(&mut self, request: Request) -> Result<(), Error> {
        let tag = self.next_tag();
        self.sender.queue(&RequestFrame { tag, request }, &[])
    }

    fn next_tag(&mut self) -> Tag {
        self.last.0 = self.last.0.checked_add(1).expect("a connection does not live for 4 billion requests");
        self.last
    }

    /// The connection cannot be used any more: the next look of the leader tells so.
    pub(super) fn fail(&mut self, fault: Error) {
        if !self.is_closed {
            self.fault.get_or_insert(fault);
        }
    }

    /// The error that ended the connection, once; then that it is closed.
    pub(super) fn take_fault(&mut self) -> Option<Error> {
        let closed = self.is_closed.then_some(Error::Closed { in_a_frame: false });
        self.fault.take().or(closed)
    }

    /// Events that were made by other threads.
    pub(super) fn tell(&mut self, events: &mut Vec<SessionEvent>) {
        for event in &self.told {
            if let SessionEvent::Job { token, .. } = event {
                self.jobs.remove(token);
            }
        }
        events.append(&mut self.told);
    }

    /// The connection has ended: every job is lost.
    pub(super) fn lose(&mut self, events: &mut Vec<SessionEvent>) {
        self.is_closed = true;
        self.sender.forget();
        self.queue.clear();
        self.submits.clear();
        self.cancels = CancelRequests::default();
        self.registrations.lose_answers();
        self.blocks.clear();
        self.lose_answers(events);
        (self.asked, self.in_flight, self.with_descriptor, self.bytes) = (0, 0, 0, 0);
        let lost = std::mem::take(&mut self.jobs).into_keys();
        events.extend(lost.map(|token| SessionEvent::Job { token, end: SessionEnd::Lost }));
    }
}

/// Takes as many of these jobs as one request may have.
fn first_of(jobs: &mut Vec<JobId>) -> Vec<JobId> {
    let rest = jobs.split_off(jobs.len().min(BATCH_MAX));
    std::mem::replace(jobs, rest)
}
