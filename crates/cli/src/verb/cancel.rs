//! `bulkhead cancel`: ends jobs without a result.
//!
//! A running job is ended by killing its worker and every process that it started; the worker is replaced.

use anyhow::Result;
use bulkhead_client::DaemonClient;

use crate::args::GlobalArgs;
use crate::job_ids::JobIdArgs;
use crate::verb::change;

const EXAMPLES: &str = "\
Examples:
  bulkhead cancel 17
  bulkhead cancel 20..30
  bulkhead jobs --state queued --json | jq .job | bulkhead cancel -";

/// Ends jobs without a result; what runs is killed
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    ids: JobIdArgs,
}

impl Args {
    pub(crate) fn perform(&self, global: &GlobalArgs) -> Result<u8> {
        change(&self.ids, global, "cancelled", DaemonClient::cancel)
    }
}
