//! What a session asks beside its jobs: one job, the workers, the state of the daemon; and where a job is.
//!
//! A question is queued, sent, answered. Each has one answer: that of the daemon, or that the connection ended before.
//! Called as `outbox.rs`, under its lock.

use std::time::Instant;

use bulkhead_proto::client::message::Request;
use bulkhead_proto::ids::{JobId, Tag};

use super::{JobPlace, SessionOutbox};
use crate::error::{Error, ProtocolError};
use crate::session::{SessionAnswer, SessionEvent, SessionQuestion};

impl SessionOutbox {
    /// The number of a job that was accepted and has not ended.
    pub(in crate::session) fn job_of(&self, token: u64) -> Option<JobId> {
        match self.jobs.get(&token)? {
            JobPlace::Accepted { job, .. } => Some(*job),
            JobPlace::Queued | JobPlace::Asked { .. } | JobPlace::Told => None,
        }
    }

    /// Whether the event of this token is to come.
    pub(in crate::session) fn is_open(&self, token: u64) -> bool {
        self.jobs.contains_key(&token)
    }

    /// Queues a question.
    pub(in crate::session) fn ask(&mut self, question: u64, about: SessionQuestion) -> Result<(), Error> {
        if self.is_closed {
            return Err(Error::Closed { in_a_frame: false });
        }
        self.questions.push_back((question, about));
        Ok(())
    }

    /// The daemon is to drop these jobs, which have ended.
    pub(in crate::session) fn forget(&mut self, jobs: &[JobId]) {
        if !self.is_closed {
            self.forgets.extend(jobs);
        }
    }

    pub(super) fn encode_question(
        &mut self,
        now: Instant,
        question: u64,
        about: SessionQuestion,
    ) -> Result<(), Error> {
        self.asks(now);
        let encoded = self.encode(match about {
            SessionQuestion::Job(job) => Request::Job { job },
            SessionQuestion::Workers => Request::Workers,
            SessionQuestion::Status => Request::Status,
        });
        self.questioned.insert(self.last, question);
        encoded
    }

    /// The answer to a question.
    pub(super) fn answer(
        &mut self,
        tag: Tag,
        answer: SessionAnswer,
        events: &mut Vec<SessionEvent>,
    ) -> Result<(), Error> {
        let question = self.questioned.remove(&tag).ok_or(ProtocolError::Reply("answered unasked"))?;
        events.push(SessionEvent::Answer { question, answer });
        Ok(())
    }

    /// The connection has ended: nothing is answered any more.
    pub(super) fn lose_answers(&mut self, events: &mut Vec<SessionEvent>) {
        self.forgets.clear();
        let unsent = self.questions.drain(..).map(|(question, _)| question);
        let unanswered = unsent.chain(self.questioned.drain().map(|(_, question)| question));
        events.extend(
            unanswered.map(|question| SessionEvent::Answer { question, answer: SessionAnswer::Lost }),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame_halves::FrameSender;
    use crate::session::SessionOptions;

    #[test]
    fn a_session_that_is_closed_keeps_nothing_to_forget() {
        let mut outbox = SessionOutbox::new(FrameSender::default(), Tag(0), SessionOptions::default());
        outbox.forget(&[JobId(1), JobId(2)]);
        assert_eq!(outbox.forgets, [JobId(1), JobId(2)]);
        outbox.lose(&mut Vec::new());
        outbox.forget(&[JobId(3)]);
        assert!(outbox.forgets.is_empty(), "no turn would ever send it");
    }
}
