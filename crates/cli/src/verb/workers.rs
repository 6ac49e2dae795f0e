//! `bulkhead workers`: the worker processes, with what each is doing.
//!
//! Spares have no slot; a worker that is being replaced is listed until its death is proven.

use anyhow::Result;
use bulkhead_proto::exit;
use bulkhead_proto::view::WorkerRow;

use crate::args::Global;
use crate::context::Out;
use crate::table::{self, or_dash};
use crate::{duration, time};

const EXAMPLES: &str = "\
Examples:
  bulkhead workers
  bulkhead workers --json | jq 'select(.state == \"busy\").pid'";

/// Lists the worker processes
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {}

impl Args {
    pub(crate) fn perform(&self, global: &Global) -> Result<u8> {
        let rows = global.connect()?.workers()?;
        let mut out = Out::new();
        if global.json {
            rows.iter().try_for_each(|row| out.json(row))?;
        } else {
            let now = time::now_us();
            let cells: Vec<_> = rows.iter().map(|row| cells(row, now)).collect();
            let headings = ["WORKER", "SLOT", "PID", "STATE", "JOB", "OFFERS", "ENDED", "AGE"];
            table::lay_out(headings, &cells).iter().try_for_each(|line| out.line(line))?;
        }
        out.flush()?;
        Ok(exit::DONE)
    }
}

fn cells(row: &WorkerRow, now_us: u64) -> [String; 8] {
    [
        row.worker.to_string(),
        or_dash(row.slot),
        or_dash(row.pid),
        format!("{:?}", row.state).to_lowercase(),
        or_dash(row.job),
        row.offers.to_string(),
        row.ended.to_string(),
        duration::rough(now_us.saturating_sub(row.spawned_us)),
    ]
}
