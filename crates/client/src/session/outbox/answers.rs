//! What the daemon's replies make of the jobs of a session: accepted, queued again, refused, ended.
//!
//! A reply that fits no request, or a job that ended twice, is a fault of the protocol. `session/lead.rs` passes the replies on
//! in the order in which they came, under the lock of the outbox.

use std::sync::Arc;
use std::time::Instant;

use bulkhead_proto::client::refusal::{Refusal, UnknownJobs};
use bulkhead_proto::ids::{JobId, Tag};
use bulkhead_proto::job::{OutputMode, Payload};

use super::{JobPlace, QueuedJob, SentSubmit, SessionOutbox, SubmitState};
use crate::accepted_batch::AcceptedBatch;
use crate::batch::Spec;
use crate::error::{Error, ProtocolError};
use crate::file::JobFile;
use crate::output::JobEnd;
use crate::session::{SessionEnd, SessionEvent};
use crate::submit::retry_after;

/// A reply, with its descriptors where they belong.
#[derive(Debug)]
pub(in crate::session) enum HeardReply {
    Accepted { first: JobId, count: u32, refused: Option<Refusal> },
    Refused(Refusal),
    Ended(Vec<JobEnd>),
    Unknown(UnknownJobs),
    Cancelled,
    Notice(String),
}

impl SessionOutbox {
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
            HeardReply::Unknown(unknown) => {
                let ends = unknown.refusals().map(|(job, why)| (job, SessionEnd::Refused(why)));
                self.ended(tag, ends, events)
            }
            // Answers to cancels: the events of the jobs say what became of them.
            HeardReply::Cancelled | HeardReply::Refused(_) | HeardReply::Notice(_) => Ok(()),
        }
    }

    /// The answer to a submit.
    fn answered(
        &mut self,
        tag: Tag,
        (first, count, refused): (JobId, u32, Option<Refusal>),
        events: &mut Vec<SessionEvent>,
    ) -> Result<(), Error> {
        let Some(SentSubmit { spec, output, mut tokens, state: SubmitState::Asked { mut inputs, files } }) =
            self.submits.remove(&tag)
        else {
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
        let rest: Vec<(u64, Payload)> = tokens.drain(accepted..).zip(inputs.drain(accepted..)).collect();
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
            self.cancel_list(scope).push(job);
        }
    }

    /// Jobs that were not accepted: they are queued again if the daemon is busy, unless they were cancelled meanwhile.
    fn refused(
        &mut self,
        rest: Vec<(u64, Payload)>,
        (spec, output, files): (&Arc<Spec>, OutputMode, Vec<JobFile>),
        refusal: Refusal,
        events: &mut Vec<SessionEvent>,
    ) {
        let wait = retry_after(&refusal).filter(|_| self.options.wait_when_busy);
        if let Some(wait) = wait {
            self.not_before = Some(Instant::now() + wait);
        }
        for (token, input) in rest.into_iter().rev() {
            let is_wished = matches!(self.jobs.get(&token), Some(JobPlace::Asked { wish: Some(_) }));
            if wait.is_some() && !is_wished {
                self.jobs.insert(token, JobPlace::Queued);
                let (spec, files) = (Arc::clone(spec), files.clone());
                self.queue.push_front(QueuedJob { token, spec, output, files, input });
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
