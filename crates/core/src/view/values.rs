//! Plain values that views take and give: the state of the drain, and a reply with its size.
//!
//! Nothing can be changed through one.

use bulkhead_proto::client::message::Reply;

/// The reply of a view, and its size in bytes, about.
pub(crate) struct ViewReply {
    pub(crate) reply: Reply,
    pub(crate) bytes: u64,
}

/// The state of the drain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DrainState {
    /// New jobs are taken.
    pub(crate) is_open: bool,
    /// Every job has ended and workers are on their way out.
    pub(crate) is_leaving: bool,
    /// When its grace is over, if it has an end; nanoseconds on the clock of the turns.
    pub(crate) until_ns: Option<u64>,
}
