//! What jobs write, read from their logs: files that their workers fill while they run.
//!
//! The daemon hands over a descriptor and knows nothing of what is in it; it is read here by position, and what a
//! hostile worker may have written into it does no harm. A log that is followed is looked at every
//! [`LOOK_EVERY`] while its job runs: nobody could tell more cheaply that a byte was written.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::ids::{JobId, Tag};
use bulkhead_proto::log::{Found, Reader};

use crate::client::{DaemonClient, Until};
use crate::error::{Error, ProtocolError};
use crate::inbox::{Answer, ReceivedReply};
use crate::output::JobEnd;

/// How often a log that is followed is looked at.
pub const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The log of one attempt of a job.
#[derive(Debug)]
pub struct JobLog {
    /// Whose it is.
    pub job: JobId,
    /// Which attempt, from 1.
    pub attempt: u32,
    file: File,
    reader: Reader,
}

/// Something that a reader of logs is told.
#[derive(Debug)]
pub enum LogItem {
    /// From here on it is the log of this attempt.
    Attempt(u32),
    /// What is new in it.
    Found(Found),
    /// The job has ended: nothing more comes.
    Ended(JobEnd),
}

impl JobLog {
    /// The log that came with a reply.
    pub(crate) fn new(job: JobId, attempt: u32, file: OwnedFd) -> Self {
        Self { job, attempt, file: File::from(file), reader: Reader::default() }
    }

    /// Hands over what is new since the last look.
    ///
    /// # Errors
    /// [`Error::Callback`] with that of `each`; [`Error::Io`]: the descriptor is none that can be read.
    pub fn look(&mut self, each: &mut dyn FnMut(LogItem) -> io::Result<()>) -> Result<(), Error> {
        let (file, mut refused) = (&self.file, None);
        let read = self.reader.read(
            |at, into| file.read_exact_at(into, at),
            |found| {
                each(LogItem::Found(found)).map_err(|error| {
                    let kind = error.kind();
                    refused = Some(error);
                    kind.into()
                })
            },
        );
        refused.map_or(read.map_err(Error::Io), |error| Err(Error::Callback(error)))
    }
}

impl DaemonClient {
    /// Hands over what the latest attempt of a job has written so far, the attempt's number first.
    ///
    /// # Errors
    /// As every request; refused if the job is unknown or has no log. [`Error::Callback`] with that of `each`.
    pub fn log(&mut self, job: JobId, each: &mut dyn FnMut(LogItem) -> io::Result<()>) -> Result<(), Error> {
        match self.ask_answer(Request::Logs { job, follow: false }, &[])? {
            Answer::Log(Some(mut log)) if log.job == job => {
                each(LogItem::Attempt(log.attempt)).map_err(Error::Callback)?;
                log.look(each)
            }
            Answer::Log(None) => {
                let why = "there is no log of it at the moment: try again".to_owned();
                Err(Error::Refused(Refusal::NoLog { job, why }))
            }
            Answer::Log(Some(other)) => Err(self.give_up(ProtocolError::Job(other.job))),
            Answer::Plain(other) => Err(self.unexpected(&other)),
            Answer::Ended(_) => Err(self.give_up(ProtocolError::Reply("ended"))),
        }
    }

    /// Hands over what a job writes until it has ended, in all attempts from the one that runs now.
    ///
    /// # Errors
    /// As [`DaemonClient::log`]; [`Error::Interrupted`].
    pub fn follow_log(
        &mut self,
        job: JobId,
        each: &mut dyn FnMut(LogItem) -> io::Result<()>,
    ) -> Result<(), Error> {
        let logs = self.send(Request::Logs { job, follow: true })?;
        let ends = self.send(Request::Wait { jobs: vec![job] })?;
        let followed = self.follow_both(logs, ends, each);
        self.close(logs);
        self.close(ends);
        followed
    }

    fn follow_both(
        &mut self,
        logs: Tag,
        ends: Tag,
        each: &mut dyn FnMut(LogItem) -> io::Result<()>,
    ) -> Result<(), Error> {
        let mut log: Option<JobLog> = None;
        loop {
            let until =
                if log.is_some() { Until::Moment(Instant::now() + LOOK_EVERY) } else { Until::Closed };
            let arrived = self.receive(|tag| tag == logs || tag == ends, until)?;
            // What was written before something came belongs before it.
            if let Some(log) = &mut log {
                log.look(each)?;
            }
            match arrived.map(|ReceivedReply { answer, .. }| answer) {
                None => {}
                Some(Answer::Log(None)) => {}
                Some(Answer::Log(Some(next))) => {
                    each(LogItem::Attempt(next.attempt)).map_err(Error::Callback)?;
                    log.insert(next).look(each)?;
                }
                Some(Answer::Ended(ended)) => {
                    return ended
                        .into_iter()
                        .try_for_each(|end| each(LogItem::Ended(end)).map_err(Error::Callback));
                }
                Some(Answer::Plain(Reply::Refused(refusal))) => return Err(Error::Refused(refusal)),
                Some(Answer::Plain(other)) => return Err(self.unexpected(&other)),
            }
        }
    }
}
