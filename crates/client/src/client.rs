//! A connected client: one method for each request that has one answer, and the waiting that all others share.
//!
//! Streams (`run`, `wait`, `events`, lists) borrow the client from files of their own. Nothing here decides; each
//! method asks, checks that the answer is one to this question, and hands it over.

use std::time::{Duration, Instant};

use bulkhead_proto::client::{Reply, Request, RequestFrame};
use bulkhead_proto::ids::{JobId, Tag};
use bulkhead_proto::kind::Kind;
use bulkhead_proto::limits::BATCH_MAX;
use bulkhead_proto::outcome;
use bulkhead_proto::refusal::Refusal;
use bulkhead_proto::view::{JobDetail, Status, WorkerRow};

use crate::error::{Error, Fault};
use crate::inbox::{Answer, Arrived, Inbox};
use crate::interrupt::Interrupts;
use crate::output::JobEnd;
use crate::wire::Wire;

/// How long a daemon that owes an answer may say nothing at all.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to a daemon.
#[derive(Debug)]
pub struct Client {
    wire: Wire,
    inbox: Inbox,
    patience: Duration,
}

/// The answer to a ping.
#[derive(Clone, Copy, Debug)]
pub struct Pong {
    /// The daemon's process id.
    pub pid: u32,
    /// From the question to the answer.
    pub round_trip: Duration,
}

/// What became of a cancel, retry or forget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Jobs that were changed.
    pub count: u64,
    /// Why the others were not, one for each.
    pub refused: Vec<Refusal>,
}

/// A daemon that was told to drain.
#[derive(Debug)]
pub struct Draining<'c> {
    client: &'c mut Client,
    tag: Tag,
    left: u64,
}

/// Until when to wait for an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// As long as the connection lives.
    Closed,
    /// Up to this moment.
    Moment(Instant),
    /// Until the daemon has said nothing for the client's patience.
    Silence,
}

impl Client {
    pub(crate) fn new(wire: Wire) -> Self {
        Self { wire, inbox: Inbox::default(), patience: PATIENCE }
    }

    /// How long a daemon that owes an answer may say nothing (30 s unless told).
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// From now on these signals end every wait with [`Error::Interrupted`]. Gives back those of before.
    pub fn set_interrupts(&mut self, interrupts: Option<Interrupts>) -> Option<Interrupts> {
        self.wire.set_interrupts(interrupts)
    }

    /// Asks whether the daemon is there.
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

    /// All about one job.
    ///
    /// # Errors
    /// As every request; refused if no job of this user has this number.
    pub fn job(&mut self, job: JobId) -> Result<JobDetail, Error> {
        match self.ask(Request::Job { job })? {
            Reply::Job(detail) => Ok(*detail),
            other => Err(self.unexpected(&other)),
        }
    }

    /// The result of a job that has ended.
    ///
    /// # Errors
    /// As every request; refused if the job is unknown or has not ended.
    pub fn result(&mut self, job: JobId) -> Result<JobEnd, Error> {
        let mut ends = match self.ask_answer(Request::Result { job })? {
            Answer::Ended(ends) => ends,
            Answer::Plain(other) => return Err(self.unexpected(&other)),
        };
        match (ends.pop(), ends.is_empty()) {
            (Some(end), true) if end.job == job => Ok(end),
            (Some(end), true) => Err(self.wire.give_up(Fault::Job(end.job))),
            (_, _) => Err(self.wire.give_up(Fault::Reply("ended, not with one entry"))),
        }
    }

    /// Ends these jobs without a result.
    ///
    /// # Errors
    /// As every request. Jobs that cannot be cancelled are no error: [`Changed::refused`] has them.
    pub fn cancel(&mut self, jobs: &[JobId]) -> Result<Changed, Error> {
        self.change(jobs, |jobs| Request::Cancel { jobs })
    }

    /// Runs jobs that have ended badly again, with fresh budgets.
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

