//! Receipts: the ends that a client was sent in [`Reply::Held`], numbered, until it reports that it has them.
//!
//! A client reports all ends up to a number at once. The room of jobs keeps the results meanwhile and may evict one;
//! here only the number of its job is left. A client that reports nothing may use a quarter of each bound of kept results:
//! the oldest of its ends are dropped beyond that, so that they do not evict the results of others. Numbers are never
//! used again; those of dropped ends count as received.
//!
//! A result that is evicted or forgotten leaves its end here, and is counted: once half of the ends may be of results that are
//! gone, those are dropped. So the ends of all connections together take memory as kept jobs do, and no more.

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
    number: u64,
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
    /// Held jobs of the client that have left since the ends were last looked through.
    gone: usize,
}

/// A deque that has been long keeps no more than this much room, in items.
const ROOM: usize = 64;

/// Gives back the room of a deque that was far longer than it is.
pub(super) fn give_back_room<T>(items: &mut VecDeque<T>) {
    if items.capacity() > ROOM.max(4 * items.len()) {
        items.shrink_to(2 * items.len());
    }
}

impl SentEnds {
    /// Numbers these ends as the next ones; returns their reply.
    pub(super) fn number(&mut self, ended: Vec<JobEnded>) -> Reply {
        let first = self.last + 1;
        for end in &ended {
            self.last += 1;
            let (bytes, has_output) = (bytes_of(end), matches!(end.output, JobOutput::Descriptor { .. }));
            self.bytes += bytes;
            self.outputs += u64::from(has_output);
            self.ends.push_back(SentEnd { number: self.last, job: end.job, bytes, has_output });
        }
        Reply::Held { first, ended }
    }

    fn pop(&mut self) -> Option<JobId> {
        let SentEnd { job, bytes, has_output, .. } = self.ends.pop_front()?;
        count_down(&mut self.bytes, bytes, "bytes of ends without a receipt");
        count_down(&mut self.outputs, u64::from(has_output), "outputs without a receipt");
        Some(job)
    }

    /// Drops the ends of jobs that are not kept, if they may be more than half of all.
    fn drop_gone(&mut self, is_kept: impl Fn(JobId) -> bool) {
        if 2 * self.gone <= self.ends.len() {
            return;
        }
        self.gone = 0;
        self.ends.retain(|end| is_kept(end.job));
        self.bytes = self.ends.iter().map(|end| end.bytes).sum();
        self.outputs = self.ends.iter().filter(|end| end.has_output).count() as u64;
        give_back_room(&mut self.ends);
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
        let count = sent.ends.partition_point(|end| end.number <= through);
        let jobs = (0..count).filter_map(|_| sent.pop()).collect();
        give_back_room(&mut sent.ends);
        Ok(jobs)
    }

    /// A held job of a client has left the table, or runs again.
    pub(crate) fn held_job_gone(&mut self, id: ClientId, is_kept: impl Fn(JobId) -> bool) {
        if let Some(client) = self.connected(id) {
            client.sent.gone += 1;
            client.sent.drop_gone(is_kept);
        }
    }

    /// Ends of a client were taken off: those of results that are gone may be more than half of the rest.
    pub(crate) fn ends_taken(&mut self, id: ClientId, is_kept: impl Fn(JobId) -> bool) {
        if let Some(client) = self.connected(id) {
            client.sent.drop_gone(is_kept);
        }
    }

    /// Checks that ends of results that are gone do not pile up.
    pub(crate) fn audit_sent(&self, is_kept: impl Fn(JobId) -> bool) {
        for (id, client) in &self.map {
            let ends = &client.sent.ends;
            let gone = ends.iter().filter(|end| !is_kept(end.job)).count();
            assert!(
                2 * gone <= ends.len(),
                "of {} ends that client {id} was sent, {gone} are gone",
                ends.len()
            );
        }
    }

    /// The oldest end of a client without a receipt, if its ends are more than its share.
    pub(crate) fn too_much_unreceived(&mut self, turn: &Turn, id: ClientId) -> Option<JobId> {
        let sent = &mut self.connected(id)?.sent;
        if sent.is_too_much(turn.config()) { sent.pop() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deque_that_was_long_gives_its_room_back() {
        let mut items: VecDeque<u64> = (0..100_000).collect();
        items.truncate(30_000);
        give_back_room(&mut items);
        assert!(items.capacity() >= 100_000, "it is not moved for a little");
        items.clear();
        give_back_room(&mut items);
        assert!(items.capacity() <= ROOM);
    }
}
