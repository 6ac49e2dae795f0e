//! `bulkhead submit`: submits jobs to the daemon and prints their numbers, one a line.
//!
//! The jobs then belong to the daemon: `wait` reports their ends and `result` prints their outputs. If the connection is lost
//! under a durable submit, the command waits for that daemon to come back, and repeats the request that had no answer.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bulkhead_client::connect::HELLO_TIMEOUT;
use bulkhead_client::discovery::{DaemonPlace, FoundDaemon};
use bulkhead_client::{ConnectFailure, DaemonClient, JobInput, Submission, SubmitOptions};
use bulkhead_proto::client::exit;
use bulkhead_proto::ids::JobId;
use bulkhead_views::answer;

use crate::args::GlobalArgs;
use crate::durability_args::DurabilityArgs;
use crate::exit::UsageError;
use crate::job_args::{JobArgs, WhenBusy};
use crate::job_files::{FileRequest, JobFiles};
use crate::progress::ProgressMode;
use crate::stdio::{StdoutWriter, say};

/// How long a durable submit goes on after the connection was lost without a further job being accepted.
const LOST_MAX: Duration = Duration::from_secs(10);
/// Time between two tries to connect.
const CONNECT_EVERY: Duration = Duration::from_millis(50);

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
        let is_durable = options.durable.is_some();
        let FoundDaemon { mut client, place, .. } = global.find()?;
        // Once signals are watched they no longer end the process, so stdout and the client watch them too.
        let mut out = StdoutWriter::new();
        interrupts.as_ref().map_or(Ok(()), |watched| out.heed(watched.fd()?))?;
        client.set_interrupts(interrupts);
        let mut submission = client.submit(spec, inputs.jobs().map(|job| attached.to(job)), options);
        let mut lost_at = None;
        while let Some(accepted) = submission.next() {
            match accepted {
                Ok(jobs) => {
                    lost_at = None;
                    tell(jobs, global, &mut out)?;
                }
                Err(error) if is_durable && error.is_lost_connection() => {
                    let since = *lost_at.get_or_insert_with(Instant::now);
                    if since.elapsed() >= LOST_MAX {
                        return Err(error).with_context(|| repeat(&submission));
                    }
                    let client =
                        connect_again(&place, global.quiet, since).with_context(|| repeat(&submission))?;
                    submission.resume(client);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(exit::DONE)
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

/// Waits until a daemon takes the connection at the place of the first one, at most [`LOST_MAX`] after this moment.
fn connect_again(place: &DaemonPlace, quiet: bool, lost_at: Instant) -> Result<DaemonClient, ConnectFailure> {
    if !quiet {
        say("bulkhead: the connection to the daemon was lost: waiting for it to come back");
    }
    loop {
        // No event tells that a daemon listens again: only the deadline wakes it.
        std::thread::park_timeout(CONNECT_EVERY);
        match place.connect_within(HELLO_TIMEOUT) {
            Err(_) if lost_at.elapsed() < LOST_MAX => {}
            connected => return connected,
        }
    }
}

/// What to do about a durable submit that had no answer.
fn repeat<I: Iterator<Item = JobInput>>(submission: &Submission<'_, I>) -> String {
    let key = submission.key().map(String::from_utf8_lossy).unwrap_or_default();
    format!(
        "the daemon was lost before it had answered and did not come back in {} s: once it runs, the same command with \
         --durable --key '{key}' submits the jobs that it has not accepted",
        LOST_MAX.as_secs()
    )
}
