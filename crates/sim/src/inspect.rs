//! The inspector: an administrator who now and then asks for views, which are compared with what the oracles know.
//!
//! A view must come in the same turn; one that is late, or that lacks a job, is a broken promise.

use bulkhead_proto::client::message::{Reply, Request, Walk};
use bulkhead_proto::client::view::{JobRow, Totals};
use bulkhead_proto::ids::JobId;
use bulkhead_proto::job::JobState;

use crate::report::{BrokenRule, Verdict, broken};
use crate::world::World;

/// Rows of one page.
const PAGE: u32 = 4096;

impl World {
    /// Compares the daemon's view with the truth.
    pub(crate) fn inspect(&mut self) -> Verdict {
        let (after, limit) = (JobId(0), PAGE);
        let mut requests = vec![Request::Jobs { state: None, walk: Walk::Up(after), limit }, Request::Status];
        if self.scenario.logs {
            requests.extend([Request::Workers, Request::Deaths { limit: 8 }]);
            let jobs = self.oracles.ledger.curious(2);
            requests.extend(jobs.into_iter().flat_map(|job| [Request::Why { job }, Request::Job { job }]));
        }
        let answer = self.ask_as_inspector(requests)?;
        let [Reply::Jobs { rows, more: false, .. }, Reply::Status(status), ..] = answer.as_slice() else {
            return Ok(());
        };
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
        if by_outcome + counted != status.totals.accepted {
            return broken("lost", format!("the counts of outcomes do not add up: {status:?}"));
        }
        Ok(())
    }

    /// All jobs, page by page.
    pub(crate) fn list_all(&mut self) -> Result<Vec<JobRow>, BrokenRule> {
        let mut rows: Vec<JobRow> = Vec::new();
        let mut after = JobId(0);
        loop {
            let answer = self.ask_as_inspector(vec![Request::Jobs {
                state: None,
                walk: Walk::Up(after),
                limit: PAGE,
            }])?;
            let [Reply::Jobs { rows: page, last, more }] = answer.as_slice() else {
                return broken("replies", format!("the administrator lists jobs, and gets {answer:?}"));
            };
            rows.extend(page.iter().cloned());
            after = *last;
            if !more {
                return Ok(rows);
            }
        }
    }
}
