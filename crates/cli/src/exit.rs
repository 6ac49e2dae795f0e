//! Turns an error into an exit code and one line on stderr. The codes stand in `proto::client::exit`. The end of the daemon
//! has one code for each thing that a command may be waiting for, whatever its verb:
//!
//! | the daemon ends while the command waits for | verbs | code |
//! |---|---|---|
//! | the ends of jobs | `run`, `wait`, `logs --follow` | 122, by [`while_waiting`] |
//! | that very end | `drain` | 0 if no job was left, else 122, by the verb itself |
//! | an answer, or events | all others, `events --follow` too | 69, by [`report`] |
//!
//! A daemon that ends in order gives each job its outcome `lost` before, which has the same code 122.
//!
//! A closed stdout (`bulkhead run ... | head`) ends the command quietly, with the code that a shell reports for a
//! process that SIGPIPE killed; as for any Unix tool it counts only under `pipefail`. Jobs that were accepted before
//! stay accepted. Driven by `main.rs`.

use std::fmt;
use std::io;

use bulkhead_client::{ConnectFailure, Error, NotPlaced};
use bulkhead_proto::client::exit::{BUSY, CANCELLED, DONE, FAILED, LOST, NO_DAEMON, PIPE, USAGE};
use bulkhead_proto::client::refusal::Refusal;

use crate::plural;
use crate::stdio::say;
use crate::write_wait;

/// The table of exit codes that `bulkhead --help` prints.
pub(crate) const TABLE: &str = "\
Exit codes (for several jobs: that of the first, in the order given, that was not done;
an exec job that failed gives its program's own code, 128 + n if signal n killed it, 126 and 127 if it cannot be run):
    0  done
    1  failed: a job's own code reported a failure, or the daemon refused the request
    2  usage: the command line is wrong, no job was submitted
   69  no daemon answered
   75  busy: the daemon is full or draining, try again later
  122  lost: the service stopped before the job ended; of `drain`: before all had ended
  123  expired: the job waited longer than its --expires
  124  timed out: the job ran longer than its limit
  125  crashed: the job killed its workers and is quarantined
  130  cancelled: the job, or this command, was cancelled
  141  the reader of standard output closed it; accepted jobs stay accepted";

/// The command line is wrong in a way that clap does not check.
#[derive(Debug)]
pub(crate) struct UsageError(pub(crate) String);

impl fmt::Display for UsageError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// The connection ended while this command waited for jobs. Their ends will never arrive.
#[derive(Debug)]
struct JobsLost {
    /// How many jobs; 0 if the daemon had accepted none yet.
    jobs: u64,
    /// Why the connection ended.
    error: Error,
}

impl fmt::Display for JobsLost {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.jobs {
            0 => write!(out, "the jobs were not accepted yet: {}", self.error),
            jobs => write!(out, "{} had not ended: {}", plural::count(jobs, "job"), self.error),
        }
    }
}

impl std::error::Error for JobsLost {}

/// Turns the end of a connection on which a command waited for so many jobs into [`JobsLost`]; any other error stays.
pub(crate) fn while_waiting(error: Error, jobs: u64) -> anyhow::Error {
    match error {
        // A daemon that takes nobody has not accepted the jobs: the same command may succeed later.
        Error::Goodbye(Refusal::Busy { .. } | Refusal::Draining) if jobs == 0 => error.into(),
        Error::Closed { .. } | Error::Goodbye(_) | Error::Io(_) => JobsLost { jobs, error }.into(),
        other => other.into(),
    }
}

/// No daemon was running, and a private one could not be started for this command.
#[derive(Debug)]
pub(crate) struct DaemonNotStarted;

impl fmt::Display for DaemonNotStarted {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("no daemon is running, and a private one did not start")
    }
}

/// Prints the error on stderr and returns its exit code.
pub(crate) fn report(error: &anyhow::Error) -> u8 {
    let code = code_of(error);
    if code != PIPE {
        say(format_args!("bulkhead: {error:#}{}", remedy(error)));
    }
    code
}

/// What to do about a write that met the limit of file size. The kernel's text names neither limit nor value.
fn remedy(error: &anyhow::Error) -> String {
    let is_too_large = |cause: &(dyn std::error::Error + 'static)| {
        let not_placed = || cause.downcast_ref::<NotPlaced>().map(|not_placed| &not_placed.error);
        let error = cause.downcast_ref::<io::Error>().or_else(not_placed);
        error.is_some_and(|error| error.kind() == io::ErrorKind::FileTooLarge)
    };
    if error.chain().any(is_too_large) {
        format!("; {}", bulkhead_client::file_size_remedy())
    } else {
        String::new()
    }
}

/// Returns the first error, and prints the others on stderr.
pub(crate) fn first_error(
    results: impl IntoIterator<Item = Result<(), anyhow::Error>>,
) -> Result<(), anyhow::Error> {
    let mut errors = results.into_iter().filter_map(Result::err);
    let first = errors.next();
    for error in errors {
        report(&error);
    }
    first.map_or(Ok(()), Err)
}

/// Whether the error is that the reader of stdout has closed it: nothing is said about that.
pub(crate) fn is_quiet(error: &anyhow::Error) -> bool {
    code_of(error) == PIPE
}

fn code_of(error: &anyhow::Error) -> u8 {
    if error.is::<UsageError>() {
        USAGE
    } else if let Some(error) = error.downcast_ref::<ConnectFailure>() {
        if matches!(error, ConnectFailure::Busy { .. }) { BUSY } else { NO_DAEMON }
    } else if error.is::<JobsLost>() {
        LOST
    } else if let Some(error) = error.downcast_ref::<Error>() {
        of_client(error)
    } else if error.is::<DaemonNotStarted>() {
        NO_DAEMON
    } else if let Some(error) = error.downcast_ref::<io::Error>() {
        of_writing(error)
    } else {
        FAILED
    }
}

