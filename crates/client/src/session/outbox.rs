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
//! cancels. `session.rs` and `session/lead.rs` call it, under its lock.

mod answers;
mod questions;
mod registrations;

use std::collections::{HashMap, HashSet, VecDeque};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Instant;

use bulkhead_proto::client::message::{Request, RequestFrame, Submit};
use bulkhead_proto::ids::{JobId, Tag};
use bulkhead_proto::job::{OutputMode, Payload, Policy};
use bulkhead_proto::limits::{BATCH_MAX, FRAME_MAX_BYTES};

use crate::accepted_batch::AcceptedBatch;
use crate::arena::InputBlock;
use crate::batch::{BATCH_BYTES, JobInput, Spec};
use crate::error::Error;
use crate::file::JobFile;
use crate::frame_halves::FrameSender;
use crate::new_context::uses;
use crate::read_arenas::FreedNumbers;
use crate::run::Window;
use crate::session::{NotSubmitted, SessionEnd, SessionEvent, SessionOptions, SessionQuestion};

pub(super) use answers::HeardReply;

/// No further frame is encoded while so many bytes are not sent.
const UNSENT_MAX_BYTES: usize = FRAME_MAX_BYTES;
/// Submits that wait for their answer: while one does, the next gathers.
const ASKED_MAX: usize = 2;

/// Which jobs a cancel ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum CancelScope {
    /// Those that no worker runs.
    Waiting,
    /// Also those that run.
    All,
}

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

/// A job that is not sent.
#[derive(Debug)]
struct QueuedJob {
    token: u64,
    spec: Arc<Spec>,
    output: OutputMode,
    files: Vec<JobFile>,
    input: Payload,
    block: Option<InputBlock>,
}

impl QueuedJob {
    /// The arena that its input is in.
    fn arena(&self) -> Option<u32> {
        self.block.as_ref().map(InputBlock::arena)
    }
}

/// A submit that was sent.
#[derive(Debug)]
struct SentSubmit {
    spec: Arc<Spec>,
    output: OutputMode,
    tokens: Vec<u64>,
    state: SubmitState,
}

