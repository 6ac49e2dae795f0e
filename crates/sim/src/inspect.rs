//! The inspector: an administrator who now and then asks for views, which are compared with what the oracles know.
//!
//! A view must come in the same turn; one that is late, or that lacks a job, is a broken promise.

use bulkhead_proto::client::message::{Reply, Request, Walk};
use bulkhead_proto::client::view::{JobRow, Totals};
use bulkhead_proto::ids::JobId;
use bulkhead_proto::job::JobState;

use crate::report::{BrokenRule, Verdict, broken};
use crate::world::World;

/// Rows of one page: as many as the core gives at most.
const PAGE: u32 = 512;

impl World {
    /// Compares the daemon's view with the truth.
    pub(crate) fn inspect(&mut self) -> Verdict {
        let mut requests = self.all_pages();
        let pages = requests.len();
        requests.push(Request::Status);
        if self.scenario.logs {
            requests.extend([Request::Workers, Request::Deaths { limit: 8 }]);
            // Once faults have stopped, no question is looked up in a journal, turn after turn.
            let each = if self.calm && self.scenario.disk.is_some() { 0 } else { 2 };
            let jobs = self.oracles.ledger.curious(each);
            requests.extend(jobs.into_iter().flat_map(|job| [Request::Why { job }, Request::Job { job }]));
        }
        let answer = self.ask_as_inspector(requests)?;
        let (lists, others) = answer.split_at_checked(pages).unwrap_or_default();
        let [Reply::Status(status), ..] = others else {
            return broken("replies", format!("the administrator lists jobs, and gets {answer:?}"));
        };
        let rows = &rows_of(lists)?;
        self.oracles.listed(rows)?;
        self.oracles.ledger.missing(self.clock.now(), rows, status.totals.evicted)?;
        self.oracles.logs.listed(rows)?;
        let live = rows.iter().filter(|row| row.state != JobState::Ended).count() as u64;
        let counted = status.queued + status.retrying + status.running;
        if live != counted || status.totals.accepted != self.oracles.ledger.accepted_count() {
            return broken(
                "lost",
                format!("{live} jobs are listed as not ended, the daemon says {status:?}"),
            );
        }
        let Totals { done, failed, crashed, timed_out, cancelled, expired, lost, .. } = status.totals;
        let by_outcome = done + failed + crashed + timed_out + cancelled + expired + lost;
        // A daemon that ends has put durable jobs off, which are in no count.
        let may_lack = self.scenario.disk.is_some() && self.oracles.ledger.stopping;
        let is_whole = by_outcome + counted == status.totals.accepted;
        if !(is_whole || may_lack && by_outcome + counted < status.totals.accepted) {
            return broken("lost", format!("the counts of outcomes do not add up: {status:?}"));
        }
        Ok(())
    }

    /// All jobs, as one step shows them.
    pub(crate) fn list_all(&mut self) -> Result<Vec<JobRow>, BrokenRule> {
        let pages = self.all_pages();
        rows_of(&self.ask_as_inspector(pages)?)
    }

    /// Requests for all pages of the list of jobs. They are asked for in one step, so that they show one moment: numbers have no
    /// gaps, and no number is above the last one that was given.
    fn all_pages(&self) -> Vec<Request> {
        let last = self.oracles.ledger.jobs.keys().next_back().map_or(0, |job| job.0);
        let page = |number: u64| Request::Jobs {
            state: None,
            walk: Walk::Up(JobId(number * u64::from(PAGE))),
            limit: PAGE,
        };
        (0..=last / u64::from(PAGE)).map(page).collect()
    }
}

/// The rows of all pages. A page goes on into the next one where jobs were forgotten.
fn rows_of(pages: &[Reply]) -> Result<Vec<JobRow>, BrokenRule> {
    let mut rows: Vec<JobRow> = Vec::new();
    for page in pages {
        let Reply::Jobs { rows: page, .. } = page else {
            return broken("replies", format!("the administrator lists jobs, and gets {page:?}"));
        };
        let last = rows.last().map_or(JobId(0), |row| row.job);
        rows.extend(page.iter().filter(|row| row.job > last).cloned());
    }
    Ok(rows)
}
