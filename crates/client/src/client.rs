//! A connected client: sending requests, and the waiting for answers that all of them share.
//!
//! The requests themselves, typed, stand in `requests`; streams (`run`, `wait`, `events`, lists) have files of their
//! own and borrow the client. It must never take an answer for that of another question.

use std::time::{Duration, Instant};

use bulkhead_proto::client::message::{Reply, ReplyFrame, Request, RequestFrame};
use bulkhead_proto::client::outcome;
use bulkhead_proto::ids::Tag;

use crate::error::{Error, ProtocolError};
use crate::file::JobFile;
use crate::frame_socket::FrameSocket;
use crate::inbox::{Answer, Inbox, ReceivedReply};
use crate::interrupt::Interrupts;
use crate::logs::JobLog;
use crate::notices::Notices;
use crate::output::JobEnd;

/// How long a daemon that owes an answer may say nothing at all.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection to a daemon.
#[derive(Debug)]
pub struct DaemonClient {
    socket: FrameSocket,
    inbox: Inbox,
    notices: Notices,
    reply_timeout: Duration,
}

/// Until when to wait for an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// As long as the connection lives.
    Closed,
    /// Up to this moment.
    Moment(Instant),
    /// Until the daemon has said nothing for the client's reply_timeout.
    Silence,
}

impl DaemonClient {
    pub(crate) fn new(socket: FrameSocket) -> Self {
        Self { socket, inbox: Inbox::default(), notices: Notices::default(), reply_timeout: REPLY_TIMEOUT }
    }

    /// How long a daemon that owes an answer may say nothing (30 s unless told).
    pub fn set_reply_timeout(&mut self, reply_timeout: Duration) {
        self.reply_timeout = reply_timeout;
    }

    /// From now on these signals end every wait with [`Error::Interrupted`]. Gives back those of before.
    pub fn set_interrupts(&mut self, interrupts: Option<Interrupts>) -> Option<Interrupts> {
        self.socket.set_interrupts(interrupts)
    }

    /// From now on `hear` is called with each notice of the daemon: why jobs that this client waits for do not start,
    /// or that they do again. They arrive while it waits for something else; without this they are dropped.
    pub fn on_notice(&mut self, hear: impl FnMut(&str) + Send + 'static) {
        self.notices.set(hear);
    }

    /// Sends a request; its tag is open until [`DaemonClient::close`].
    pub(crate) fn send(&mut self, request: Request) -> Result<Tag, Error> {
        self.send_with(request, &[])
    }

    /// As [`DaemonClient::send`], with files.
    pub(crate) fn send_with(&mut self, request: Request, files: &[JobFile]) -> Result<Tag, Error> {
        let tag = self.inbox.open();
        let queued = self.socket.queue(&RequestFrame { tag, request }, files);
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
        self.ask_with(request, &[])
    }

    /// As [`DaemonClient::ask`], with files.
    pub(crate) fn ask_with(&mut self, request: Request, files: &[JobFile]) -> Result<Reply, Error> {
        match self.ask_answer(request, files)? {
            Answer::Plain(reply) => Ok(reply),
            Answer::Ended(_) => Err(self.socket.give_up(ProtocolError::Reply("ended"))),
            Answer::Log(_) => Err(self.socket.give_up(ProtocolError::Reply("logs"))),
        }
    }

    pub(crate) fn ask_answer(&mut self, request: Request, files: &[JobFile]) -> Result<Answer, Error> {
        let tag = self.send_with(request, files)?;
        let received = self.receive(|one| one == tag, Until::Silence);
        self.close(tag);
        match received? {
            Some(ReceivedReply { answer: Answer::Plain(Reply::Refused(refusal)), .. }) => {
                Err(Error::Refused(refusal))
            }
            Some(arrived) => Ok(arrived.answer),
            None => Err(self.silence()),
        }
    }