/// The code for a failed write to stdout or to a file.
fn of_writing(error: &io::Error) -> u8 {
    match error.kind() {
        io::ErrorKind::BrokenPipe => PIPE,
        _ if write_wait::is_interrupted(error) => CANCELLED,
        _ => FAILED,
    }
}

fn of_client(error: &Error) -> u8 {
    match error {
        Error::Refused(refusal) => of_refusal(refusal),
        Error::Goodbye(Refusal::Busy { .. } | Refusal::Draining) => BUSY,
        Error::Goodbye(_)
        | Error::Closed { .. }
        | Error::Protocol(_)
        | Error::NoReply { .. }
        | Error::Io(_) => NO_DAEMON,
        Error::Interrupted => CANCELLED,
        Error::InputTooLong { .. } | Error::InputInArena { .. } | Error::TooLong(_) => USAGE,
        Error::ReplyBufferFull { .. } => FAILED,
        Error::Callback(error) => of_writing(error),
    }
}

/// The code for a request that the daemon refused.
pub(crate) fn of_refusal(refusal: &Refusal) -> u8 {
    match refusal {
        Refusal::Busy { .. } | Refusal::Draining | Refusal::NotDurable { .. } => BUSY,
        Refusal::UnknownKind { .. } | Refusal::Invalid { .. } => USAGE,
        Refusal::NeverWas { .. }
        | Refusal::Gone { .. }
        | Refusal::NotEnded { .. }
        | Refusal::NoLog { .. }
        | Refusal::WrongState { .. }
        | Refusal::Denied { .. }
        | Refusal::KeyTaken { .. } => FAILED,
    }
}

/// The exit code of several jobs: that of the first, in the order given, that did not end `done`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CombinedExit {
    first_bad: Option<(u64, u8)>,
}

impl CombinedExit {
    /// Adds the code of the job at this index. Indexes may be added in any order.
    pub(crate) fn add(&mut self, place: u64, code: u8) {
        if code != DONE && self.first_bad.is_none_or(|(first, _)| place < first) {
            self.first_bad = Some((place, code));
        }
    }

    /// The code of all jobs.
    pub(crate) fn code(self) -> u8 {
        self.first_bad.map_or(DONE, |(_, code)| code)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use bulkhead_proto::client::outcome::Outcome;
    use bulkhead_proto::client::refusal::BoundPart;

    use super::*;

    #[test]
    fn errors_have_the_codes_of_the_table() {
        let path = PathBuf::from("/x");
        let busy = Refusal::Busy {
            what: "queue".to_owned(),
            limit: 1,
            part: BoundPart::All,
            key: None,
            retry_after_ms: 1,
        };
        let pipe = io::Error::from(io::ErrorKind::BrokenPipe);
        let closed = || Error::Closed { in_a_frame: false };
        let cases: [(anyhow::Error, u8); 19] = [
            (UsageError("x".to_owned()).into(), USAGE),
            (ConnectFailure::Nobody { path: path.clone() }.into(), NO_DAEMON),
            (ConnectFailure::Busy { path, why: None }.into(), BUSY),
            (Error::Refused(busy).into(), BUSY),
            (Error::Refused(Refusal::Draining).into(), BUSY),
            (closed().into(), NO_DAEMON),
            (while_waiting(closed(), 3), LOST),
            (while_waiting(closed(), 0), LOST),
            (while_waiting(Error::Closed { in_a_frame: true }, 1), LOST),
            (while_waiting(Error::Goodbye(Refusal::Draining), 1), LOST),
            (while_waiting(Error::Goodbye(Refusal::Draining), 0), BUSY),
            (while_waiting(io::Error::from(io::ErrorKind::TimedOut).into(), 1), LOST),
            (while_waiting(Error::Refused(Refusal::Draining), 1), BUSY),
            (while_waiting(Error::NoReply { waited: Duration::ZERO }, 1), NO_DAEMON),
            (while_waiting(Error::Interrupted, 1), CANCELLED),
            (Error::Interrupted.into(), CANCELLED),
            (anyhow::Error::from(Error::Interrupted).context(DaemonNotStarted), CANCELLED),
            (anyhow::anyhow!("no such program").context(DaemonNotStarted), NO_DAEMON),
            (anyhow::Error::from(pipe).context("cannot write to stdout"), PIPE),
        ];
        for (error, code) in cases {
            assert_eq!(code_of(&error), code, "{error:#}");
        }
    }

    #[test]
    fn the_table_has_every_code() {
        use bulkhead_proto::client::exit as codes;
        for code in [
            DONE,
            FAILED,
            USAGE,
            NO_DAEMON,
            BUSY,
            LOST,
            codes::EXPIRED,
            codes::TIMED_OUT,
            codes::CRASHED,
            PIPE,
        ] {
            let row = format!("{code:>5}  ");
            assert!(TABLE.contains(&row), "{code}");
        }
        assert_eq!(codes::of(&Outcome::Cancelled), CANCELLED);
    }

    #[test]
    fn the_first_bad_job_in_the_order_given_decides() {
        let mut verdict = CombinedExit::default();
        assert_eq!(verdict.code(), 0);
        for (place, code) in [(0, 0), (9, 125), (4, 1), (7, 124)] {
            verdict.add(place, code);
        }
        assert_eq!(verdict.code(), 1);
    }
}
