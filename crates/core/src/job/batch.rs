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
    pub(super) first: JobId,
    /// Jobs it had at first; their numbers follow each other.
    pub(super) count: u32,
    /// Jobs of it that are still in the table.
    pub(super) refs: u32,
    pub(super) kind: KindId,
    /// Whether a log goes with each task of that kind.
    pub(super) logs: bool,
    /// Whose workers run that kind.
    pub(super) pool: PoolId,
    pub(super) policy: Policy,
    pub(super) uid: u32,
    pub(super) client: ClientId,
    pub(super) tag: Tag,
    /// Whether ends stream to the client. Over when the client is gone.
    pub(super) attached: bool,
    /// Whether the client wants to be told how far its jobs are, while it is attached to them.
    pub(super) progress: bool,
    pub(super) accepted_us: u64,
    /// Whether the client keeps a note of it, to cancel its jobs when it has vanished.
    pub(super) watched: bool,
    /// Since when its jobs may be dispatched, for ageing and for `expires_ms`.
    pub(super) since_ns: u64,
    /// When jobs of it that had no attempt yet expire.
    pub(super) expiry: AlarmSlot,
}

impl Batch {
    /// What its jobs are to run.
    pub(crate) fn kind(&self) -> KindId {
        self.kind
    }

    /// Whose workers run that kind.
    pub(crate) fn pool(&self) -> PoolId {
        self.pool
    }

    /// How its jobs are to be treated.
    pub(crate) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The user who submitted it.
    pub(crate) fn uid(&self) -> u32 {
        self.uid
    }

    /// The connection that submitted it.
    pub(crate) fn client(&self) -> ClientId {
        self.client
    }

    /// Its numbers: the first, and how many there were at first.
    pub(crate) fn numbers(&self) -> (JobId, u32) {
        (self.first, self.count)
    }

    /// Whether ends stream to the client.
    pub(crate) fn is_attached(&self) -> bool {
        self.attached
    }

    /// Whether the client keeps a note of it, to cancel its jobs when it has vanished.
    pub(crate) fn is_watched(&self) -> bool {
        self.watched
    }

    /// When it was accepted, wall time in microseconds since 1970.
    pub(crate) fn accepted_us(&self) -> u64 {
        self.accepted_us
    }

    /// Since when its jobs may be dispatched, CLOCK_MONOTONIC nanoseconds.
    pub(crate) fn since_ns(&self) -> u64 {
        self.since_ns
    }

    /// When those of its jobs expire that had no attempt yet.
    pub(crate) fn expires_ns(&self) -> Option<u64> {
        self.expiry.at_ns()
    }

    /// The same without an expiry, which the new one sets for itself.
    pub(crate) fn copy(&self) -> Self {
        Self { policy: self.policy.clone(), expiry: AlarmSlot::default(), ..*self }
    }
}
