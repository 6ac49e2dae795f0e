//! `bulkhead submit`: submits jobs to the daemon and prints their numbers, one a line.
//!
//! The jobs then belong to the daemon: `wait` reports their ends and `result` prints their outputs.

use anyhow::Result;
use bulkhead_client::SubmitOptions;
use bulkhead_proto::client::exit;
use bulkhead_proto::ids::JobId;
use bulkhead_views::answer;

use crate::args::GlobalArgs;
use crate::exit::UsageError;
use crate::job_args::{JobArgs, WhenBusy};
use crate::job_files::{FileRequest, JobFiles};
use crate::progress::ProgressMode;
use crate::stdio::StdoutWriter;

const EXAMPLES: &str = "\
Examples:
  bulkhead submit factorial 20000 --as sha256
  bulkhead submit --count 1000 noop
  bulkhead submit exec -- sh -c 'uname -a'
  bulkhead submit transform in.y4m --gray    # then bulkhead result ID -o out.y4m
  bulkhead submit factorial 1..200 | bulkhead wait -";

/// Submits jobs and prints their numbers, one a line
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    jobs: JobArgs,
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
        let spec = self.jobs.spec()?;
        let inputs = self.jobs.inputs()?;
        let wanted = FileRequest {
            ins: self.jobs.ins(),
            stdin: inputs.stdin().map(<[u8]>::to_vec),
            ..FileRequest::default()
        };
        wanted.check()?;
        let shown = ProgressMode { bar: !global.quiet, ..ProgressMode::default() };
        let mut interrupts = None;
        let JobFiles { attached, .. } = wanted.open(self.jobs.input_max(), shown, &mut interrupts)?;
        let options = SubmitOptions { wait_when_busy: self.when_busy == WhenBusy::Wait };
        let mut client = global.connect()?;
        // Once signals are watched they no longer end the process, so stdout and the client watch them too.
        let mut out = StdoutWriter::new();
        interrupts.as_ref().map_or(Ok(()), |watched| out.heed(watched.fd()?))?;
        client.set_interrupts(interrupts);
        for accepted in client.submit(spec, inputs.jobs().map(|job| attached.to(job)), options) {
            for job in accepted? {
                if global.json {
                    out.json(&answer::accepted(JobId(job)))?;
                } else {
                    out.line(job)?;
                }
            }
            out.flush()?;
        }
        Ok(exit::DONE)
    }
}
