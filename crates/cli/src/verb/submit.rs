//! `bulkhead submit`: submits jobs to the daemon and prints their numbers, one a line.
//!
//! The jobs then belong to the daemon: `wait` reports their ends and `result` prints their outputs. If the connection is lost
//! under a durable submit, the command waits for that daemon to come back, and repeats the request that had no answer. Every error of a
//! durable submit that may have jobs names the key that repeats it.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bulkhead_client::connect::HELLO_TIMEOUT;
use bulkhead_client::discovery::{DaemonPlace, FoundDaemon};
use bulkhead_client::{ConnectFailure, DaemonClient, Error, JobInput, Submission, SubmitOptions};
use bulkhead_proto::client::exit as proto_exit;
use bulkhead_proto::ids::JobId;
use bulkhead_views::answer;

use crate::args::GlobalArgs;
use crate::durability_args::DurabilityArgs;
use crate::exit::{self, UsageError};
use crate::job_args::{JobArgs, WhenBusy};
use crate::job_files::{FileRequest, JobFiles};
use crate::plural;
use crate::progress::ProgressMode;
use crate::stdio::{StdoutWriter, say};

/// How long a durable submit goes on after the connection was lost without a further job being accepted.
const LOST_MAX: Duration = Duration::from_secs(10);
/// Time between two tries to connect.
const CONNECT_EVERY: Duration = Duration::from_millis(50);
/// Said of a connection that was lost for that long.
const NOT_BACK: &str = "no further job was accepted in the 10 s after the connection was lost";

const EXAMPLES: &str = "\
Examples:
  bulkhead submit factorial 20000 --as sha256
  bulkhead submit --count 1000 noop
  bulkhead submit exec -- sh -c 'uname -a'
  bulkhead submit transform in.y4m --gray    # then bulkhead result ID -o out.y4m
  bulkhead submit --durable --key nightly-17 factorial 1..500    # repeat it at will
  bulkhead submit factorial 1..200 | bulkhead wait -";

/// Submits jobs and prints their numbers, one a line
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    jobs: JobArgs,
    #[command(flatten)]
    durability: DurabilityArgs,
    /// What to do while the daemon is full
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = WhenBusy::Fail)]
    when_busy: WhenBusy,
    /// Refused with a hint: the daemon keeps the output
    #[arg(short, long, hide = true, value_name = "FILE")]
    output: Option<String>,
    /// Refused with a hint: only `run` can name files that a job writes
    #[arg(long, hide = true, value_name = "NAME=PATH")]
    out: Vec<String>,
}

impl Args {
    /// Refuses the flags of `run` that `submit` does not have, with a hint.
    fn check(&self) -> Result<(), UsageError> {
        let said = match (&self.output, &self.out[..]) {
            (Some(path), _) => format!(
                "submit has no -o, because the daemon keeps the output: use `bulkhead result ID -o {path}` when the job is done, \
                 or `bulkhead run`"
            ),
            (None, [first, ..]) => {
                format!(
                    "submit has no --out {first}, because a job writes files only for a command that waits: use `bulkhead run`"
                )
            }
            (None, []) => return Ok(()),
        };
        Err(UsageError(said))
    }

    pub(crate) fn perform(&self, global: &GlobalArgs) -> Result<u8> {
        self.check()?;
        let durable = self.durability.read()?;
        let spec = self.jobs.spec()?;
        let inputs = self.jobs.inputs()?;
        let inputs = if durable.is_some() { inputs.with_short_outputs() } else { inputs };
        let wanted = FileRequest {
            ins: self.jobs.ins(),
            stdin: inputs.stdin().map(<[u8]>::to_vec),
            ..FileRequest::default()
        };
        wanted.check()?;
        let shown = ProgressMode { bar: !global.quiet, ..ProgressMode::default() };
        let mut interrupts = None;
        let JobFiles { attached, .. } = wanted.open(self.jobs.input_max(), shown, &mut interrupts)?;
        let options = SubmitOptions { wait_when_busy: self.when_busy == WhenBusy::Wait, durable };
        let FoundDaemon { mut client, place, .. } = global.find()?;
        // Once signals are watched they no longer end the process, so stdout and the client watch them too.
        let mut out = StdoutWriter::new();
        interrupts.as_ref().map_or(Ok(()), |watched| out.heed(watched.fd()?))?;
        client.set_interrupts(interrupts);
        let mut submission = client.submit(spec, inputs.jobs().map(|job| attached.to(job)), options);
        let mut way = SubmitWay { global, place, accepted: 0, lost_at: None };
        let done = way.follow(&mut submission, &mut out);
        done.map_err(|error| match submission.key().filter(|_| way.may_have_jobs(&error)) {
            Some(key) => error.context(repeat(key, way.accepted)),
            None => error,
        })?;
        Ok(proto_exit::DONE)
    }
}

