//! `bulkhead kinds`: what the daemon's workers can run.
//!
//! It is the running daemon's own list, so `chaos` is there only if that daemon was told to offer it.

use anyhow::Result;
use bulkhead_proto::exit;

use crate::args::Global;
use crate::context::Out;
use crate::table;

const EXAMPLES: &str = "\
Examples:
  bulkhead kinds
  bulkhead kinds --json | jq .name";

/// Lists the kinds of jobs that the daemon offers
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {}

impl Args {
    pub(crate) fn perform(&self, global: &Global) -> Result<u8> {
        let kinds = global.connect()?.kinds()?;
        let mut out = Out::new();
        if global.json {
            kinds.iter().try_for_each(|kind| out.json(kind))?;
        } else {
            let rows: Vec<_> = kinds.into_iter().map(|kind| [kind.name, kind.usage, kind.summary]).collect();
            table::lay_out(["KIND", "INPUT", "WHAT IT DOES"], &rows)
                .iter()
                .try_for_each(|line| out.line(line))?;
        }
        out.flush()?;
        Ok(exit::DONE)
    }
}
