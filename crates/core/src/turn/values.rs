//! Plain values that rooms hand to each other through the machine: the limits of one attempt, which the room of jobs
//! takes from the policy and the room of workers enforces, the owner of a record, a worker or a process, and what
//! accounts count.
//!
//! None of them is part of a state, and no change of one changes a room. Who is shown what of another's is the table in
//! `client/sight.rs`.

use bulkhead_proto::ids::KindId;
use bulkhead_proto::job::Policy;
use bulkhead_proto::limits::OUTPUTS_KEY;

use crate::event::Peer;

/// The place of an account in the ledger that opened it. It may be given to another account once the account holds
/// nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AccountId(pub(crate) u32);

impl AccountId {
    /// The service's own: records of no user.
    pub const SERVICE: Self = Self(0);
}

/// Tasks that take about the same time: those of a kind, or of a kind those that one user gave this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flavour {
    pub(crate) kind: KindId,
    pub(crate) uid: u32,
    /// A number of the client's choice; 0: none.
    pub(crate) number: u32,
}

impl Flavour {
    /// Whether it is flavour 0: the kind alone says how long its tasks take.
    pub(crate) fn is_none(self) -> bool {
        self.number == 0
    }
}

/// What sets the bound of a resource for all users together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BoundOrigin {
    /// This key of the configuration.
    Key(&'static str),
    /// This limit of the system.
    System(&'static str),
    /// It is a number that nothing sets.
    Fixed,
    /// There is no bound.
    Unbounded,
}

impl BoundOrigin {
    /// The limit of the descriptors that the daemon may have open.
    pub const OPEN_FILES: Self = Self::System("RLIMIT_NOFILE");

    /// The name of the key or limit, if it is one.
    pub const fn key(self) -> Option<&'static str> {
        match self {
            Self::Key(name) | Self::System(name) => Some(name),
            Self::Fixed | Self::Unbounded => None,
        }
    }
}

/// What accounts count. A ledger has a bound for those that its owner decides about, and none for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Resource {
    /// Connections, and in the core also clients that vanished and have attached jobs.
    Connections,
    /// Jobs in the table, in whatever state.
    Jobs,
    /// Jobs that wait: queued, for a backoff, or to run alone.
    Queue,
    /// Bytes of the inputs of jobs that wait.
    QueueBytes,
    /// Files that came with jobs.
    Files,
    /// Bytes of memory that such files pin.
    FileBytes,
    /// Bytes of arenas: memory that clients and workers share, which they registered.
    ArenaBytes,
    /// What connections have registered.
    Registrations,
    /// Ends that clients wait for by request, unread letters included.
    Waits,
    /// Jobs of requests that wait for what the journal has of them, and those requests.
    LookUps,
    /// Durable submits that are not stored.
    Submits,
    /// Bytes of their inputs.
    SubmitBytes,
    /// Requests that go on: `events` and `logs` that follow.
    Readers,
    /// Workers that have claimed a task.
    Workers,
    /// Bytes of results of attached jobs that their clients have not read.
    UnreadResults,
    /// Ended jobs that are kept.
    Kept,
    /// Bytes of their results.
    KeptBytes,
    /// Their outputs in held descriptors.
    KeptOutputs,
    /// Bytes of memory in outputs and logs.
    OutputBytes,
    /// Those outputs and logs, each of which is a descriptor of the shell.
    OpenOutputs,
    /// Jobs in quarantine.
    Quarantined,
    /// Logs that are kept.
    Logs,
    /// Records kept for `events`.
    Records,
    /// Deaths kept for `deaths`.
    Deaths,
    /// Descriptors that clients attached to requests.
    Descriptors,
    /// Bytes of unfinished frames of clients.
    PartialBytes,
    /// Bytes of replies that wait for clients to read.
    UnreadBytes,
    /// Descriptors that lie unread in sockets of clients.
    UnreadDescriptors,
}

