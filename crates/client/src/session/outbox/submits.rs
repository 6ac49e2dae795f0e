//! The submits of a session: jobs are taken into its queue, all of one call or none, and leave it in requests that several share.
//!
//! Called as `outbox.rs`, under its lock.

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Instant;

use bulkhead_proto::client::message::{Request, RequestFrame, Submit};
use bulkhead_proto::job::{OutputMode, Payload, Policy};
use bulkhead_proto::limits::{BATCH_MAX, INLINE_MAX_BYTES};
use bulkhead_proto::registration::ArenaBlock;

use super::{JobPlace, SessionOutbox};
use crate::accepted_batch::AcceptedBatch;
use crate::arena::InputBlock;
use crate::batch::{BATCH_BYTES, JobInput, Spec};
use crate::error::Error;
use crate::file::JobFile;
use crate::new_context::uses;
use crate::run::Window;
use crate::session::{NotSubmitted, SessionOptions, SubmitFault};

/// Submits that wait for their answer: while one does, the next gathers.
const ASKED_MAX: usize = 2;

/// The jobs of one call with their tokens: one job, or many.
pub(in crate::session) trait NewJobs:
    AsRef<[(u64, JobInput)]> + IntoIterator<Item = (u64, JobInput)> + Into<Vec<(u64, JobInput)>>
{
}

impl<T> NewJobs for T where
    T: AsRef<[(u64, JobInput)]> + IntoIterator<Item = (u64, JobInput)> + Into<Vec<(u64, JobInput)>>
{
}

/// A job that is not sent.
#[derive(Debug)]
pub(super) struct QueuedJob {
    pub(super) token: u64,
    pub(super) spec: Arc<Spec>,
    pub(super) output: OutputMode,
    pub(super) files: Vec<JobFile>,
    pub(super) input: Payload,
    pub(super) block: Option<InputBlock>,
}

impl QueuedJob {
    fn new(token: u64, spec: &Arc<Spec>, input: JobInput) -> Self {
        let JobInput { bytes, output, files, block } = input;
        let input = Payload::from(block.as_ref().map_or(bytes, |block| block.to_input().to_vec()));
        Self { token, spec: Arc::clone(spec), output, files, input, block }
    }

    /// The arena that its input is in.
    fn arena(&self) -> Option<u32> {
        self.block.as_ref().map(InputBlock::arena)
    }
}

/// A submit that was sent.
#[derive(Debug)]
pub(super) struct SentSubmit {
    pub(super) spec: Arc<Spec>,
    pub(super) output: OutputMode,
    pub(super) tokens: Vec<u64>,
    pub(super) state: SubmitState,
}

#[derive(Debug)]
pub(super) enum SubmitState {
    /// It has no answer: what is needed to send it again.
    Asked {
        inputs: Vec<Payload>,
        files: Vec<JobFile>,
        /// The blocks of the inputs, if they are in an arena.
        blocks: Vec<InputBlock>,
    },
    Accepted(AcceptedBatch),
}

impl SessionOutbox {
    /// Queues jobs, all or none.
    pub(in crate::session) fn push(
        &mut self,
        spec: &Arc<Spec>,
        jobs: impl NewJobs,
    ) -> Result<(), NotSubmitted> {
        let mut bytes = self.bytes;
        for (place, (token, input)) in jobs.as_ref().iter().enumerate() {
            if let Err(why) = self.take_token(*token, input, &mut bytes) {
                for (token, _) in &jobs.as_ref()[..place] {
                    self.jobs.remove(token);
                }
                return Err(NotSubmitted { why, jobs: jobs.into() });
            }
        }
        self.bytes = bytes;
        self.queue.extend(jobs.into_iter().map(|(token, input)| QueuedJob::new(token, spec, input)));
        Ok(())
    }

    /// Enters a job under its token, and adds the bytes of its input to `bytes`, unless it cannot be submitted.
    fn take_token(&mut self, token: u64, input: &JobInput, bytes: &mut usize) -> Result<(), SubmitFault> {
        if self.is_closed {
            return Err(SubmitFault::Closed);
        }
        let SessionOptions { jobs_max, bytes_max, .. } = self.options;
        if self.jobs.len() >= jobs_max {
            return Err(SubmitFault::Full { limit: jobs_max, of_bytes: false });
        }
        let length = input.block.as_ref().map_or(input.bytes.len(), |_| ArenaBlock::BYTES);
        if *bytes > 0 && *bytes + length > bytes_max {
            return Err(SubmitFault::Full { limit: bytes_max, of_bytes: true });
        }
        if length > INLINE_MAX_BYTES {
            return Err(SubmitFault::TooLong { bytes: length });
        }
        match self.jobs.entry(token) {
            Entry::Occupied(_) => return Err(SubmitFault::TokenInUse { token }),
            Entry::Vacant(place) => place.insert(JobPlace::Queued),
        };
        *bytes += length;
        Ok(())
    }

    pub(super) fn may_submit(&mut self, now: Instant) -> bool {
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
    pub(super) fn encode_submit(&mut self) -> Result<(), Error> {
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
            // A request of a session has jobs of several calls, which no key of a caller names.
            durable: None,
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

    pub(super) fn note_back(&mut self, output: OutputMode, count: usize) {
        self.in_flight -= count as u64;
        if output == OutputMode::Descriptor {
            self.with_descriptor -= count as u64;
        }
    }
}