/// How far a submit has come.
struct SubmitWay<'a> {
    global: &'a GlobalArgs,
    place: DaemonPlace,
    /// Jobs whose numbers arrived.
    accepted: u64,
    /// When the connection was lost, until further jobs are accepted.
    lost_at: Option<Instant>,
}

impl SubmitWay<'_> {
    /// Prints the numbers of all jobs as they are accepted. Under a durable submit, goes on over another connection after a loss.
    fn follow<I: Iterator<Item = JobInput>>(
        &mut self,
        submission: &mut Submission<'_, I>,
        out: &mut StdoutWriter,
    ) -> Result<()> {
        while let Some(accepted) = submission.next() {
            match accepted {
                Ok(jobs) => {
                    self.lost_at = None;
                    self.accepted += jobs.end - jobs.start;
                    tell(jobs, self.global, out)?;
                }
                Err(error) if submission.key().is_some() && error.is_lost_connection() => {
                    let since = *self.lost_at.get_or_insert_with(Instant::now);
                    if since.elapsed() >= LOST_MAX {
                        return Err(error).context(NOT_BACK);
                    }
                    submission.resume(self.connect_again(since).context(NOT_BACK)?);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits until a daemon takes the connection at the place of the first one, at most [`LOST_MAX`] after this moment.
    fn connect_again(&self, lost_at: Instant) -> Result<DaemonClient, ConnectFailure> {
        if !self.global.quiet {
            say("bulkhead: the connection to the daemon was lost: waiting for it to come back");
        }
        loop {
            // No event tells that a daemon listens again: only the deadline wakes it.
            std::thread::park_timeout(CONNECT_EVERY);
            match self.place.connect_within(HELLO_TIMEOUT) {
                Err(_) if lost_at.elapsed() < LOST_MAX => {}
                connected => return connected,
            }
        }
    }

    /// Whether the daemon may have jobs of a durable submit that ended with this error, or may take them if it is repeated.
    fn may_have_jobs(&self, error: &anyhow::Error) -> bool {
        let is_final = match error.downcast_ref::<Error>() {
            Some(Error::Refused(refusal)) => exit::of_refusal(refusal) != proto_exit::BUSY,
            Some(error) => {
                matches!(error, Error::InputTooLong { .. } | Error::KeyTooLong { .. } | Error::TooLong(_))
            }
            None => false,
        };
        !is_final || self.accepted > 0 || self.lost_at.is_some()
    }
}

/// Prints the numbers of accepted jobs.
fn tell(jobs: Range<u64>, global: &GlobalArgs, out: &mut StdoutWriter) -> Result<()> {
    for job in jobs {
        if global.json {
            out.json(&answer::accepted(JobId(job)))?;
        } else {
            out.line(job)?;
        }
    }
    out.flush()
}

/// What was accepted of a durable submit that ended with an error, and how to submit the rest.
fn repeat(key: &[u8], accepted: u64) -> String {
    let key = String::from_utf8_lossy(key).replace('\'', r"'\''");
    let accepted = plural::count(accepted, "job");
    format!(
        "{accepted} accepted before this error; the same command with --durable --key '{key}' prints the numbers of the jobs that the \
         daemon has and submits the others, none twice"
    )
}
