//! A connected client: it sends requests and waits for their answers.
//!
//! The typed requests stand in `requests.rs`; the streams (`run`, `wait`, `events`, lists) have files of their own and
//! borrow the client. It must never take the answer to one request for the answer to another. Receipts of held results go
//! out with the next request, before the next wait, or when the client is dropped; none has a reply to wait for.

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bulkhead_proto::client::message::{Reply, ReplyFrame, Request, RequestFrame};
use bulkhead_proto::client::outcome;
use bulkhead_proto::ids::Tag;

use crate::error::{Error, ProtocolError};
use crate::file::JobFile;
use crate::frame_halves::{FrameReceiver, FrameSender};
use crate::frame_socket::FrameSocket;
use crate::inbox::{Answer, Inbox, ReceivedReply, bytes_in_arenas};
use crate::interrupt::Interrupts;
use crate::logs::JobLog;
use crate::notices::Notices;
use crate::output::JobEnd;
use crate::receipts::Receipts;

/// How long the daemon may send nothing at all while a request has no answer.
pub(crate) const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// The last number that a client of this process has used. None is used twice: see `session/outbox.rs`.
static LAST_REGISTRATION: AtomicU32 = AtomicU32::new(0);

/// A connection to a daemon.
#[derive(Debug)]
pub struct DaemonClient {
    socket: FrameSocket,
    inbox: Inbox,
    notices: Notices,
    receipts: Receipts,
    reply_timeout: Duration,
}

/// When a wait for an answer ends without one.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Until {
    /// When the connection closes.
    Closed,
    /// At this moment.
    Moment(Instant),
    /// When the daemon has sent nothing for the client's reply timeout.
    Silence,
}

impl DaemonClient {
    pub(crate) fn new(socket: FrameSocket) -> Self {
        Self {
            socket,
            inbox: Inbox::default(),
            notices: Notices::default(),
            receipts: Receipts::default(),
            reply_timeout: REPLY_TIMEOUT,
        }
    }

