//! The cancels of a session: what was not sent is withdrawn here, what was accepted is named in a request.
//!
//! A job without an answer keeps the wish until the daemon has accepted it. Called as `outbox.rs`, under its lock.

use std::collections::HashSet;
use std::time::Instant;

use bulkhead_proto::client::message::Request;
use bulkhead_proto::ids::{JobId, Tag};

use super::{JobPlace, SessionOutbox, first_of};
use crate::error::Error;
use crate::session::{SessionEnd, SessionEvent};

/// Which jobs a cancel ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::session) enum CancelScope {
    /// Those that no worker runs.
    Waiting,
    /// Also those that run.
    All,
}

/// Cancels that were not sent, or have no answer.
#[derive(Debug, Default)]
pub(super) struct CancelRequests {
    all: Vec<JobId>,
    waiting: Vec<JobId>,
    /// Those without an answer.
    unanswered: HashSet<Tag>,
}

impl CancelRequests {
    /// Has a job named in the next request of this scope.
    pub(super) fn add(&mut self, job: JobId, scope: CancelScope) {
        match scope {
            CancelScope::All => self.all.push(job),
            CancelScope::Waiting => self.waiting.push(job),
        }
    }

    /// The next request to send.
    pub(super) fn next(&mut self) -> Option<Request> {
        if !self.all.is_empty() {
            return Some(Request::Cancel { jobs: first_of(&mut self.all) });
        }
        (!self.waiting.is_empty()).then(|| Request::CancelWaiting { jobs: first_of(&mut self.waiting) })
    }

    /// The answer to a request has come, if it was a cancel.
    pub(super) fn answered(&mut self, tag: Tag) {
        self.unanswered.remove(&tag);
    }

    /// How many requests have no answer.
    pub(super) fn unanswered(&self) -> usize {
        self.unanswered.len()
    }
}

impl SessionOutbox {
    /// Cancels jobs. It drops a submit that was not sent, and cancels one without an answer when the daemon has accepted it.
    pub(in crate::session) fn cancel(&mut self, tokens: &[u64], scope: CancelScope) {
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
                    self.cancels.add(*job, scope);
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

    pub(super) fn encode_cancel(&mut self, now: Instant, request: Request) -> Result<(), Error> {
        self.asks(now);
        let encoded = self.encode(request);
        self.cancels.unanswered.insert(self.last);
        encoded
    }
}
