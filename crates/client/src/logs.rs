//! Reads the logs of jobs: files that the workers fill while the jobs run.
//!
//! The daemon passes a descriptor and never reads the log itself. The client reads it by position and checks every
//! block, because a hostile worker may have written anything. A write to a memfd wakes no reader, so a followed log is
//! read every [`LOOK_EVERY`] while its job runs; the daemon reports the end of the job.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::ids::{JobId, Tag};
use bulkhead_proto::log::{LogFound, LogReader};

use crate::client::{DaemonClient, Until};
use crate::error::{Error, ProtocolError};
use crate::inbox::{Answer, ReceivedReply};
use crate::output::JobEnd;

/// How often a followed log is read.
pub const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The log of one attempt of a job.
#[derive(Debug)]
pub struct JobLog {
    /// The job.
    pub job: JobId,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    file: File,
    reader: LogReader,
}

/// One step of reading a log.
#[derive(Debug)]
pub enum LogItem {
    /// The entries that follow are from the log of this attempt.
    Attempt(u32),
    /// A new entry, or a gap.
    Found(LogFound),
    /// The job has ended; this is the last item.
    Ended(JobEnd),
}

impl JobLog {
    /// The log whose descriptor arrived with a reply.
    pub(crate) fn new(job: JobId, attempt: u32, file: OwnedFd) -> Self {
        Self { job, attempt, file: File::from(file), reader: LogReader::default() }
    }

    /// Calls `each` with every entry that was written since the last call.
    ///
    /// # Errors
    /// [`Error::Callback`] with the error of `each`; [`Error::Io`] if the log cannot be read.
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
    /// Calls `each` with the number of a job's latest attempt, then with every entry of its log so far.
    ///
    /// # Errors
    /// As every request; refused if the job is unknown or has no log. [`Error::Callback`] with the error of `each`.
    pub fn log(&mut self, job: JobId, each: &mut dyn FnMut(LogItem) -> io::Result<()>) -> Result<(), Error> {
        match self.ask_answer(Request::Logs { job, follow: false }, &[])? {
            Answer::Log(Some(mut log)) if log.job == job => {
                each(LogItem::Attempt(log.attempt)).map_err(Error::Callback)?;
                log.look(each)
            }
            Answer::Held(..) => Err(self.give_up(ProtocolError::Reply("held"))),
            Answer::Log(None) => {
                let why = "there is no log of it at the moment: try again".to_owned();
                Err(Error::Refused(Refusal::NoLog { job, why }))
            }
            Answer::Log(Some(other)) => Err(self.give_up(ProtocolError::Job(other.job))),
            Answer::Plain(other) => Err(self.unexpected(&other)),
            Answer::Ended(_) => Err(self.give_up(ProtocolError::Reply("ended"))),
        }
    }

    /// Calls `each` with the entries of a job's log until the job has ended: of the current attempt and all later ones.
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
            let arrived = self.receive(|tag| tag == logs || tag == ends, until);
            // Entries that were written before this reply, or before the end of the daemon, come before it.
            if let Some(log) = &mut log {
                log.look(each)?;
            }
            match arrived?.map(|ReceivedReply { answer, .. }| answer) {
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
                Some(Answer::Held(..)) => return Err(self.give_up(ProtocolError::Reply("held"))),
                Some(Answer::Plain(Reply::Refused(refusal))) => return Err(Error::Refused(refusal)),
                Some(Answer::Plain(Reply::Unknown(unknown))) => {
                    let gone = unknown.refusals().next();
                    return Err(gone.map_or_else(
                        || self.unexpected(&Reply::Unknown(unknown)),
                        |(_, refusal)| Error::Refused(refusal),
                    ));
                }
                Some(Answer::Plain(other)) => return Err(self.unexpected(&other)),
            }
        }
    }
}
