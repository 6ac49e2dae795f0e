//! `bulkhead cancel`: ends jobs without a result.
//!
//! A running job is ended by killing its worker and every process that it started; the worker is replaced. With `--waiting`
//! a running job goes on, which is no failure: the code is 0.

use anyhow::Result;
use bulkhead_client::{CancelledWaiting, DaemonClient};
use bulkhead_views::answer;

use crate::args::GlobalArgs;
use crate::job_ids::JobIdArgs;
use crate::plural;
use crate::stdio::StdoutWriter;
use crate::verb::{change, say_refused};

const EXAMPLES: &str = "\
Examples:
  bulkhead cancel 17
  bulkhead cancel 20..30
  bulkhead cancel --waiting 20..30
  bulkhead jobs --state queued --json | jq .job | bulkhead cancel -";

/// Ends jobs without a result; what runs is killed
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    ids: JobIdArgs,

    /// End only jobs that no worker runs; what has begun goes on
    #[arg(long)]
    waiting: bool,
}

impl Args {
    pub(crate) fn perform(&self, global: &GlobalArgs) -> Result<u8> {
        if self.waiting {
            return self.cancel_waiting(global);
        }
        change(&self.ids, global, "cancelled", DaemonClient::cancel)
    }

    fn cancel_waiting(&self, global: &GlobalArgs) -> Result<u8> {
        let jobs = self.ids.read()?;
        let CancelledWaiting { ended, running, refused } = global.connect()?.cancel_waiting(&jobs)?;
        let mut out = StdoutWriter::new();
        if global.json {
            out.json(&answer::cancelled_waiting(&ended, &running, &refused))?;
        } else if !global.quiet {
            out.line(format_args!("cancelled {}", plural::count(ended.len() as u64, "job")))?;
            for job in running {
                out.line(format_args!("job {job} goes on: it has begun"))?;
            }
        }
        out.flush()?;
        Ok(say_refused(&refused))
    }
}
