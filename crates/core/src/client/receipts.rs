//! Receipts: the ends that a client was sent in [`Reply::Held`], numbered, until it reports that it has them.
//!
//! A client reports all ends up to a number at once. The room of jobs keeps the results meanwhile and may evict one;
//! here only the number of its job is left. A client that reports nothing may use a quarter of each bound of kept results:
//! the oldest of its ends are dropped beyond that, so that they do not evict the results of others. Numbers are never
//! used again; those of dropped ends count as received.

use std::collections::VecDeque;

use bulkhead_proto::client::message::Reply;
use bulkhead_proto::client::outcome::{JobEnded, JobOutput};
use bulkhead_proto::ids::{ClientId, JobId};

use crate::client::{Clients, bytes_of};
use crate::config::Config;
use crate::turn::{Turn, count_down};

/// The part of each bound of kept results that the ends without a receipt of one connection may use.
const SHARE: u64 = 4;

/// One end without a receipt.
#[derive(Clone, Copy, Debug)]
struct SentEnd {
    job: JobId,
    bytes: u64,
    has_output: bool,
}

/// The ends without a receipt of one connection, the oldest first.
#[derive(Debug, Default)]
pub(super) struct SentEnds {
    ends: VecDeque<SentEnd>,
    /// The number of the last end that was sent.
    last: u64,
    bytes: u64,
    outputs: u64,
}

impl SentEnds {
    /// Numbers these ends as the next ones; returns their reply.
    pub(super) fn number(&mut self, ended: Vec<JobEnded>) -> Reply {
        let first = self.last + 1;
        self.last += ended.len() as u64;
        for end in &ended {
            let (bytes, has_output) = (bytes_of(end), matches!(end.output, JobOutput::Descriptor { .. }));
            self.bytes += bytes;
            self.outputs += u64::from(has_output);
            self.ends.push_back(SentEnd { job: end.job, bytes, has_output });
        }
        Reply::Held { first, ended }
    }

    fn pop(&mut self) -> Option<JobId> {
        let SentEnd { job, bytes, has_output } = self.ends.pop_front()?;
        count_down(&mut self.bytes, bytes, "bytes of ends without a receipt");
        count_down(&mut self.outputs, u64::from(has_output), "outputs without a receipt");
        Some(job)
    }

    /// Whether they are more than the share of one connection. A single end never is.
    fn is_too_much(&self, config: &Config) -> bool {
        let above = |count: u64, bound: u64| count > bound / SHARE;
        self.ends.len() > 1
            && (above(self.ends.len() as u64, config.keep_jobs_max)
                || above(self.bytes, config.keep_bytes_max)
                || above(self.outputs, config.keep_outputs_max))
    }
}

impl Clients {
    /// A client has the ends up to this number: returns their jobs.
    ///
    /// # Errors
    /// The number of the last end that was sent, if `through` is higher.
    pub(crate) fn receive(&mut self, id: ClientId, through: u64) -> Result<Vec<JobId>, u64> {
        let Some(client) = self.connected(id) else { return Ok(Vec::new()) };
        let sent = &mut client.sent;
        if through > sent.last {
            return Err(sent.last);
        }
        let left = sent.last - through;
        let count = (sent.ends.len() as u64).saturating_sub(left);
        Ok((0..count).filter_map(|_| sent.pop()).collect())
    }

    /// The oldest end of a client without a receipt, if its ends are more than its share.
    pub(crate) fn too_much_unreceived(&mut self, turn: &Turn, id: ClientId) -> Option<JobId> {
        let sent = &mut self.connected(id)?.sent;
        if sent.is_too_much(turn.config()) { sent.pop() } else { None }
    }
}
