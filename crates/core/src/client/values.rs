//! Plain values that this room gives: what a connection that is over leaves to be done elsewhere.
//!
//! None of them is part of the room's state; nothing can be changed through one.

use std::collections::VecDeque;

use bulkhead_proto::ids::JobId;

use crate::client::Letter;

/// What a client that hung up leaves to be done.
pub(crate) struct HungUp {
    pub(crate) uid: u32,
    /// Ends that it was to be told.
    pub(crate) letters: VecDeque<Letter>,
    /// Its attached batches: the first job of each, and how many there were at first.
    pub(crate) batches: Vec<(JobId, u32)>,
}
