//! What the daemon's replies make of the jobs of a session: accepted, queued again, refused, ended.
//!
//! A reply that fits no request, or a job that ended twice, is a fault of the protocol. `session/lead.rs` passes the replies on
//! in the order in which they came, under the lock of the outbox.

use std::sync::Arc;
use std::time::Instant;

use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::refusal::{Refusal, UnknownJobs};
use bulkhead_proto::ids::{JobId, Tag};
use bulkhead_proto::job::{OutputMode, Payload};

use super::submits::{QueuedJob, SentSubmit, SubmitState};
use super::{JobPlace, SessionOutbox};
use crate::accepted_batch::AcceptedBatch;
use crate::arena::InputBlock;
use crate::batch::Spec;
use crate::error::{Error, ProtocolError};
use crate::file::JobFile;
use crate::output::JobEnd;
use crate::session::{SessionAnswer, SessionEnd, SessionEvent};
use crate::submit::retry_after;

/// A reply, with its descriptors where they belong.
#[derive(Debug)]
pub(in crate::session) enum HeardReply {
    Accepted {
        first: JobId,
        count: u32,
        refused: Option<Refusal>,
    },
    Refused(Refusal),
    Ended(Vec<JobEnd>),
    /// The same, of results that the daemon keeps up to this number.
    Held {
        through: u64,
        ends: Vec<JobEnd>,
    },
    Progress {
        job: JobId,
        done: u64,
        total: u64,
    },
    Unknown(UnknownJobs),
    /// A cancel is done; these jobs go on.
    Cancelled(Vec<JobId>),
    Registered(u32),
    Freed(Vec<JobId>),
    Notice(String),
    Answer(SessionAnswer),
}

impl SentSubmit {
    /// The token of a job of it that has not ended.
    fn token_of(&self, job: JobId) -> Option<u64> {
        let SubmitState::Accepted(batch) = &self.state else { return None };
        let place = batch.index_of(job).filter(|_| !batch.has_ended(job))?;
        self.tokens.get(usize::try_from(place).ok()?).copied()
    }
}

/// A job that was not accepted: its token, its input, and the block of that.
type RefusedJob = (u64, Payload, Option<InputBlock>);

impl SessionOutbox {
    /// A request is made that has an answer.
    pub(super) fn asks(&mut self, now: Instant) {
        if !self.owes_answer() {
            self.silent_since = now;
        }
    }

    /// Whether a request has no answer yet. The ends of accepted jobs are no answers.
    fn owes_answer(&self) -> bool {
        self.asked + self.cancels.unanswered() + self.registrations.unanswered() + self.questioned.len() > 0
    }

    /// The daemon has sent something.
    pub(in crate::session) fn note_sign_of_life(&mut self) {
        self.silent_since = Instant::now();
    }

    /// When the daemon has been silent for too long, if it owes an answer.
    pub(in crate::session) fn silent_until(&self) -> Option<Instant> {
        self.owes_answer().then(|| self.silent_since.checked_add(self.options.reply_timeout)).flatten()
    }

    /// Nothing has come by now: the connection cannot be used any more if that is too long.
    pub(in crate::session) fn judge_silence(&mut self) {
        if self.silent_until().is_some_and(|until| until <= Instant::now()) {
            self.fail(Error::NoReply { waited: self.options.reply_timeout });
        }
    }

    /// The caller has the results up to this number.
    pub(in crate::session) fn received(&mut self, through: u64) {
        if through <= self.held_through {
            self.receipt = self.receipt.max(through);
        }
    }

    /// The receipt to send, if there is a new one; it counts as sent.
    pub(super) fn take_receipt(&mut self) -> Option<u64> {
        let is_new = self.receipt > self.receipt_sent;
        self.receipt_sent = self.receipt;
        is_new.then_some(self.receipt)
    }

