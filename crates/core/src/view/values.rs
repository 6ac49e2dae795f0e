//! Plain values that views take and give: how far the end of the daemon is, and a reply with its size.
//!
//! Nothing can be changed through one.

use bulkhead_proto::client::message::Reply;

/// What a request for a list or a row is answered with, and about how many bytes that takes.
pub(crate) struct ViewReply {
    pub(crate) reply: Reply,
    pub(crate) bytes: u64,
}

/// How far the end of the daemon is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DrainState {
    /// New jobs are taken.
    pub(crate) is_open: bool,
    /// Every job has ended and workers are on their way out.
    pub(crate) is_leaving: bool,
    /// When its grace is over, if it has an end; CLOCK_MONOTONIC nanoseconds.
    pub(crate) until_ns: Option<u64>,
}
