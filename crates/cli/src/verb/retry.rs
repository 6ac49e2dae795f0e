//! `bulkhead retry`: runs jobs that did not end `done` once more, with fresh budgets.
//!
//! With `forget`, it is one of the two ways to end the quarantine of a crashed job.

use anyhow::Result;
use bulkhead_client::DaemonClient;

use crate::args::GlobalArgs;
use crate::job_ids::JobIdArgs;
use crate::verb::change;

const EXAMPLES: &str = "\
Examples:
  bulkhead retry 17
  bulkhead jobs --state crashed --json | jq .job | bulkhead retry -";

/// Runs jobs that did not end done again, with fresh budgets
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    ids: JobIdArgs,
}

impl Args {
    pub(crate) fn perform(&self, global: &GlobalArgs) -> Result<u8> {
        change(&self.ids, global, "retrying", DaemonClient::retry)
    }
}
