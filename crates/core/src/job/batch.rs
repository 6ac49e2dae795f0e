//! A batch: the fields that all jobs of one submit share, so that each job stays small.
//!
//! `refs` counts the jobs of a batch, and the last job removes it. After admission only `attached` changes, when the
//! client is gone, and `since_ns`, when a part has its turn.

use bulkhead_proto::ids::{ClientId, JobId, KindId, PoolId, Tag};
use bulkhead_proto::job::Policy;

use crate::turn::{AccountId, AlarmSlot, Flavour};

/// The jobs of one submit, or one job that was asked to run again.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Number of its first job.
    pub(super) first: JobId,
    /// Jobs in it when it was admitted; their numbers follow each other.
    pub(super) count: u32,
    /// Jobs of it in the table, plus one for a part set.
    pub(super) refs: u32,
    pub(super) kind: KindId,
    /// Whether a log goes with each task of that kind.
    pub(super) logs: bool,
    /// The pool whose workers run the kind.
    pub(super) pool: PoolId,
    pub(super) policy: Policy,
    pub(super) uid: u32,
    /// Which of its user's tasks of the kind take about the same time; 0: it is not told apart.
    pub(super) flavour: u32,
    /// The account of that user.
    pub(super) account: AccountId,
    pub(super) client: ClientId,
    pub(super) tag: Tag,
    /// Whether ends are sent to the client as they come. `false` once the client is gone.
    pub(super) attached: bool,
    /// Whether a result that was sent to the client is kept until its receipt.
    pub(super) held: bool,
    /// Whether what becomes of its jobs is stored as facts.
    pub(super) durable: bool,
    /// Whether the client subscribed to the progress of its jobs, while they are attached.
    pub(super) progress: bool,
    pub(super) accepted_us: u64,
    /// Whether the client keeps the batch in its list, so that its jobs are cancelled after it has vanished.
    pub(super) watched: bool,
    /// When its jobs could first be dispatched: ageing and `expires_ms` count from here.
    pub(super) since_ns: u64,
    /// When its jobs expire that have had no attempt yet.
    pub(super) expiry: AlarmSlot,
}

impl Batch {
    /// The kind of its jobs.
    pub(crate) fn kind(&self) -> KindId {
        self.kind
    }

    /// The kind of its jobs, and their flavour.
    pub(crate) fn flavour(&self) -> Flavour {
        Flavour { kind: self.kind, uid: self.uid, number: self.flavour }
    }

    /// The pool whose workers run the kind.
    pub(crate) fn pool(&self) -> PoolId {
        self.pool
    }

    /// The granted policy of its jobs.
    pub(crate) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The user who submitted it.
    pub(crate) fn uid(&self) -> u32 {
        self.uid
    }

    /// The account of that user. It is open as long as the batch has jobs.
    pub(crate) fn account(&self) -> AccountId {
        self.account
    }

    /// The connection that submitted it.
    pub(crate) fn client(&self) -> ClientId {
        self.client
    }

    /// The number of its first job, and how many there were at admission.
    pub(crate) fn numbers(&self) -> (JobId, u32) {
        (self.first, self.count)
    }

    /// Whether ends are sent to the client as they come.
    pub(crate) fn is_attached(&self) -> bool {
        self.attached
    }

    /// Whether a result that was sent to the client is kept until its receipt.
    pub(crate) fn is_held(&self) -> bool {
        self.held
    }

    /// Whether what becomes of its jobs is stored as facts.
    pub(crate) fn is_durable(&self) -> bool {
        self.durable
    }

    /// The client, if its jobs are held for its receipts.
    pub(super) fn holder(&self) -> Option<ClientId> {
        self.held.then_some(self.client)
    }

    /// Whether the client keeps the batch in its list, so that its jobs are cancelled after it has vanished.
    pub(crate) fn is_watched(&self) -> bool {
        self.watched
    }

    /// When it was accepted, wall time in microseconds since 1970.
    pub(crate) fn accepted_us(&self) -> u64 {
        self.accepted_us
    }

    /// When its jobs could first be dispatched, nanoseconds on the clock of the turns.
    pub(crate) fn since_ns(&self) -> u64 {
        self.since_ns
    }

    /// When those of its jobs expire that had no attempt yet.
    pub(crate) fn expires_ns(&self) -> Option<u64> {
        self.expiry.at_ns()
    }

    /// A copy with an empty expiry slot.
    pub(crate) fn copy(&self) -> Self {
        Self { policy: self.policy.clone(), expiry: AlarmSlot::default(), ..*self }
    }
}
