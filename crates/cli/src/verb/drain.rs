//! `bulkhead drain`: the daemon accepts no new jobs, finishes the accepted ones, and stops.
//!
//! The command waits until the daemon is gone, which closes the connection. Ending the command does not end the drain.
//! The exit code tells whether jobs were lost.

use std::time::Duration;

use anyhow::Result;
use bulkhead_proto::client::exit;
use bulkhead_views::answer;

use crate::args::GlobalArgs;
use crate::stdio::StdoutWriter;
use crate::{duration, plural};

const EXAMPLES: &str = "\
Examples:
  bulkhead drain
  bulkhead drain --grace 30s

Ending this command does not end the drain. The exit code is 122 if jobs were lost.";

/// Stops the daemon after it has finished the jobs that it accepted; it accepts no new ones
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// How long the accepted jobs may take, such as 30s; jobs that are left then are lost [default: no limit]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    grace: Option<Duration>,
}

impl Args {
    pub(crate) fn perform(&self, global: &GlobalArgs) -> Result<u8> {
        let mut client = global.connect()?;
        let draining = client.drain(self.grace)?;
        let mut out = StdoutWriter::new();
        if global.json {
            out.json(&answer::draining(draining.left()))?;
        } else if !global.quiet {
            out.line(format_args!("draining, {} left", plural::count(draining.left(), "job")))?;
        }
        out.flush()?;
        let left = draining.left();
        let lost = draining.wait()?;
        if global.json {
            out.json(&answer::drained(lost))?;
        } else if !global.quiet {
            out.line(match lost {
                Some(0) => "stopped".to_owned(),
                Some(lost) => format!("stopped, {} lost", plural::count(lost, "job")),
                None => "stopped without saying how many jobs were lost: those that had not ended are lost"
                    .to_owned(),
            })?;
        }
        out.flush()?;
        Ok(if lost.unwrap_or(left) > 0 { exit::LOST } else { exit::DONE })
    }
}
