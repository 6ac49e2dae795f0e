//! Plain values that this room returns: what a client that hung up leaves for the machine to do.
//!
//! None of them is part of the room's state, and no change of one changes the room.

use std::collections::VecDeque;

use bulkhead_proto::ids::JobId;

use crate::client::Letter;

/// What the machine does for a client that hung up.
pub(crate) struct HungUp {
    pub(crate) uid: u32,
    /// Its unread letters.
    pub(crate) letters: VecDeque<Letter>,
    /// Its attached batches: the first job of each, and how many there were at admission.
    pub(crate) batches: Vec<(JobId, u32)>,
}