    /// Takes a reply.
    pub(in crate::session) fn hear(
        &mut self,
        tag: Tag,
        reply: HeardReply,
        events: &mut Vec<SessionEvent>,
    ) -> Result<(), Error> {
        if let HeardReply::Notice(text) = reply {
            events.push(SessionEvent::Notice(text));
            return Ok(());
        }
        if let HeardReply::Freed(jobs) = &reply {
            for job in jobs {
                self.blocks.remove(job);
            }
            return Ok(());
        }
        if tag <= self.base {
            return Ok(());
        }
        if tag > self.last {
            return Err(ProtocolError::Tag(tag).into());
        }
        match reply {
            HeardReply::Accepted { first, count, refused } => {
                self.answered(tag, (first, count, refused), events)
            }
            HeardReply::Refused(refusal) if self.submits.contains_key(&tag) => {
                self.answered(tag, (JobId(0), 0, Some(refusal)), events)
            }
            HeardReply::Ended(ends) => {
                let ends = ends.into_iter().map(|end| (end.job, SessionEnd::Ended(end)));
                self.ended(tag, ends, events)
            }
            HeardReply::Held { through, ends } => self.held(tag, through, ends, events),
            HeardReply::Progress { job, done, total } => {
                let token = self.submits.get(&tag).and_then(|submit| submit.token_of(job));
                events.extend(token.map(|token| SessionEvent::Progress { token, job, done, total }));
                Ok(())
            }
            HeardReply::Unknown(unknown) => {
                let ends = unknown.refusals().map(|(job, why)| (job, SessionEnd::Refused(why)));
                self.ended(tag, ends, events)
            }
            // For the others the events of the jobs say what became of them.
            HeardReply::Cancelled(running) => {
                self.cancelled(tag, &running, events);
                Ok(())
            }
            HeardReply::Registered(number) if self.registrations.taken(tag) == Some(number) => Ok(()),
            HeardReply::Refused(refusal) if self.registrations.is_asked(tag) => {
                let number = self.registrations.refused(tag);
                events.extend(number.map(|number| SessionEvent::NotRegistered { number, refusal }));
                Ok(())
            }
            HeardReply::Answer(answer) => self.answer(tag, answer, events),
            HeardReply::Refused(refusal) if self.questioned.contains_key(&tag) => {
                self.answer(tag, SessionAnswer::Refused(refusal), events)
            }
            HeardReply::Registered(_) | HeardReply::Freed(_) => {
                Err(ProtocolError::Reply("registered").into())
            }
            HeardReply::Refused(_) => {
                // Of a cancel, of a forget, or of the drop of a registration.
                self.cancelled(tag, &[], events);
                Ok(())
            }
            HeardReply::Notice(_) => Ok(()),
        }
    }

    /// Ends whose results the daemon keeps up to this number.
    fn held(
        &mut self,
        tag: Tag,
        through: u64,
        ends: Vec<JobEnd>,
        events: &mut Vec<SessionEvent>,
    ) -> Result<(), Error> {
        let ends = ends.into_iter().map(|end| (end.job, SessionEnd::Ended(end)));
        self.ended(tag, ends, events)?;
        self.held_through = self.held_through.max(through);
        events.push(SessionEvent::Held { through });
        Ok(())
    }

    /// The answer to a cancel: these jobs run on.
    fn cancelled(&mut self, tag: Tag, running: &[JobId], events: &mut Vec<SessionEvent>) {
        self.cancels.answered(tag);
        let token_of = |job: &JobId| self.submits.values().find_map(|submit| submit.token_of(*job));
        events.extend(running.iter().filter_map(token_of).map(|token| SessionEvent::RunsOn { token }));
    }

