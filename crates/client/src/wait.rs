//! Waits for jobs that were submitted earlier, on this or another connection.
//!
//! The numbers are sent in batches, at most 64 of them open at once; the ends arrive in the order in which the jobs
//! end. For a job that the daemon does not know the item is a refusal; the other jobs are still waited for.

use std::collections::{BTreeMap, VecDeque};

use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::ids::{JobId, Tag};
use bulkhead_proto::limits::BATCH_MAX;

use crate::client::{DaemonClient, Until};
use crate::error::{Error, ProtocolError};
use crate::inbox::{Answer, ReceivedReply};
use crate::output::JobEnd;

/// Most batches that are open at once.
const BATCHES: usize = 64;

/// The result of waiting for one job.
#[derive(Debug)]
pub enum WaitItem {
    /// It has ended.
    Ended(JobEnd),
    /// It cannot be waited for.
    Refused {
        /// The job.
        job: JobId,
        /// Why.
        refusal: Refusal,
    },
}

/// Iterates over the jobs that are waited for: one item for each number.
#[derive(Debug)]
pub struct AwaitedJobs<'c> {
    client: &'c mut DaemonClient,
    jobs: VecDeque<JobId>,
    /// The open requests, each with the number of jobs for which no item has arrived.
    open: BTreeMap<Tag, usize>,
    ready: VecDeque<WaitItem>,
    over: bool,
}

impl DaemonClient {
    /// Waits until these jobs have ended. A number that is given twice gets one item.
    pub fn wait(&mut self, jobs: impl IntoIterator<Item = JobId>) -> AwaitedJobs<'_> {
        let jobs: std::collections::BTreeSet<JobId> = jobs.into_iter().collect();
        AwaitedJobs {
            client: self,
            jobs: jobs.into_iter().collect(),
            open: BTreeMap::new(),
            ready: VecDeque::new(),
            over: false,
        }
    }
}

impl AwaitedJobs<'_> {
    fn advance(&mut self) -> Result<Option<WaitItem>, Error> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(Some(item));
            }
            while self.open.len() < BATCHES && !self.jobs.is_empty() {
                let some: Vec<JobId> = self.jobs.drain(..BATCH_MAX.min(self.jobs.len())).collect();
                let count = some.len();
                self.open.insert(self.client.send(Request::Wait { jobs: some })?, count);
            }
            if self.open.is_empty() {
                return Ok(None);
            }
            let open = &self.open;
            if let Some(arrived) = self.client.receive(|tag| open.contains_key(&tag), Until::Closed)? {
                self.take(arrived)?;
            }
        }
    }

    fn take(&mut self, arrived: ReceivedReply) -> Result<(), Error> {
        let items: Vec<WaitItem> = match arrived.answer {
            Answer::Ended(ends) => ends.into_iter().map(WaitItem::Ended).collect(),
            Answer::Plain(Reply::Unknown(unknown)) => {
                unknown.refusals().map(|(job, refusal)| WaitItem::Refused { job, refusal }).collect()
            }
            Answer::Plain(Reply::Refused(refusal)) => return Err(Error::Refused(refusal)),
            Answer::Plain(other) => return Err(self.client.unexpected(&other)),
            Answer::Held(..) => return Err(self.client.give_up(ProtocolError::Reply("held"))),
            Answer::Log(_) => return Err(self.client.give_up(ProtocolError::Reply("logs"))),
        };
        let left = self.open.entry(arrived.tag).or_default();
        let Some(still) = left.checked_sub(items.len()) else {
            let (asked, answered) = (*left, items.len() as u64);
            return Err(self.client.give_up(ProtocolError::Count { asked, answered }));
        };
        *left = still;
        if still == 0 {
            self.open.remove(&arrived.tag);
            self.client.close(arrived.tag);
        }
        self.ready.extend(items);
        Ok(())
    }
}

impl Iterator for AwaitedJobs<'_> {
    type Item = Result<WaitItem, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let next = self.advance().transpose();
        self.over = !matches!(next, Some(Ok(_) | Err(Error::Interrupted)));
        next
    }
}

impl Drop for AwaitedJobs<'_> {
    fn drop(&mut self) {
        for tag in std::mem::take(&mut self.open).into_keys() {
            self.client.close(tag);
        }
    }
}
