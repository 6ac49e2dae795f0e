//! The list of jobs in ascending or descending order of their numbers, fetched page by page.
//!
//! A page may be empty although more follow: the daemon looks at a fixed number of jobs for each page, whether they
//! match or not. A page that does not advance is a protocol error, because the list would never end.

use std::collections::VecDeque;

use bulkhead_proto::client::message::{Reply, Request, Walk};
use bulkhead_proto::client::view::JobRow;
use bulkhead_proto::ids::JobId;
use bulkhead_proto::job::JobState;
use bulkhead_proto::limits::ROWS_MAX;

use crate::client::DaemonClient;
use crate::error::{Error, ProtocolError};

/// Iterates over the jobs in ascending or descending order of their numbers.
#[derive(Debug)]
pub struct JobList<'c> {
    client: &'c mut DaemonClient,
    state: Option<JobState>,
    walk: Walk,
    page: VecDeque<JobRow>,
    more: bool,
}

impl DaemonClient {
    /// The jobs that this user may see, with a number above `after`, in this state or in any.
    pub fn jobs(&mut self, state: Option<JobState>, after: JobId) -> JobList<'_> {
        self.walk_jobs(state, Walk::Up(after))
    }

    /// The same jobs in descending order, from the newest.
    pub fn newest_jobs(&mut self, state: Option<JobState>) -> JobList<'_> {
        self.walk_jobs(state, Walk::Down(JobId(u64::MAX)))
    }

    fn walk_jobs(&mut self, state: Option<JobState>, walk: Walk) -> JobList<'_> {
        JobList { client: self, state, walk, page: VecDeque::new(), more: true }
    }
}

impl JobList<'_> {
    fn fetch(&mut self) -> Result<(), Error> {
        let limit = u32::try_from(ROWS_MAX).unwrap_or(u32::MAX);
        match self.client.ask(Request::Jobs { state: self.state, walk: self.walk, limit })? {
            Reply::Jobs { rows, last, more } => {
                let (gets_on, next) = match self.walk {
                    Walk::Up(after) => (last > after, Walk::Up(last)),
                    Walk::Down(before) => (last < before, Walk::Down(last)),
                };
                if more && !gets_on {
                    return Err(self.client.give_up(ProtocolError::Reply("jobs, a page without progress")));
                }
                (self.walk, self.more) = (next, more);
                self.page.extend(rows);
                Ok(())
            }
            other => Err(self.client.unexpected(&other)),
        }
    }
}

impl Iterator for JobList<'_> {
    type Item = Result<JobRow, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.page.is_empty() && self.more {
            if let Err(error) = self.fetch() {
                self.more = false;
                return Some(Err(error));
            }
        }
        self.page.pop_front().map(Ok)
    }
}
