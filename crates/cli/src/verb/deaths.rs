//! `bulkhead deaths`: the deaths that ended an attempt of a job, newest first.
//!
//! One line each: the time, the job, its kind and attempt, the worker's number and pid, and the cause; `--evidence`
//! adds the evidence below it. The daemon keeps the last thousand, including those of forgotten jobs.

use anyhow::Result;
use bulkhead_proto::client::exit;
use bulkhead_proto::client::view::DeathRow;
use bulkhead_proto::limits::DEATHS_KEPT;
use bulkhead_views::death as views;
use bulkhead_views::time::utc;

use crate::args::GlobalArgs;
use crate::evidence;
use crate::stdio::StdoutWriter;
use crate::symbols::SymbolCache;
use crate::table;

const EXAMPLES: &str = "\
Examples:
  bulkhead deaths
  bulkhead deaths --limit 10 --evidence
  bulkhead deaths --json | jq 'select(.death.death == \"stack-overflow\").job'";

/// Lists the deaths that ended an attempt of a job, newest first
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Most deaths to list
    #[arg(long, value_name = "N", default_value_t = DEATHS_KEPT as u32)]
    limit: u32,
    /// Print the evidence of each: process state, progress, last words, backtrace
    #[arg(long)]
    evidence: bool,
}

impl Args {
    pub(crate) fn perform(&self, global: &GlobalArgs) -> Result<u8> {
        let rows = global.connect()?.deaths(self.limit)?;
        let mut out = StdoutWriter::new();
        let mut symbol_cache = SymbolCache::default();
        if global.json {
            for row in &rows {
                out.json(&views::row(row, |evidence| symbol_cache.backtrace(evidence))?)?;
            }
        } else {
            self.show(&rows, &mut symbol_cache).iter().try_for_each(|line| out.line(line))?;
        }
        out.flush()?;
        Ok(exit::DONE)
    }

    /// The table, with the evidence below each death if `--evidence` was given.
    fn show(&self, rows: &[DeathRow], symbol_cache: &mut SymbolCache) -> Vec<String> {
        let cells: Vec<_> = rows.iter().map(cells).collect();
        let headings = ["AT", "JOB", "KIND", "ATTEMPT", "WORKER", "PID", "DIED OF"];
        let mut table = table::lay_out(headings, &cells).into_iter();
        let mut lines: Vec<_> = table.next().into_iter().collect();
        for (line, row) in table.zip(rows) {
            lines.push(line);
            if self.evidence {
                let details = evidence::details(&row.death.evidence, symbol_cache);
                lines.extend(details.iter().map(|(heading, text)| format!("  {heading:<8}  {text}")));
            }
        }
        lines
    }
}

fn cells(row: &DeathRow) -> [String; 7] {
    let row_death = &row.death;
    [
        utc(row_death.at_us).to_string(),
        row.job.to_string(),
        row.kind.clone(),
        row_death.attempt.to_string(),
        row_death.worker.to_string(),
        row_death.pid.to_string(),
        row_death.death.to_string(),
    ]
}