    /// The answer to a submit.
    fn answered(
        &mut self,
        tag: Tag,
        (first, count, refused): (JobId, u32, Option<Refusal>),
        events: &mut Vec<SessionEvent>,
    ) -> Result<(), Error> {
        let Some(SentSubmit { spec, output, mut tokens, state }) = self.submits.remove(&tag) else {
            return Err(ProtocolError::Reply("accepted twice").into());
        };
        let SubmitState::Asked { mut inputs, files, mut blocks } = state else {
            return Err(ProtocolError::Reply("accepted twice").into());
        };
        self.asked -= 1;
        let asked = tokens.len();
        let accepted = usize::try_from(count).ok().filter(|count| {
            (*count == asked || *count < asked && refused.is_some()) && first.0 <= u64::MAX - asked as u64
        });
        let Some(accepted) = accepted else {
            return Err(ProtocolError::Count { asked, answered: u64::from(count) }.into());
        };
        self.note_back(output, asked - accepted);
        // All inputs of a submit are in its arena, or none.
        let mut left = blocks.drain(accepted.min(blocks.len())..);
        let rest = tokens.drain(accepted..).zip(inputs.drain(accepted..));
        let rest: Vec<RefusedJob> = rest.map(|(token, input)| (token, input, left.next())).collect();
        drop(left);
        self.blocks.extend((first.0..).map(JobId).zip(blocks));
        self.bytes -= inputs.iter().map(|input| input.as_bytes().len()).sum::<usize>();
        for (token, job) in tokens.iter().zip(first.0..) {
            self.accepted(*token, JobId(job));
        }
        if accepted > 0 {
            let state = SubmitState::Accepted(AcceptedBatch::new(0, first.0, accepted));
            self.submits.insert(tag, SentSubmit { spec: Arc::clone(&spec), output, tokens, state });
        }
        if let Some(refusal) = refused {
            self.refused(rest, (&spec, output, files), refusal, events);
        }
        Ok(())
    }

    fn accepted(&mut self, token: u64, job: JobId) {
        let Some(place) = self.jobs.get_mut(&token) else { return };
        let JobPlace::Asked { wish } = *place else { return };
        *place = JobPlace::Accepted { job, wish };
        if let Some(scope) = wish {
            self.cancels.add(job, scope);
        }
    }

    /// Jobs that were not accepted: they are queued again if the daemon is busy, unless they were cancelled meanwhile.
    fn refused(
        &mut self,
        rest: Vec<RefusedJob>,
        (spec, output, files): (&Arc<Spec>, OutputMode, Vec<JobFile>),
        refusal: Refusal,
        events: &mut Vec<SessionEvent>,
    ) {
        let wait = retry_after(&refusal).filter(|_| self.options.wait_when_busy);
        if let Some(wait) = wait {
            self.not_before = Some(Instant::now() + wait);
        }
        for (token, input, block) in rest.into_iter().rev() {
            let is_wished = matches!(self.jobs.get(&token), Some(JobPlace::Asked { wish: Some(_) }));
            if wait.is_some() && !is_wished {
                self.jobs.insert(token, JobPlace::Queued);
                let (spec, files) = (Arc::clone(spec), files.clone());
                self.queue.push_front(QueuedJob { token, spec, output, files, input, block });
                continue;
            }
            self.bytes -= input.as_bytes().len();
            self.jobs.remove(&token);
            let end = if is_wished { SessionEnd::Withdrawn } else { SessionEnd::Refused(refusal.clone()) };
            events.push(SessionEvent::Job { token, end });
        }
    }

    fn ended(
        &mut self,
        tag: Tag,
        ends: impl Iterator<Item = (JobId, SessionEnd)>,
        events: &mut Vec<SessionEvent>,
    ) -> Result<(), Error> {
        let Some(SentSubmit { output, tokens, state: SubmitState::Accepted(batch), .. }) =
            self.submits.get_mut(&tag)
        else {
            return Err(ProtocolError::Reply("ended before accepted").into());
        };
        let mut count = 0;
        for (job, end) in ends {
            let place = batch.end(job).and_then(|place| usize::try_from(place).ok());
            let Some(token) = place.and_then(|place| tokens.get(place).copied()) else {
                return Err(ProtocolError::Job(job).into());
            };
            self.jobs.remove(&token);
            if !self.blocks.is_empty() && frees_block(&end) {
                self.blocks.remove(&job);
            }
            count += 1;
            events.push(SessionEvent::Job { token, end });
        }
        let (output, is_over) = (*output, batch.is_over());
        self.note_back(output, count);
        if is_over {
            self.submits.remove(&tag);
        }
        Ok(())
    }
}

/// Whether the end of a job says that no worker can read its block any more: the worker has reported it. Else the daemon says so.
fn frees_block(end: &SessionEnd) -> bool {
    match end {
        SessionEnd::Ended(end) => matches!(end.outcome, Outcome::Done | Outcome::Failed { .. }),
        SessionEnd::Refused(_) | SessionEnd::Withdrawn | SessionEnd::Lost => false,
    }
}
