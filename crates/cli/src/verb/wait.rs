//! `bulkhead wait`: waits until jobs have ended and prints how, one line each, in the order of their ends.
//!
//! A line has the number, a tab, and the outcome. The results stay with the daemon for `result`.

use std::collections::BTreeMap;

use anyhow::Result;
use bulkhead_client::{JobEnd, WaitItem};
use bulkhead_proto::client::exit;
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::ids::JobId;
use bulkhead_views::answer;

use crate::args::GlobalArgs;
use crate::exit::{CombinedExit, of_refusal, while_waiting};
use crate::failure_report;
use crate::job_ids::JobIdArgs;
use crate::output;
use crate::stdio::{StdoutWriter, say};

const EXAMPLES: &str = "\
Examples:
  bulkhead wait 17
  bulkhead wait 20..30 && echo all done
  bulkhead submit --count 100 noop | bulkhead wait -";

/// Waits until jobs have ended and prints how
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    ids: JobIdArgs,
}

impl Args {
    pub(crate) fn perform(&self, global: &GlobalArgs) -> Result<u8> {
        let jobs = self.ids.read()?;
        let mut places: BTreeMap<JobId, u64> = BTreeMap::new();
        for (place, job) in (0..).zip(&jobs) {
            places.entry(*job).or_insert(place);
        }
        let mut client = global.connect()?;
        if !global.quiet {
            client.on_notice(failure_report::notice);
        }
        let (mut out, mut combined_exit) = (StdoutWriter::new(), CombinedExit::default());
        let mut left = places.len() as u64;
        for item in client.wait(jobs) {
            let item = item.map_err(|error| while_waiting(error, left))?;
            left = left.saturating_sub(1);
            let (job, code) = match item {
                WaitItem::Ended(end) => (end.job, tell(&end, global, &mut out)?),
                WaitItem::Refused { job, refusal } => (job, tell_refused(job, &refusal, global, &mut out)?),
            };
            out.flush()?;
            combined_exit.add(places.get(&job).copied().unwrap_or(u64::MAX), code);
        }
        Ok(combined_exit.code())
    }
}

fn tell(end: &JobEnd, global: &GlobalArgs, out: &mut StdoutWriter) -> Result<u8> {
    if global.json {
        out.json(&output::view(end).fields())?;
    } else if !global.quiet {
        out.line(format_args!("{}\t{}", end.job, end.outcome))?;
    }
    Ok(exit::of(&end.outcome))
}

fn tell_refused(job: JobId, refusal: &Refusal, global: &GlobalArgs, out: &mut StdoutWriter) -> Result<u8> {
    if global.json {
        out.json(&answer::refused(job, refusal))?;
    }
    say(format_args!("bulkhead: {refusal}"));
    Ok(match refusal {
        // Its daemon ended: as when that happens while the command waits.
        Refusal::OfEarlierRun { .. } => exit::LOST,
        other => of_refusal(other),
    })
}
