//! The daemon's events as a stream: first the records that the daemon has kept, then, with `follow`, new ones as they
//! come.
//!
//! The stream borrows the client, so the connection can do nothing else while it lives. If the daemon drops records
//! because this client reads too slowly, [`EventBatch::missed`] counts them; none is left out without being counted.

use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::record::Record;
use bulkhead_proto::ids::Tag;

use crate::client::{DaemonClient, Until};
use crate::error::Error;

/// The records of one reply.
#[derive(Clone, Debug)]
pub struct EventBatch {
    /// How many records the daemon dropped before the first of these because this client read too slowly.
    pub missed: u64,
    /// The records, oldest first.
    pub records: Vec<Record>,
    /// Whether the daemon has sent every record that it had at this moment.
    pub caught_up: bool,
}

/// Iterates over batches of records. Without `follow` it ends with the first batch that has caught up.
#[derive(Debug)]
pub struct Events<'c> {
    client: &'c mut DaemonClient,
    tag: Option<Tag>,
    follow: bool,
}

impl DaemonClient {
    /// The records after this index (0: from the oldest kept), and, with `follow`, also those of the future.
    ///
    /// # Errors
    /// The request cannot be sent.
    pub fn events(&mut self, after: u64, follow: bool) -> Result<Events<'_>, Error> {
        let tag = self.send(Request::Events { after, follow })?;
        Ok(Events { client: self, tag: Some(tag), follow })
    }
}

impl Iterator for Events<'_> {
    type Item = Result<EventBatch, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let until = if self.follow { Until::Closed } else { Until::Silence };
        let batch = match self.client.receive_reply(self.tag?, until) {
            Ok(Reply::Events { records, missed, caught_up }) => Ok(EventBatch { missed, records, caught_up }),
            Ok(Reply::Refused(refusal)) => Err(Error::Refused(refusal)),
            Ok(other) => Err(self.client.unexpected(&other)),
            Err(error) => Err(error),
        };
        let last = batch.as_ref().map_or(true, |batch| batch.caught_up && !self.follow);
        if last && let Some(tag) = self.tag.take() {
            self.client.close(tag);
        }
        Some(batch)
    }
}

impl Drop for Events<'_> {
    fn drop(&mut self) {
        if let Some(tag) = self.tag.take() {
            self.client.close(tag);
        }
    }
}
