//! What the jobs of one submit share, so that each of them stays lean.
//!
//! Counted by its jobs and gone with the last of them. It never changes after admission, but for `attached`,
//! which ends when its client is gone.

use bulkhead_proto::ids::{ClientId, JobId, KindId, PoolId, Tag};
use bulkhead_proto::job::Policy;

use crate::turn::AlarmSlot;

/// The jobs of one submit, or one job that was asked to run again.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Number of its first job.
    pub(crate) first: JobId,
    /// Jobs it had at first; their numbers follow each other.
    pub(crate) count: u32,
    /// Jobs of it that are still in the table.
    pub(crate) refs: u32,
    pub(crate) kind: KindId,
    /// Whether a log goes with each task of that kind.
    pub(crate) logs: bool,
    /// Whose workers run that kind.
    pub(crate) pool: PoolId,
    pub(crate) policy: Policy,
    pub(crate) uid: u32,
    pub(crate) client: ClientId,
    pub(crate) tag: Tag,
    /// Whether ends stream to the client. Over when the client is gone.
    pub(crate) attached: bool,
    /// Whether the client wants to be told how far its jobs are, while it is attached to them.
    pub(crate) progress: bool,
    pub(crate) accepted_us: u64,
    /// Whether the client keeps a note of it, to cancel its jobs when it has vanished.
    pub(crate) watched: bool,
    /// Since when its jobs may be dispatched, for ageing and for `expires_ms`.
    pub(crate) since_ns: u64,
    /// When jobs of it that had no attempt yet expire.
    pub(crate) expiry: AlarmSlot,
}

impl Batch {
    /// The same without an expiry, which the new one sets for itself.
    pub(crate) fn copy(&self) -> Self {
        Self { policy: self.policy.clone(), expiry: AlarmSlot::default(), ..*self }
    }
}
