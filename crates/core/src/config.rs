//! What an administrator may choose, as far as it decides anything.
//!
//! The supervisor reads it from files and arguments; here it is plain values, and the core never asks where they
//! come from. Walls that no choice may pass stand in `proto`'s limits.

use bulkhead_proto::ids::PoolId;
use bulkhead_proto::kind::{DEFAULT_POOL, Kind};

pub use bulkhead_proto::bound::{Bound, Limits};

/// The choices; [`Config::default`] gives the documented ones. Times are milliseconds.
#[derive(Clone, Debug)]
pub struct Config {
    /// Process id of the daemon, to be shown.
    pub pid: u32,
    /// Seed of the jitter.
    pub seed: u64,
    /// The table of kinds.
    pub kinds: Vec<Kind>,
    /// Cores of the machine: how fast processor time can pass. At least 1.
    pub cores: u32,
    /// Limits of jobs that ask for none, and the most that may be asked for; a kind may have others.
    pub limits: Limits,
    /// Slots of the default pool: workers that run tasks at the same time. At least 1.
    pub slots: u16,
    /// Warm workers kept beside them. At least 1, so that a crash never waits for a spawn.
    pub spares: u16,
    /// Pools beside the default one, whose size is the two above. A kind names the pool that runs it.
    pub pools: Vec<PoolSize>,
    /// Jobs that may be queued, in all.
    pub queue_max: u64,
    /// Bytes of input that may be queued, in all.
    pub queue_bytes_max: u64,
    /// Files that clients sent with their jobs and that are held, in all; one user but root may have three quarters.
    pub files_max: u64,
    /// Bytes of memory that those pin, in all; shared as their number is.
    pub files_bytes_max: u64,
    /// Ended jobs that are kept for `result` and `job`.
    pub keep_jobs_max: u64,
    /// Bytes of their results.
    pub keep_bytes_max: u64,
    /// Outputs held in descriptors.
    pub keep_outputs_max: u64,
    /// Logs kept, of jobs that do not run; the oldest go first.
    pub keep_logs_max: u64,
    /// How long they are kept.
    pub keep_ms: u64,
    /// Quarantined jobs that are kept; the oldest go first.
    pub quarantine_max: u64,
    /// Records kept for `events`.
    pub records_max: usize,
    /// How long the attached jobs of a client that vanished live on.
    pub vanished_ms: u64,
    /// Bytes of replies that may be on their way to one client.
    pub client_credit_bytes: u64,
    /// How long a worker may take from spawn to ready.
    pub bootstrap_ms: u64,
    /// How long proof of death may take; then the worker is `stuck`.
    pub stuck_after_ms: u64,
    /// How long an idle worker may take to leave when asked.
    pub retire_ms: u64,
    /// How long a worker that a signal stopped may stay so; then it is killed.
    pub stopped_ms: u64,
    /// Tasks after which a worker is replaced when a spare is ready; `None`: never for their number.
    pub recycle_tasks: Option<u64>,
    /// Age, counted from when it was ready, at which a worker is replaced after its task.
    pub recycle_age_ms: Option<u64>,
    /// Resident size in bytes at which a worker is replaced after its task; see `recycle.rs` for how often it is examined.
    pub recycle_resident_bytes: Option<u64>,
    /// How long after a death its replacement is spawned, so that answers go first.
    pub respawn_delay_ms: u64,
    /// Restart intensity: deaths that no job is charged with, within `restart_period_ms`, that degrade the pool.
    /// As the `intensity` of an OTP supervisor, but beyond it we back off instead of giving up.
    pub restart_intensity: u32,
    /// The period of the restart intensity.
    pub restart_period_ms: u64,
    /// First backoff of a degraded pool; doubles, with jitter, up to `backoff_max_ms`.
    pub backoff_min_ms: u64,
    /// Longest backoff.
    pub backoff_max_ms: u64,
    /// Waiting that raises a queued job's priority by one.
    pub ageing_ms: u64,
}

/// One more pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSize {
    /// Its name, as kinds name it.
    pub name: String,
    /// Its slots. At least 1.
    pub slots: u16,
    /// Warm workers kept beside them. At least 1.
    pub spares: u16,
}

impl Config {
    /// Every pool, the default one first: its place here is its number.
    pub fn all_pools(&self) -> impl Iterator<Item = PoolSize> + '_ {
        let default = PoolSize { name: DEFAULT_POOL.to_owned(), slots: self.slots, spares: self.spares };
        std::iter::once(default).chain(self.pools.iter().cloned())
    }

    /// Which pool runs a kind. One that names none, or none that is there, belongs to the default one.
    pub fn pool_of(&self, kind: &Kind) -> PoolId {
        let found = self.pools.iter().position(|pool| pool.name == kind.pool);
        PoolId(found.and_then(|at| u16::try_from(at + 1).ok()).unwrap_or_default())
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            pid: 0,
            seed: 0,
            kinds: bulkhead_proto::kind::builtin(false),
            cores: 1,
            limits: Limits::default(),
            slots: 1,
            spares: 1,
            pools: Vec::new(),
            queue_max: 1_000_000,
            queue_bytes_max: 1 << 30,
            files_max: 1024,
            files_bytes_max: 1 << 30,
            keep_jobs_max: 100_000,
            keep_bytes_max: 256 << 20,
            keep_outputs_max: 1024,
            keep_logs_max: 256,
            keep_ms: 3_600_000,
            quarantine_max: 1000,
            records_max: 10_000,
            vanished_ms: 30_000,
            client_credit_bytes: 1 << 20,
            bootstrap_ms: 10_000,
            stuck_after_ms: 10_000,
            retire_ms: 2000,
            stopped_ms: 10_000,
            recycle_tasks: None,
            recycle_age_ms: None,
            recycle_resident_bytes: None,
            respawn_delay_ms: 2,
            restart_intensity: 10,
            restart_period_ms: 10_000,
            backoff_min_ms: 100,
            backoff_max_ms: 30_000,
            ageing_ms: 10_000,
        }
    }
}
