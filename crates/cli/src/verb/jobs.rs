//! `bulkhead jobs`: the jobs that the user may see, the newest last; if there are more than the limit, the newest.
//!
//! `--state` takes a state or, for ended jobs, an outcome.

use anyhow::Result;
use bulkhead_proto::client::exit;
use bulkhead_proto::client::view::JobRow;
use bulkhead_proto::ids::JobId;
use bulkhead_proto::job::JobState;
use clap::ValueEnum;

use crate::args::GlobalArgs;
use crate::state_names::job_state;
use crate::stdio::{StdoutWriter, say};
use crate::{duration, table, time};

const EXAMPLES: &str = "\
Examples:
  bulkhead jobs
  bulkhead jobs --limit 20
  bulkhead jobs --state crashed
  bulkhead jobs --state running --json | jq .job";

/// Lists jobs, the newest last
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Only jobs in this state, or with this outcome
    #[arg(long, value_enum)]
    state: Option<StateFilter>,
    /// Only jobs with a higher number, the oldest of them first; 0 begins with the oldest of all
    #[arg(long, value_name = "JOB")]
    after: Option<JobId>,
    /// Most jobs to list: the newest, unless --after says where to begin
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: usize,
}

/// A state, or the outcome of an ended job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StateFilter {
    Queued,
    Retrying,
    Running,
    Ended,
    Done,
    Failed,
    Crashed,
    TimedOut,
    Cancelled,
    Expired,
    Lost,
}

impl StateFilter {
    /// The state to ask the daemon for, and the outcome to filter its rows by.
    fn split(self) -> (JobState, Option<&'static str>) {
        match self {
            Self::Queued => (JobState::Queued, None),
            Self::Retrying => (JobState::Retrying, None),
            Self::Running => (JobState::Running, None),
            Self::Ended => (JobState::Ended, None),
            Self::Done => (JobState::Ended, Some("done")),
            Self::Failed => (JobState::Ended, Some("failed")),
            Self::Crashed => (JobState::Ended, Some("crashed")),
            Self::TimedOut => (JobState::Ended, Some("timed-out")),
            Self::Cancelled => (JobState::Ended, Some("cancelled")),
            Self::Expired => (JobState::Ended, Some("expired")),
            Self::Lost => (JobState::Ended, Some("lost")),
        }
    }
}

impl Args {
    pub(crate) fn perform(&self, global: &GlobalArgs) -> Result<u8> {
        let (state, outcome) = self.state.map(StateFilter::split).unzip();
        let outcome = outcome.flatten();
        let mut client = global.connect()?;
        let mut jobs = match self.after {
            Some(after) => client.jobs(state, after),
            None => client.newest_jobs(state),
        };
        let mut rows = Vec::new();
        while rows.len() < self.limit
            && let Some(row) = jobs.next()
        {
            rows.extend(Some(row?).filter(|row| outcome.is_none() || row.outcome.as_deref() == outcome));
        }
        let is_full = rows.len() == self.limit;
        if let (Some(last), false) = (rows.last().filter(|_| is_full).map(|row| row.job), global.quiet)
            && jobs.next().is_some()
        {
            self.say_more(last);
        }
        if self.after.is_none() {
            rows.reverse();
        }
        let mut out = StdoutWriter::new();
        if global.json {
            rows.iter().try_for_each(|row| out.json(row))?;
        } else {
            let now = time::now_us();
            let cells: Vec<_> = rows.iter().map(|row| cells(row, now)).collect();
            let headings = ["JOB", "KIND", "STATE", "ATTEMPTS", "CRASHES", "UID", "AGE"];
            table::lay_out(headings, &cells).iter().try_for_each(|line| out.line(line))?;
        }
        out.flush()?;
        Ok(exit::DONE)
    }
}

impl Args {
    /// Says on stderr that the list was cut after this job.
    fn say_more(&self, last: JobId) {
        if self.after.is_some() {
            say(format_args!(
                "bulkhead: there may be more: --after {last} goes on, --limit lists more at once"
            ));
        } else {
            say(format_args!(
                "bulkhead: these are the newest, there may be older ones: --limit lists more, --after 0 begins with \
                 the oldest"
            ));
        }
    }
}

fn cells(row: &JobRow, now_us: u64) -> [String; 7] {
    let state = row.outcome.clone().unwrap_or_else(|| job_state(row.state).to_owned());
    [
        row.job.to_string(),
        row.kind.clone(),
        state,
        row.attempts.to_string(),
        row.crashes.to_string(),
        row.uid.to_string(),
        duration::rough(now_us.saturating_sub(row.accepted_us)),
    ]
}

#[cfg(test)]
mod tests {
    use bulkhead_proto::client::outcome::{Outcome, TimeLimit};

    use super::*;

    #[test]
    fn outcomes_are_asked_for_by_the_words_that_rows_have() {
        let words: Vec<_> =
            StateFilter::value_variants().iter().filter_map(|wanted| wanted.split().1).collect();
        let lost = Outcome::Lost { reason: String::new() };
        let timed_out = Outcome::TimedOut { limit: TimeLimit::Wall, limit_ms: 1, part: None };
        for outcome in [Outcome::Done, Outcome::Cancelled, Outcome::Expired, lost, timed_out] {
            assert!(words.contains(&outcome.word()), "{outcome}");
        }
        for wanted in StateFilter::value_variants() {
            let name = wanted.to_possible_value().unwrap().get_name().to_owned();
            assert!(wanted.split().1.is_none_or(|word| word == name), "{name}");
        }
    }
}