    /// Tells the daemon to take no new jobs, to end what it has within `grace`, and to stop.
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
                    all.refused.extend(refused);
                }
                other => return Err(self.unexpected(&other)),
            }
        }
        Ok(all)
    }

    /// Sends a request; its tag is open until [`Client::close`].
    pub(crate) fn send(&mut self, request: Request) -> Result<Tag, Error> {
        let tag = self.inbox.open();
        let queued = self.wire.queue(&RequestFrame { tag, request });
        if queued.is_err() {
            self.close(tag);
        }
        queued.map(|()| tag)
    }

    /// Whatever else is answered to this request is dropped.
    pub(crate) fn close(&mut self, tag: Tag) {
        self.inbox.close(tag);
    }

    /// Asks, and waits for the one answer.
    pub(crate) fn ask(&mut self, request: Request) -> Result<Reply, Error> {
        match self.ask_answer(request)? {
            Answer::Plain(reply) => Ok(reply),
            Answer::Ended(_) => Err(self.wire.give_up(Fault::Reply("ended"))),
        }
    }

    fn ask_answer(&mut self, request: Request) -> Result<Answer, Error> {
        let tag = self.send(request)?;
        let received = self.receive(|one| one == tag, Until::Silence);
        self.close(tag);
        match received? {
            Some(Arrived { answer: Answer::Plain(Reply::Refused(refusal)), .. }) => Err(Error::Refused(refusal)),
            Some(arrived) => Ok(arrived.answer),
            None => Err(self.silence()),
        }
    }

    /// The next answer to this request, which is none about ended jobs.
    pub(crate) fn receive_reply(&mut self, tag: Tag, until: Until) -> Result<Reply, Error> {
        match self.receive(|one| one == tag, until)? {
            Some(Arrived { answer: Answer::Plain(reply), .. }) => Ok(reply),
            Some(_) => Err(self.wire.give_up(Fault::Reply("ended"))),
            None => Err(self.silence()),
        }
    }

    /// The next answer to any of the wanted requests; `None` when it does not come in time.
    pub(crate) fn receive(
        &mut self,
        wanted: impl Fn(Tag) -> bool,
        until: Until,
    ) -> Result<Option<Arrived>, Error> {
        if let Some(held) = self.inbox.take(&wanted) {
            return Ok(Some(held));
        }
        let asked = Instant::now();
        loop {
            while let Some(arrived) = self.arrived()? {
                if wanted(arrived.tag) {
                    return Ok(Some(arrived));
                }
                self.inbox.hold(arrived)?;
            }
            let moment = match until {
                Until::Closed => None,
                Until::Moment(moment) => Some(moment),
                Until::Silence => Some(self.wire.last_heard().max(asked) + self.patience),
            };
            if !self.wire.turn(moment)? {
                return Ok(None);
            }
        }
    }

    /// The next reply of what was read, with its descriptors.
    fn arrived(&mut self) -> Result<Option<Arrived>, Error> {
        let Some((frame, bytes)) = self.wire.next_frame()? else { return Ok(None) };
        let answer = match frame.reply {
            Reply::Goodbye(refusal) => return Err(Error::Goodbye(refusal)),
            Reply::Ended(ends) => Answer::Ended(self.with_descriptors(ends)?),
            other => Answer::Plain(other),
        };
        Ok(Some(Arrived { tag: frame.tag, answer, bytes }))
    }

    fn with_descriptors(&mut self, ends: Vec<outcome::Ended>) -> Result<Vec<JobEnd>, Error> {
        let mut received = Vec::with_capacity(ends.len());
        for ended in ends {
            match JobEnd::receive(ended, || self.wire.next_descriptor()) {
                Ok(end) => received.push(end),
                Err(Error::Protocol(fault)) => return Err(self.wire.give_up(fault)),
                Err(other) => return Err(other),
            }
        }
        Ok(received)
    }

    /// The error for a daemon that owes an answer.
    pub(crate) fn silence(&self) -> Error {
        Error::NoReply { waited: self.patience }
    }

    /// The error for a fault that was found beyond the wire; the connection is of no more use.
    pub(crate) fn give_up(&mut self, fault: Fault) -> Error {
        self.wire.give_up(fault)
    }

    /// The error for an answer to another question.
    pub(crate) fn unexpected(&mut self, reply: &Reply) -> Error {
        self.wire.give_up(Fault::Reply(word(reply)))
    }
}

impl Draining<'_> {
    /// Jobs that were still to end when the daemon answered.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Waits until the daemon is gone.
    ///
    /// # Errors
    /// Everything but the end of the connection.
    pub fn wait(self) -> Result<(), Error> {
        loop {
            match self.client.receive_reply(self.tag, Until::Closed) {
                Ok(_) => {}
                Err(Error::Goodbye(_) | Error::Closed { .. }) => return Ok(()),
                Err(other) => return Err(other),
            }
        }
    }
}

fn word(reply: &Reply) -> &'static str {
    match reply {
        Reply::Accepted { .. } => "accepted",
        Reply::Ended(_) => "ended",
        Reply::Refused(_) => "refused",
        Reply::Changed { .. } => "changed",
        Reply::Jobs { .. } => "jobs",
        Reply::Job(_) => "job",
        Reply::Workers(_) => "workers",
        Reply::Status(_) => "status",
        Reply::Kinds(_) => "kinds",
        Reply::Events { .. } => "events",
        Reply::Draining { .. } => "draining",
        Reply::Pong { .. } => "pong",
        Reply::Goodbye(_) => "goodbye",
    }
}
