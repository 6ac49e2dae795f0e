//! Plain values that rooms hand to each other through the machine: the limits of one attempt, which the room of jobs
//! takes from the policy and the room of workers enforces, and the owner of a record, a worker or a process.
//!
//! None of them is part of a state, and no change of one changes a room. Who is shown what of another's is the table in
//! `client/sight.rs`.

use bulkhead_proto::job::Policy;

use crate::event::Peer;

/// Who may see all of a thing, besides administrators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Every user: it tells nothing of any job.
    #[default]
    Service,
    /// The user whose job it is of.
    User(u32),
    /// No user: it is of jobs of several users, or it is not known whose it is.
    Administrators,
}

impl Owner {
    /// The owner once it is also of a job of this user.
    #[must_use]
    pub(crate) fn and(self, uid: u32) -> Self {
        match self {
            Self::Service => Self::User(uid),
            Self::User(same) if same == uid => self,
            Self::User(_) | Self::Administrators => Self::Administrators,
        }
    }

    /// Whether this client may see all of it.
    pub(crate) fn may_be_seen_by(self, peer: Peer) -> bool {
        peer.admin || self == Self::Service || self == Self::User(peer.uid)
    }
}

/// The limits of one attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TaskLimits {
    /// Wall time, in milliseconds.
    pub(crate) timeout_ms: Option<u64>,
    /// Time without progress, in milliseconds.
    pub(crate) no_progress_ms: Option<u64>,
    /// Processor time, in milliseconds.
    pub(crate) cpu_ms: Option<u64>,
    /// Memory beyond what the worker had, in bytes.
    pub(crate) memory_bytes: Option<u64>,
}

impl TaskLimits {
    /// The limits of a job with this policy.
    pub(crate) fn of(policy: &Policy) -> Self {
        Self {
            timeout_ms: policy.timeout_ms,
            no_progress_ms: policy.no_progress_ms,
            cpu_ms: policy.cpu_ms,
            memory_bytes: policy.memory_bytes,
        }
    }

    /// Whether the task needs its worker's ring for itself, because what is measured must be its own.
    pub(crate) fn are_watched(&self) -> bool {
        self.no_progress_ms.is_some() || self.are_measured()
    }

    /// The same of a job with this policy: asked for each job that may be offered ahead, so nothing is copied.
    pub(crate) fn watches(policy: &Policy) -> bool {
        policy.no_progress_ms.is_some() || policy.cpu_ms.is_some() || policy.memory_bytes.is_some()
    }

    /// Whether the worker is examined during the task.
    pub(crate) fn are_measured(&self) -> bool {
        self.cpu_ms.is_some() || self.memory_bytes.is_some()
    }
}
