//! `bulkhead why`: why a job waits, runs long, is retried, or ended as it did, in sentences.
//!
//! The daemon sends the facts and `proto` puts them into words; nothing is derived here. `--json` prints the same facts
//! as fields.

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

/// Says in words why a job waits, is retried, is quarantined or ended as it did
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
            why.sentences().iter().try_for_each(|sentence| out.line(sentence))?;
        }
        out.flush()?;
        Ok(exit::DONE)
    }
}
