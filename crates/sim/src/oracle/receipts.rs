//! `receipts`: held ends are numbered without a gap, a receipt forgets their results, and nothing else does.
//!
//! Here the ends of one connection and what its client has received. `ledger.rs` marks the jobs: a held result without a
//! receipt that is missing counts as lost unless it was evicted, and one with a receipt must not be there at the end.

use bulkhead_proto::client::message::{Reply, Request};
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::ids::JobId;

/// The held ends of one connection, in their order, and whether each job was done.
#[derive(Debug, Default)]
pub struct ReceiptOracle {
    sent: Vec<(JobId, bool)>,
    received: usize,
}

impl ReceiptOracle {
    /// A client sends a request: the jobs whose results it has received now; `None` if it is no receipt, or a receipt
    /// that has to be refused.
    pub fn hear(&mut self, request: &Request) -> Option<Vec<JobId>> {
        let Request::Received { through } = request else { return None };
        let through = usize::try_from(*through).ok().filter(|through| *through <= self.sent.len())?;
        let from = self.received.min(through);
        self.received = self.received.max(through);
        let done = self.sent[from..through].iter().filter(|(_, done)| *done);
        Some(done.map(|(job, _)| *job).collect())
    }

    /// The client gets a reply.
    ///
    /// # Errors
    /// Its ends have wrong numbers.
    pub fn got(&mut self, reply: &Reply) -> Result<(), String> {
        let Reply::Held { first, ended } = reply else { return Ok(()) };
        let expected = self.sent.len() as u64 + 1;
        if *first != expected {
            return Err(format!("held ends have the numbers from {first}, not from {expected}"));
        }
        self.sent.extend(ended.iter().map(|end| (end.job, end.outcome == Outcome::Done)));
        Ok(())
    }
}
