//! The requests that have one answer, as typed methods.
//!
//! Each method sends its request, checks that the reply is of the right kind and about the right job, and returns it.
//! No method decides anything.

use std::time::{Duration, Instant};

use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::refusal::{Refusal, RefusedJobs};
use bulkhead_proto::client::view::{DeathRow, JobDetail, Status, WorkerRow};
use bulkhead_proto::client::why::Why;
use bulkhead_proto::ids::{JobId, Tag};
use bulkhead_proto::kind::Kind;
use bulkhead_proto::limits::BATCH_MAX;

use crate::client::{DaemonClient, Until};
use crate::error::{Error, ProtocolError};
use crate::inbox::Answer;
use crate::output::JobEnd;

/// The answer to a ping.
#[derive(Clone, Copy, Debug)]
pub struct Pong {
    /// The daemon's process id.
    pub pid: u32,
    /// The time from the request to the reply.
    pub round_trip: Duration,
}

/// The result of a cancel, retry or forget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// How many jobs were changed.
    pub count: u64,
    /// Why each of the other jobs was not changed.
    pub refused: Vec<Refusal>,
}

/// What became of jobs that were to be ended if they wait. Each job is in one of the three.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CancelledWaiting {
    /// Jobs that were ended: no worker ran them.
    pub ended: Vec<JobId>,
    /// Jobs that go on, because they have begun.
    pub running: Vec<JobId>,
    /// Why each of the other jobs was not ended.
    pub refused: Vec<Refusal>,
}

/// A daemon that drains.
#[derive(Debug)]
pub struct Draining<'c> {
    client: &'c mut DaemonClient,
    tag: Tag,
    left: u64,
}

impl DaemonClient {
    /// Checks that the daemon answers.
    ///
    /// # Errors
    /// As every request: [`Error`] if the daemon refuses, is gone, silent, or breaks the protocol.
    pub fn ping(&mut self) -> Result<Pong, Error> {
        let asked = Instant::now();
        match self.ask(Request::Ping)? {
            Reply::Pong { pid } => Ok(Pong { pid, round_trip: asked.elapsed() }),
            other => Err(self.unexpected(&other)),
        }
    }

    /// The daemon's own state.
    ///
    /// # Errors
    /// As every request.
    pub fn status(&mut self) -> Result<Status, Error> {
        match self.ask(Request::Status)? {
            Reply::Status(status) => Ok(*status),
            other => Err(self.unexpected(&other)),
        }
    }

    /// The workers, in the order of their numbers.
    ///
    /// # Errors
    /// As every request.
    pub fn workers(&mut self) -> Result<Vec<WorkerRow>, Error> {
        match self.ask(Request::Workers)? {
            Reply::Workers(rows) => Ok(rows),
            other => Err(self.unexpected(&other)),
        }
    }

    /// The last deaths that were charged to jobs, newest first, at most `limit` of them.
    ///
    /// # Errors
    /// As every request.
    pub fn deaths(&mut self, limit: u32) -> Result<Vec<DeathRow>, Error> {
        match self.ask(Request::Deaths { limit })? {
            Reply::Deaths(rows) => Ok(rows),
            other => Err(self.unexpected(&other)),
        }
    }