impl Resource {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();
    /// Every resource, in the order of its number.
    pub const ALL: [Self; 28] = [
        Self::Connections,
        Self::Jobs,
        Self::Queue,
        Self::QueueBytes,
        Self::Files,
        Self::FileBytes,
        Self::ArenaBytes,
        Self::Registrations,
        Self::Waits,
        Self::LookUps,
        Self::Submits,
        Self::SubmitBytes,
        Self::Readers,
        Self::Workers,
        Self::UnreadResults,
        Self::Kept,
        Self::KeptBytes,
        Self::KeptOutputs,
        Self::OutputBytes,
        Self::OpenOutputs,
        Self::Quarantined,
        Self::Logs,
        Self::Records,
        Self::Deaths,
        Self::Descriptors,
        Self::PartialBytes,
        Self::UnreadBytes,
        Self::UnreadDescriptors,
    ];

    /// Whether what is over the bound is dropped, from whoever holds most. Of the others, one user gets a share.
    pub const fn is_evicted(self) -> bool {
        matches!(
            self,
            Self::Kept
                | Self::KeptBytes
                | Self::KeptOutputs
                | Self::Quarantined
                | Self::Logs
                | Self::Records
                | Self::Deaths
                | Self::PartialBytes
                | Self::UnreadBytes
        )
    }

    /// What sets its bound, unless `Config::lowered` says otherwise.
    pub const fn origin(self) -> BoundOrigin {
        match self {
            Self::Connections => BoundOrigin::Key("clients_max"),
            Self::Queue => BoundOrigin::Key("queue_max"),
            Self::QueueBytes => BoundOrigin::Key("queue_bytes_max"),
            Self::Files => BoundOrigin::Key("files_max"),
            Self::FileBytes => BoundOrigin::Key("files_bytes_max"),
            Self::ArenaBytes => BoundOrigin::Key("arena_bytes_max"),
            Self::Kept => BoundOrigin::Key("keep_jobs_max"),
            Self::KeptBytes | Self::UnreadResults => BoundOrigin::Key("keep_bytes_max"),
            Self::KeptOutputs => BoundOrigin::Key("keep_outputs_max"),
            Self::OutputBytes => BoundOrigin::Key(OUTPUTS_KEY),
            Self::Submits => BoundOrigin::Key("journal_queue_max"),
            Self::SubmitBytes => BoundOrigin::Key("journal_queue_bytes_max"),
            Self::OpenOutputs | Self::Descriptors | Self::UnreadDescriptors => BoundOrigin::OPEN_FILES,
            Self::Waits
            | Self::LookUps
            | Self::Readers
            | Self::Registrations
            | Self::Quarantined
            | Self::Logs
            | Self::Records
            | Self::Deaths
            | Self::PartialBytes
            | Self::UnreadBytes => BoundOrigin::Fixed,
            Self::Jobs | Self::Workers => BoundOrigin::Unbounded,
        }
    }

    /// What it is, for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Jobs => "jobs",
            Self::Queue => "queued jobs",
            Self::QueueBytes => "bytes of queued inputs",
            Self::Files => "files that come with jobs",
            Self::FileBytes => "bytes of memory in files that come with jobs",
            Self::ArenaBytes => "bytes of memory in arenas",
            Self::Registrations => "registrations",
            Self::Waits => "jobs to wait for",
            Self::LookUps => "jobs to be looked up in the journal",
            Self::Submits => "durable submits that are not stored",
            Self::SubmitBytes => "bytes of durable submits that are not stored",
            Self::Readers => "running events and logs requests",
            Self::Workers => "workers",
            Self::UnreadResults => "bytes of unread results",
            Self::Kept => "kept jobs",
            Self::KeptBytes => "bytes of kept results",
            Self::KeptOutputs => "held outputs",
            Self::OutputBytes => "bytes of memory in outputs and logs",
            Self::OpenOutputs => "open outputs and logs",
            Self::Quarantined => "quarantined jobs",
            Self::Logs => "kept logs",
            Self::Records => "records",
            Self::Deaths => "kept deaths",
            Self::Descriptors => "descriptors that come with requests",
            Self::PartialBytes => "bytes of unfinished frames",
            Self::UnreadBytes => "bytes of unread replies",
            Self::UnreadDescriptors => "unread descriptors",
        }
    }
}

/// Who may see all of a thing, besides administrators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
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

    /// The owner of two things that are told in one.
    #[must_use]
    pub(crate) fn or(self, other: Self) -> Self {
        match (self, other) {
            (same, Self::Service) | (Self::Service, same) => same,
            (owner, Self::User(uid)) => owner.and(uid),
            (_, Self::Administrators) => Self::Administrators,
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