    /// The number of the next registration.
    pub(crate) fn next_registration() -> u32 {
        LAST_REGISTRATION.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The socket and its halves, and the last tag that was used. The receipt of what was reported goes out first.
    pub(crate) fn into_halves(mut self) -> Result<(UnixStream, FrameSender, FrameReceiver, Tag), Error> {
        self.queue_receipt()?;
        let last = self.inbox.highest();
        let (socket, sender, receiver) = self.socket.take_parts()?;
        Ok((socket, sender, receiver, last))
    }

    /// Sets how long the daemon may send nothing while a request has no answer (30 s by default).
    pub fn set_reply_timeout(&mut self, reply_timeout: Duration) {
        self.reply_timeout = reply_timeout;
    }

    /// Whether the daemon runs as the user of this process. If it does not, its programs have other rights than this
    /// process, and may not be able to enter a folder of ours.
    pub fn has_our_user(&self) -> bool {
        self.socket.peer_uid().is_ok_and(|uid| uid == bulkhead_sys::socket::own_uid())
    }

    /// From now on these signals end every wait with [`Error::Interrupted`]. Returns the ones that were set before.
    pub fn set_interrupts(&mut self, interrupts: Option<Interrupts>) -> Option<Interrupts> {
        self.socket.set_interrupts(interrupts)
    }

    /// From now on calls `hear` with each notice of the daemon. A notice says why jobs that this client waits for do
    /// not start, or that they start again. Notices arrive while the client waits for other replies; without a listener
    /// they are dropped.
    pub fn on_notice(&mut self, hear: impl FnMut(&str) + Send + 'static) {
        self.notices.set(hear);
    }

    /// Reports that every result which held runs on this client have returned so far is where the caller wants it: in a
    /// file, written to a pipe, used. The daemon then forgets them. Nothing is sent yet, and nothing is waited for: the
    /// receipt goes out with the next request, before the next wait, or when this client is dropped.
    pub fn received(&mut self) {
        self.receipts.report();
    }

    /// The caller gets a held end.
    pub(crate) fn returned(&mut self, number: u64) {
        self.receipts.returned(number);
    }

    /// Queues the receipt of what was reported, if it was not sent yet.
    fn queue_receipt(&mut self) -> Result<(), Error> {
        let Some(through) = self.receipts.take() else { return Ok(()) };
        let tag = self.inbox.open();
        self.inbox.close(tag);
        self.socket.queue(&RequestFrame { tag, request: Request::Received { through } }, &[])
    }

    /// Queues the numbers of blocks that were read; `is_due`: also if they are few.
    fn queue_freed(&mut self, is_due: bool) -> Result<(), Error> {
        while let Some(blocks) = self.socket.receiver().freed().take(is_due) {
            let tag = self.inbox.open();
            self.inbox.close(tag);
            self.socket.queue(&RequestFrame { tag, request: Request::Freed { blocks } }, &[])?;
        }
        Ok(())
    }

    /// Queues a request. Its tag stays open until [`DaemonClient::close`].
    pub(crate) fn send(&mut self, request: Request) -> Result<Tag, Error> {
        self.send_with(request, &[])
    }

    /// As [`DaemonClient::send`], with the files of a job.
    pub(crate) fn send_with(&mut self, request: Request, files: &[JobFile]) -> Result<Tag, Error> {
        self.queue_receipt()?;
        self.queue_freed(true)?;
        let tag = self.inbox.open();
        let queued = self.socket.queue(&RequestFrame { tag, request }, files);
        if queued.is_err() {
            self.close(tag);
        }
        queued.map(|()| tag)
    }

    /// Closes a request: further replies to it are dropped.
    pub(crate) fn close(&mut self, tag: Tag) {
        self.inbox.close(tag);
    }

    /// Sends a request that has one answer, and waits for it.
    pub(crate) fn ask(&mut self, request: Request) -> Result<Reply, Error> {
        self.ask_with(request, &[])
    }

    /// As [`DaemonClient::ask`], with the files of a job.
    pub(crate) fn ask_with(&mut self, request: Request, files: &[JobFile]) -> Result<Reply, Error> {
        match self.ask_answer(request, files)? {
            Answer::Plain(reply) => Ok(reply),
            Answer::Ended(_) | Answer::Held(..) => Err(self.socket.give_up(ProtocolError::Reply("ended"))),
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

    /// The next reply to this request, which must not be about ended jobs.
    pub(crate) fn receive_reply(&mut self, tag: Tag, until: Until) -> Result<Reply, Error> {
        match self.receive(|one| one == tag, until)? {
            Some(ReceivedReply { answer: Answer::Plain(reply), .. }) => Ok(reply),
            Some(_) => Err(self.socket.give_up(ProtocolError::Reply("ended"))),
            None => Err(self.silence()),
        }
    }

    /// The next reply to any of the wanted requests; `None` if none arrives in time.
    pub(crate) fn receive(
        &mut self,
        wanted: impl Fn(Tag) -> bool,
        until: Until,
    ) -> Result<Option<ReceivedReply>, Error> {
        if let Some(held) = self.inbox.take(&wanted) {
            return Ok(Some(held));
        }
        self.queue_receipt()?;
        let asked = Instant::now();
        loop {
            self.queue_freed(false)?;
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

    /// The next reply among the bytes that were read, with its descriptors. Notices go to their listener.
    fn arrived(&mut self) -> Result<Option<ReceivedReply>, Error> {
        let (frame, bytes) = loop {
            match self.socket.next_frame()? {
                None => return Ok(None),
                Some((ReplyFrame { reply: Reply::Notice(text), .. }, _)) => self.notices.hear(&text),
                Some(found) => break found,
            }
        };
        let in_arenas = match &frame.reply {
            Reply::Ended(ends) | Reply::Held { ended: ends, .. } => bytes_in_arenas(ends),
            _ => 0,
        };
        let answer = match frame.reply {
            Reply::Goodbye(refusal) => return Err(Error::Goodbye(refusal)),
            Reply::Ended(ends) => Answer::Ended(self.with_descriptors(ends)?),
            Reply::Held { first, ended } => Answer::Held(first, self.with_descriptors(ended)?),
            Reply::Logs { job, attempt, is_there } => {
                let file = if is_there { Some(self.socket.next_descriptor()) } else { None };
                match file {
                    Some(None) => return Err(self.socket.give_up(ProtocolError::NoDescriptor(job))),
                    file => Answer::Log(file.flatten().map(|file| JobLog::new(job, attempt, file))),
                }
            }
            other => Answer::Plain(other),
        };
        Ok(Some(ReceivedReply { tag: frame.tag, answer, bytes: bytes + in_arenas }))
    }

    fn with_descriptors(&mut self, ends: Vec<outcome::JobEnded>) -> Result<Vec<JobEnd>, Error> {
        let mut received = Vec::with_capacity(ends.len());
        for ended in ends {
            match JobEnd::receive(ended, self.socket.receiver()) {
                Ok(end) => received.push(end),
                Err(Error::Protocol(fault)) => return Err(self.socket.give_up(fault)),
                Err(other) => return Err(other),
            }
        }
        self.socket.check_late()?;
        Ok(received)
    }

    /// The error for a daemon that did not answer within the reply timeout.
    pub(crate) fn silence(&self) -> Error {
        Error::NoReply { waited: self.reply_timeout }
    }

    /// The error for a reply that breaks the protocol. The connection cannot be used any more.
    pub(crate) fn give_up(&mut self, fault: ProtocolError) -> Error {
        self.socket.give_up(fault)
    }

    /// The error for a reply of a kind that does not answer its request.
    pub(crate) fn unexpected(&mut self, reply: &Reply) -> Error {
        self.socket.give_up(ProtocolError::Reply(reply_name(reply)))
    }
}

impl Drop for DaemonClient {
    /// Sends the last receipt if the socket takes it. If not, the daemon keeps these results within its bounds.
    fn drop(&mut self) {
        if self.queue_receipt().is_ok() {
            self.socket.send_last();
        }
    }
}

/// The word for a kind of reply.
pub(crate) fn reply_name(reply: &Reply) -> &'static str {
    match reply {
        Reply::Accepted { .. } => "accepted",
        Reply::Progress { .. } => "progress",
        Reply::Ended(_) => "ended",
        Reply::Held { .. } => "held",
        Reply::Logs { .. } => "logs",
        Reply::Unknown(_) => "unknown",
        Reply::Refused(_) => "refused",
        Reply::Changed { .. } => "changed",
        Reply::CancelledWaiting { .. } => "cancelled-waiting",
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
        Reply::Registered { .. } => "registered",
        Reply::Freed { .. } => "freed",
        Reply::ArenaGone { .. } => "arena-gone",
    }
}