#[derive(Debug)]
enum SubmitState {
    /// It has no answer: what is needed to send it again.
    Asked {
        inputs: Vec<Payload>,
        files: Vec<JobFile>,
        /// The blocks of the inputs, if they are in an arena.
        blocks: Vec<InputBlock>,
    },
    Accepted(AcceptedBatch),
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct SessionOutbox {
    sender: FrameSender,
    options: SessionOptions,
    jobs: HashMap<u64, JobPlace>,
    queue: VecDeque<QueuedJob>,
    /// Bytes of inputs that were not accepted.
    bytes: usize,
    submits: HashMap<Tag, SentSubmit>,
    /// How many of those have no answer.
    asked: usize,
    /// Jobs that were sent and have not ended.
    in_flight: u64,
    /// Those among them with an output in a descriptor.
    with_descriptor: u64,
    cancels: Vec<JobId>,
    waiting_cancels: Vec<JobId>,
    /// Blocks of arenas that were read.
    freed: FreedNumbers,
    told: Vec<SessionEvent>,
    /// The number of the last held end that was told, of the last that the caller has, and of the last receipt that was sent.
    held_through: u64,
    receipt: u64,
    receipt_sent: u64,
    /// Cancels without an answer.
    cancelling: HashSet<Tag>,
    /// Since when the daemon has sent nothing, or the first request without an answer was made.
    silent_since: Instant,
    /// The blocks of accepted jobs that a worker may read.
    blocks: HashMap<JobId, InputBlock>,
    /// Registrations that have no answer.
    registering: HashMap<Tag, u32>,
    /// Those that the daemon has not taken.
    not_registered: Vec<u32>,
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
            jobs: HashMap::new(),
            queue: VecDeque::new(),
            bytes: 0,
            submits: HashMap::new(),
            asked: 0,
            in_flight: 0,
            with_descriptor: 0,
            cancels: Vec::new(),
            waiting_cancels: Vec::new(),
            freed: FreedNumbers::default(),
            told: Vec::new(),
            cancelling: HashSet::new(),
            silent_since: Instant::now(),
            held_through: 0,
            receipt: 0,
            receipt_sent: 0,
            blocks: HashMap::new(),
            registering: HashMap::new(),
            not_registered: Vec::new(),
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

    /// Queues a job.
    pub(super) fn push(&mut self, token: u64, spec: &Arc<Spec>, input: JobInput) -> Result<(), NotSubmitted> {
        if self.is_closed {
            return Err(NotSubmitted::Closed);
        }
        let SessionOptions { jobs_max, bytes_max, .. } = self.options;
        if self.jobs.len() >= jobs_max {
            return Err(NotSubmitted::Full { input, limit: jobs_max, of_bytes: false });
        }
        if self.bytes > 0 && self.bytes + input.bytes.len() > bytes_max {
            return Err(NotSubmitted::Full { input, limit: bytes_max, of_bytes: true });
        }
        if self.jobs.contains_key(&token) {
            return Err(NotSubmitted::TokenInUse { token });
        }
        let JobInput { bytes, output, files, block } = input;
        let input = Payload::from(block.as_ref().map_or(bytes, |block| block.to_input().to_vec()));
        if !input.fits() {
            return Err(NotSubmitted::TooLong { bytes: input.as_bytes().len() });
        }
        self.bytes += input.as_bytes().len();
        self.jobs.insert(token, JobPlace::Queued);
        self.queue.push_back(QueuedJob { token, spec: Arc::clone(spec), output, files, input, block });
        Ok(())
    }

    /// Queues jobs, all or none.
    pub(super) fn push_all(
        &mut self,
        spec: &Arc<Spec>,
        jobs: Vec<(u64, JobInput)>,
    ) -> Result<(), NotSubmitted> {
        let before = self.queue.len();
        for (token, input) in jobs {
            if let Err(why) = self.push(token, spec, input) {
                for queued in self.queue.drain(before..) {
                    self.jobs.remove(&queued.token);
                    self.bytes -= queued.input.as_bytes().len();
                }
                return Err(why);
            }
        }
        Ok(())
    }

    /// Cancels jobs. It drops a submit that was not sent, and cancels one without an answer when the daemon has accepted it.
    pub(super) fn cancel(&mut self, tokens: &[u64], scope: CancelScope) {
        let mut is_withdrawn = false;
        for token in tokens {
            match self.jobs.get_mut(token) {
                Some(place @ JobPlace::Queued) => {
                    *place = JobPlace::Told;
                    is_withdrawn = true;
                    self.told.push(SessionEvent::Job { token: *token, end: SessionEnd::Withdrawn });
                }
                Some(JobPlace::Asked { wish }) => *wish = (*wish).max(Some(scope)),
                Some(JobPlace::Accepted { job, wish }) if *wish < Some(scope) => {
                    *wish = Some(scope);
                    let job = *job;
                    self.cancel_list(scope).push(job);
                }
                Some(JobPlace::Accepted { .. } | JobPlace::Told) | None => {}
            }
        }
        if is_withdrawn {
            let jobs = &self.jobs;
            let mut freed = 0;
            self.queue.retain(|queued| {
                let stays = matches!(jobs.get(&queued.token), Some(JobPlace::Queued));
                freed += if stays { 0 } else { queued.input.as_bytes().len() };
                stays
            });
            self.bytes -= freed;
        }
    }

    /// Blocks of arenas were read.
    pub(super) fn free(&mut self, freed: &mut FreedNumbers) {
        self.freed.append(freed);
    }

    fn cancel_list(&mut self, scope: CancelScope) -> &mut Vec<JobId> {
        match scope {
            CancelScope::All => &mut self.cancels,
            CancelScope::Waiting => &mut self.waiting_cancels,
        }
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
        let encoded = if !self.cancels.is_empty() {
            let jobs = first_of(&mut self.cancels);
            self.encode_cancel(now, Request::Cancel { jobs })
        } else if !self.waiting_cancels.is_empty() {
            let jobs = first_of(&mut self.waiting_cancels);
            self.encode_cancel(now, Request::CancelWaiting { jobs })
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

    fn encode_cancel(&mut self, now: Instant, request: Request) -> Result<(), Error> {
        self.asks(now);
        let encoded = self.encode(request);
        self.cancelling.insert(self.last);
        encoded
    }

    fn encode(&mut self, request: Request) -> Result<(), Error> {
        let tag = self.next_tag();
        self.sender.queue(&RequestFrame { tag, request }, &[])
    }

    fn next_tag(&mut self) -> Tag {
        self.last.0 = self.last.0.checked_add(1).expect("a connection does not live for 4 billion requests");
        self.last
    }

    fn may_submit(&mut self, now: Instant) -> bool {
        if self.not_before.is_some_and(|moment| moment <= now) {
            self.not_before = None;
        }
        let Some(next) = self.queue.front() else { return false };
        let (all, own) = (Window::of(OutputMode::Inline), Window::of(next.output));
        let has_room = self.in_flight + own.batch <= all.unended
            && (next.output != OutputMode::Descriptor || self.with_descriptor + own.batch <= own.unended);
        self.not_before.is_none() && self.asked < ASKED_MAX && has_room
    }

    /// Encodes a submit of the first job and of those behind it that can share its request.
    fn encode_submit(&mut self) -> Result<(), Error> {
        let Some(first) = self.queue.pop_front() else { return Ok(()) };
        let arena = first.arena();
        let QueuedJob { token, spec, output, files, input, block } = first;
        let jobs_max = usize::try_from(Window::of(output).batch).unwrap_or(BATCH_MAX);
        let mut bytes = input.as_bytes().len();
        let (mut tokens, mut inputs) = (vec![token], vec![input]);
        let mut blocks: Vec<InputBlock> = block.into_iter().collect();
        while inputs.len() < jobs_max
            && bytes < BATCH_BYTES
            && files.is_empty()
            && let Some(next) = self.next_like(&spec, output, arena)
        {
            bytes += next.input.as_bytes().len();
            tokens.push(next.token);
            inputs.push(next.input);
            blocks.extend(next.block);
        }
        for token in &tokens {
            self.jobs.insert(*token, JobPlace::Asked { wish: None });
        }
        self.note_sent(output, tokens.len());
        let submit = Submit {
            kind: spec.kind.clone(),
            policy: Policy { output, ..spec.policy.clone() },
            attached: true,
            held: self.options.held,
            progress: self.options.progress,
            flavour: spec.flavour,
            files: files.iter().map(JobFile::to_use).collect(),
            registered: uses(arena, &spec.contexts),
            inputs,
        };
        let frame = RequestFrame { tag: self.next_tag(), request: Request::Submit(submit) };
        let queued = self.sender.queue(&frame, &files);
        let Request::Submit(Submit { inputs, .. }) = frame.request else { return Ok(()) };
        let state = SubmitState::Asked { inputs, files, blocks };
        self.submits.insert(frame.tag, SentSubmit { spec, output, tokens, state });
        self.asked += 1;
        queued
    }

    /// Takes the first queued job if it can share a request with others of this spec, output and arena.
    fn next_like(&mut self, spec: &Arc<Spec>, output: OutputMode, arena: Option<u32>) -> Option<QueuedJob> {
        let next = self.queue.front()?;
        let is_like = next.output == output
            && next.files.is_empty()
            && next.arena() == arena
            && Arc::ptr_eq(&next.spec, spec);
        if is_like { self.queue.pop_front() } else { None }
    }

    fn note_sent(&mut self, output: OutputMode, count: usize) {
        self.in_flight += count as u64;
        if output == OutputMode::Descriptor {
            self.with_descriptor += count as u64;
        }
    }

    fn note_back(&mut self, output: OutputMode, count: usize) {
        self.in_flight -= count as u64;
        if output == OutputMode::Descriptor {
            self.with_descriptor -= count as u64;
        }
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
        self.cancels.clear();
        self.waiting_cancels.clear();
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
