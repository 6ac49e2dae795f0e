//! `bulkhead forget`: drops ended jobs with their results and the evidence of their crashes.
//!
//! With `retry`, it is one of the two ways to end the quarantine of a crashed job.

use anyhow::Result;
use bulkhead_client::DaemonClient;

use crate::args::GlobalArgs;
use crate::job_ids::JobIdArgs;
use crate::verb::change;

const EXAMPLES: &str = "\
Examples:
  bulkhead forget 17
  bulkhead forget 1..1000";

/// Drops ended jobs with their results and evidence
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    ids: JobIdArgs,
}

impl Args {
    pub(crate) fn perform(&self, global: &GlobalArgs) -> Result<u8> {
        change(&self.ids, global, "forgot", DaemonClient::forget)
    }
}