    /// The next answer to this request, which is none about ended jobs.
    pub(crate) fn receive_reply(&mut self, tag: Tag, until: Until) -> Result<Reply, Error> {
        match self.receive(|one| one == tag, until)? {
            Some(ReceivedReply { answer: Answer::Plain(reply), .. }) => Ok(reply),
            Some(_) => Err(self.socket.give_up(ProtocolError::Reply("ended"))),
            None => Err(self.silence()),
        }
    }

    /// The next answer to any of the wanted requests; `None` when it does not come in time.
    pub(crate) fn receive(
        &mut self,
        wanted: impl Fn(Tag) -> bool,
        until: Until,
    ) -> Result<Option<ReceivedReply>, Error> {
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
                Until::Silence => Some(self.socket.last_heard().max(asked) + self.reply_timeout),
            };
            if !self.socket.turn(moment)? {
                return Ok(None);
            }
        }
    }

    /// The next reply of what was read, with its descriptors. Notices are heard on the way.
    fn arrived(&mut self) -> Result<Option<ReceivedReply>, Error> {
        let (frame, bytes) = loop {
            match self.socket.next_frame()? {
                None => return Ok(None),
                Some((ReplyFrame { reply: Reply::Notice(text), .. }, _)) => self.notices.hear(&text),
                Some(found) => break found,
            }
        };
        let answer = match frame.reply {
            Reply::Goodbye(refusal) => return Err(Error::Goodbye(refusal)),
            Reply::Ended(ends) => Answer::Ended(self.with_descriptors(ends)?),
            Reply::Logs { job, attempt, is_there } => {
                let file = if is_there { Some(self.socket.next_descriptor()) } else { None };
                match file {
                    Some(None) => return Err(self.socket.give_up(ProtocolError::NoDescriptor(job))),
                    file => Answer::Log(file.flatten().map(|file| JobLog::new(job, attempt, file))),
                }
            }
            other => Answer::Plain(other),
        };
        Ok(Some(ReceivedReply { tag: frame.tag, answer, bytes }))
    }

    fn with_descriptors(&mut self, ends: Vec<outcome::Ended>) -> Result<Vec<JobEnd>, Error> {
        let mut received = Vec::with_capacity(ends.len());
        for ended in ends {
            match JobEnd::receive(ended, || self.socket.next_descriptor()) {
                Ok(end) => received.push(end),
                Err(Error::Protocol(fault)) => return Err(self.socket.give_up(fault)),
                Err(other) => return Err(other),
            }
        }
        Ok(received)
    }

    /// The error for a daemon that owes an answer.
    pub(crate) fn silence(&self) -> Error {
        Error::NoReply { waited: self.reply_timeout }
    }

    /// The error for a fault that was found beyond the wire; the connection is of no more use.
    pub(crate) fn give_up(&mut self, fault: ProtocolError) -> Error {
        self.socket.give_up(fault)
    }

    /// The error for an answer to another question.
    pub(crate) fn unexpected(&mut self, reply: &Reply) -> Error {
        self.socket.give_up(ProtocolError::Reply(reply_name(reply)))
    }
}

fn reply_name(reply: &Reply) -> &'static str {
    match reply {
        Reply::Accepted { .. } => "accepted",
        Reply::Progress { .. } => "progress",
        Reply::Ended(_) => "ended",
        Reply::Logs { .. } => "logs",
        Reply::Refused(_) => "refused",
        Reply::Changed { .. } => "changed",
        Reply::Jobs { .. } => "jobs",
        Reply::Job(_) => "job",
        Reply::Why(_) => "why",
        Reply::Deaths(_) => "deaths",
        Reply::Workers(_) => "workers",
        Reply::Status(_) => "status",
        Reply::Kinds(_) => "kinds",
        Reply::Events { .. } => "events",
        Reply::Draining { .. } => "draining",
        Reply::Drained { .. } => "drained",
        Reply::Pong { .. } => "pong",
        Reply::Goodbye(_) => "goodbye",
        Reply::Notice(_) => "notice",
    }
}
