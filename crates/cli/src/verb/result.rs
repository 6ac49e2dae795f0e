//! `bulkhead result`: the result of a job that has ended, to stdout or into a file.
//!
//! The bytes are printed as they are; on a terminal a newline follows them if they do not end with one.
//! For a program that failed it prints the output that the program had written. If the job did not end `done`, a line
//! on stderr and the exit code say how it ended; a file is written for done jobs only. A line also says if the daemon has
//! dropped the output to make room.

use std::io::{BufWriter, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::Result;
use bulkhead_proto::client::exit;
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::ids::JobId;
use serde_json::Map;

use crate::args::GlobalArgs;
use crate::failure_report::{self, CrashedJobs};
use crate::job_ids;
use crate::output;
use crate::output_target::OutputTarget;
use crate::stdio::{StdoutWriter, say};

const EXAMPLES: &str = "\
Examples:
  bulkhead result 17
  bulkhead result 17 -o digits.txt";

/// Prints the result of a job that has ended, byte for byte, also one that `run` could not write
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The job's number
    #[arg(value_name = "JOB", value_parser = job_ids::one)]
    job: JobId,
    /// Write the result's exact bytes to a file, which appears when it is complete; until then an older file stays; - is
    /// stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Args {
    pub(crate) fn perform(&self, global: &GlobalArgs) -> Result<u8> {
        let mut client = global.connect()?;
        let end = client.result(self.job)?;
        if end.outcome != Outcome::Done && !global.quiet {
            say(failure_report::line(&end, ""));
            let mut crashed = CrashedJobs::default();
            crashed.note(&end);
            crashed.tell(&mut client, true);
        }
        let gone = end.output.gone();
        if let Some(gone) = gone
            && !global.quiet
        {
            say(format_args!("bulkhead: job {}: {gone}", end.job));
        }
        let mut out = StdoutWriter::new();
        if global.json && self.output.is_none() {
            output::write_json(Map::new(), &end, None, out.writer())?;
        } else if gone.is_none() && end.outcome == Outcome::Done
            || (self.output.is_none() && end.output.bytes() > 0)
        {
            match &self.output {
                None => output::write_alone(&end.output, std::io::stdout().is_terminal(), out.writer())?,
                Some(path) => {
                    let mut file = BufWriter::new(OutputTarget::create(path)?);
                    output::write_exact(&end.output, &mut file)?;
                    file.flush()?;
                    file.into_inner().map_err(|error| error.into_error())?.finish(None)?;
                }
            }
        }
        out.flush()?;
        // The job is done, and what was asked for is not there.
        if gone.is_some() && end.outcome == Outcome::Done {
            Ok(exit::FAILED)
        } else {
            Ok(exit::of(&end.outcome))
        }
    }
}
