//! `bulkhead why`: why a job waits, runs so long, is tried again or has ended as it has, in sentences.
//!
//! The daemon says what it knows, `proto` puts it into words; nothing is worked out here. `--json` has the same as
//! fields.

use anyhow::Result;
use bulkhead_proto::client::exit;
use bulkhead_proto::ids::JobId;

use crate::args::GlobalArgs;
use crate::job_ids;
use crate::stdio::StdoutWriter;

const EXAMPLES: &str = "\
Examples:
  bulkhead why 17
  bulkhead why 17 --json | jq .now";

/// Says in words why a job waits, is retried, is quarantined or has ended as it has
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The job's number
    #[arg(value_name = "JOB", value_parser = job_ids::one)]
    job: JobId,
}

impl Args {
    pub(crate) fn perform(&self, global: &GlobalArgs) -> Result<u8> {
        let why = global.connect()?.why(self.job)?;
        let mut out = StdoutWriter::new();
        if global.json {
            out.json(&why)?;
        } else {
            out.line(&why)?;
        }
        out.flush()?;
        Ok(exit::DONE)
    }
}
