//! `bulkhead workers`: the worker processes and what each is doing.
//!
//! Spares have no slot. A killed worker is listed until its death is proven. One that a signal has stopped is `stopped`
//! whatever its state.

use anyhow::Result;
use bulkhead_proto::client::evidence::ProcessSeen;
use bulkhead_proto::client::exit;
use bulkhead_proto::client::view::WorkerRow;

use crate::args::GlobalArgs;
use crate::state_names::worker_state;
use crate::stdio::StdoutWriter;
use crate::table::{self, or_dash};
use crate::{duration, time};

const EXAMPLES: &str = "\
Examples:
  bulkhead workers
  bulkhead workers --json | jq 'select(.state == \"busy\").pid'";

/// In place of the state of a worker that a signal has stopped: it does nothing, whatever it was doing. `--json` has both.
const STOPPED: &str = "stopped";

/// Lists the worker processes
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {}

impl Args {
    pub(crate) fn perform(&self, global: &GlobalArgs) -> Result<u8> {
        let rows = global.connect()?.workers()?;
        let mut out = StdoutWriter::new();
        if global.json {
            rows.iter().try_for_each(|row| out.json(row))?;
        } else {
            let now = time::now_us();
            let cells: Vec<_> = rows.iter().map(|row| cells(row, now)).collect();
            let headings =
                ["WORKER", "POOL", "SLOT", "PID", "STATE", "JOB", "OFFERS", "ENDED", "AGE", "WAITS IN"];
            table::lay_out(headings, &cells).iter().try_for_each(|line| out.line(line))?;
        }
        out.flush()?;
        Ok(exit::DONE)
    }
}

fn cells(row: &WorkerRow, now_us: u64) -> [String; 10] {
    [
        row.worker.to_string(),
        row.pool.clone(),
        or_dash(row.slot.map(|slot| format!("{slot}{}", lent(row)))),
        or_dash(row.pid),
        if row.stopped.is_some() { STOPPED.to_owned() } else { worker_state(row.state).to_owned() },
        or_dash(row.job),
        row.offers.to_string(),
        row.ended.to_string(),
        duration::rough(now_us.saturating_sub(row.spawned_us)),
        or_dash(
            (row.seen.as_ref().map(|seen| waiting(row, seen)))
                .or(row.stopped.map(|stop| stop.to_string()))
                .or(row.program.map(|stop| stop.to_string())),
        ),
    ]
}

/// Whether the slot of a worker is lent, and to whom, in words; empty if it is not.
pub(crate) fn lent(row: &WorkerRow) -> String {
    match row.lent_to {
        Some(uid) => format!(" lent to user {uid}"),
        None if row.lent => " lent".to_owned(),
        None => String::new(),
    }
}

/// The state of a process in words, with its pid if it is not the worker itself.
pub(crate) fn waiting(row: &WorkerRow, seen: &ProcessSeen) -> String {
    let mut text = match seen.waits_in.as_str() {
        "" => seen.state.to_string(),
        function => format!("{function} ({})", seen.state),
    };
    if row.pid != Some(seen.pid) {
        let user = seen.uid.map(|uid| format!(" of user {uid}")).unwrap_or_default();
        text.push_str(&format!(", pid {}{user} that it left behind", seen.pid));
    }
    text
}