    /// The kinds that the daemon offers.
    ///
    /// # Errors
    /// As every request.
    pub fn kinds(&mut self) -> Result<Vec<Kind>, Error> {
        match self.ask(Request::Kinds)? {
            Reply::Kinds(kinds) => Ok(kinds),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Everything that the daemon knows about one job.
    ///
    /// # Errors
    /// As every request; refused if this user has no job with this number.
    pub fn job(&mut self, job: JobId) -> Result<JobDetail, Error> {
        match self.ask(Request::Job { job })? {
            Reply::Job(detail) => Ok(*detail),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Why a job waits, is retried, or ended as it did.
    ///
    /// # Errors
    /// As every request; refused if the job never existed, belongs to another user, or was forgotten.
    pub fn why(&mut self, job: JobId) -> Result<Why, Error> {
        match self.ask(Request::Why { job })? {
            Reply::Why(why) if why.job == job => Ok(*why),
            Reply::Why(why) => Err(self.give_up(ProtocolError::Job(why.job))),
            other => Err(self.unexpected(&other)),
        }
    }

    /// The result of a job that has ended.
    ///
    /// # Errors
    /// As every request; refused if the job is unknown or has not ended.
    pub fn result(&mut self, job: JobId) -> Result<JobEnd, Error> {
        let mut ends = match self.ask_answer(Request::Result { job }, &[])? {
            Answer::Ended(ends) => ends,
            Answer::Plain(other) => return Err(self.unexpected(&other)),
            Answer::Held(..) => return Err(self.give_up(ProtocolError::Reply("held"))),
            Answer::Log(_) => return Err(self.give_up(ProtocolError::Reply("logs"))),
        };
        match (ends.pop(), ends.is_empty()) {
            (Some(end), true) if end.job == job => Ok(end),
            (Some(end), true) => Err(self.give_up(ProtocolError::Job(end.job))),
            (_, _) => Err(self.give_up(ProtocolError::Reply("ended, not with one entry"))),
        }
    }

    /// Ends these jobs without a result.
    ///
    /// # Errors
    /// As every request. Jobs that cannot be cancelled are no error: [`Changed::refused`] has them.
    pub fn cancel(&mut self, jobs: &[JobId]) -> Result<Changed, Error> {
        self.change(jobs, |jobs| Request::Cancel { jobs })
    }

    /// Ends those of these jobs that no worker runs; what has begun goes on.
    ///
    /// # Errors
    /// As every request. Jobs that cannot be ended are no error: [`CancelledWaiting::refused`] has them.
    pub fn cancel_waiting(&mut self, jobs: &[JobId]) -> Result<CancelledWaiting, Error> {
        let mut all = CancelledWaiting::default();
        for some in jobs.chunks(BATCH_MAX) {
            match self.ask(Request::CancelWaiting { jobs: some.to_vec() })? {
                Reply::CancelledWaiting { ended, running, refused } => {
                    all.ended.extend(ended);
                    all.running.extend(running);
                    all.refused.extend(refused.iter().flat_map(RefusedJobs::refusals));
                }
                other => return Err(self.unexpected(&other)),
            }
        }
        Ok(all)
    }

    /// Runs jobs again that did not end `done`, with fresh budgets.
    ///
    /// # Errors
    /// As every request. Jobs that cannot be retried are no error: [`Changed::refused`] has them.
    pub fn retry(&mut self, jobs: &[JobId]) -> Result<Changed, Error> {
        self.change(jobs, |jobs| Request::Retry { jobs })
    }

    /// Drops ended jobs with their results and evidence.
    ///
    /// # Errors
    /// As every request. Jobs that cannot be forgotten are no error: [`Changed::refused`] has them.
    pub fn forget(&mut self, jobs: &[JobId]) -> Result<Changed, Error> {
        self.change(jobs, |jobs| Request::Forget { jobs })
    }

    /// Asks the daemon to accept no new jobs, to finish the accepted ones within `grace`, and to stop.
    ///
    /// # Errors
    /// As every request; refused if the user is no administrator.
    pub fn drain(&mut self, grace: Option<Duration>) -> Result<Draining<'_>, Error> {
        let grace_ms = grace.map(|grace| u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
        let tag = self.send(Request::Drain { grace_ms })?;
        match self.receive_reply(tag, Until::Silence)? {
            Reply::Draining { left } => Ok(Draining { client: self, tag, left }),
            Reply::Refused(refusal) => Err(Error::Refused(refusal)),
            other => Err(self.unexpected(&other)),
        }
    }

    fn change(&mut self, jobs: &[JobId], request: impl Fn(Vec<JobId>) -> Request) -> Result<Changed, Error> {
        let mut all = Changed::default();
        for some in jobs.chunks(BATCH_MAX) {
            match self.ask(request(some.to_vec()))? {
                Reply::Changed { count, refused } => {
                    all.count += u64::from(count);
                    all.refused.extend(refused.iter().flat_map(RefusedJobs::refusals));
                }
                other => return Err(self.unexpected(&other)),
            }
        }
        Ok(all)
    }
}

impl Draining<'_> {
    /// How many jobs had not ended when the daemon answered.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Waits until the daemon is gone. Returns how many jobs were lost; `None` if the daemon ended without saying so.
    ///
    /// # Errors
    /// Any error but the end of the connection.
    pub fn wait(self) -> Result<Option<u64>, Error> {
        let mut said = None;
        loop {
            match self.client.receive_reply(self.tag, Until::Closed) {
                Ok(Reply::Drained { lost }) => said = Some(lost),
                Ok(_) => {}
                Err(Error::Goodbye(_) | Error::Closed { .. }) => return Ok(said),
                Err(other) => return Err(other),
            }
        }
    }
}
