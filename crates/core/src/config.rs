//! The configuration, as far as the core decides by it.
//!
//! The supervisor reads files and arguments into these plain values; the core does not know where they come from.
//! Limits that no configuration may exceed are in `proto`'s `limits`.

use bulkhead_proto::ids::{JobId, PoolId};
use bulkhead_proto::kind::{DEFAULT_POOL, Kind};
use bulkhead_proto::limits::{EXEC_OUTPUT_MAX_BYTES, OUTPUT_MAX_BYTES};

pub use bulkhead_proto::bound::{Bound, KindLimits};

/// How many users a daemon has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Users {
    /// One, who gets all of every bound.
    One,
    /// Several, each with a share.
    Several,
}

/// The configuration; [`Config::default`] has the documented values. Times are milliseconds.
#[derive(Clone, Debug)]
pub struct Config {
    /// Process id of the daemon, for `ping` and `status`.
    pub pid: u32,
    /// Whether the daemon has one user or several.
    pub users: Users,
    /// Seed of the jitter.
    pub seed: u64,
    /// The table of kinds.
    pub kinds: Vec<Kind>,
    /// Cores of the machine: they bound how much processor time a task can use in a second. At least 1.
    pub cores: u32,
    /// The usual and the greatest limits of jobs; a kind may have its own.
    pub limits: KindLimits,
    /// Slots of the default pool: workers that run tasks at the same time. At least 1.
    pub slots: u16,
    /// Warm workers kept beside them, so that a crash does not wait for a spawn. 0: one is started when something needs it.
    pub spares: u16,
    /// Slots beyond these that the default pool may lend.
    pub lend_max: u16,
    /// Most workers of the default pool that one user may hold; `None`: no limit.
    pub running_max: Option<u16>,
    /// Whether each worker of the default pool serves one user.
    pub one_user: bool,
    /// How long a user who holds no worker of a pool waits for one while others hold all, before the pool lends one;
    /// `None`: no pool lends.
    pub lend_after_ms: Option<u64>,
    /// Pools beside the default one. A kind names the pool that runs it.
    pub pools: Vec<PoolSize>,
    /// Most queued jobs, in all.
    pub queue_max: u64,
    /// Most bytes of queued inputs, in all.
    pub queue_bytes_max: u64,
    /// Most files of jobs that are held, in all; shared by users as `account/` says.
    pub files_max: u64,
    /// Most bytes of memory that these files pin, shared in the same way.
    pub files_bytes_max: u64,
    /// Most bytes of memory in arenas, which clients and workers share.
    pub arena_bytes_max: u64,
    /// Most ended jobs that are kept for `result` and `job`.
    pub keep_jobs_max: u64,
    /// Most bytes of their results.
    pub keep_bytes_max: u64,
    /// Most bytes of memory in outputs and logs, from the offer that they are made for to their last close.
    pub outputs_bytes_max: u64,
    /// Most of those outputs and logs at a time; users who hold little may go an eighth beyond it.
    pub open_outputs_max: u64,
    /// Most outputs of kept jobs in held descriptors.
    pub keep_outputs_max: u64,
    /// Most logs that are kept; the oldest go first, logs of running jobs never.
    pub keep_logs_max: u64,
    /// How long ended jobs are kept.
    pub keep_ms: u64,
    /// Most quarantined jobs; the oldest go first.
    pub quarantine_max: u64,
    /// Most records kept for `events`.
    pub records_max: usize,
    /// How long the attached jobs of a vanished client are kept running.
    pub vanished_ms: u64,
    /// Most bytes of replies on their way to one client.
    pub client_credit_bytes: u64,
    /// Longest time from the spawn of a worker until it is ready.
    pub bootstrap_ms: u64,
    /// Longest time for a proof of death; then the worker is `stuck`.
    pub stuck_after_ms: u64,
    /// Longest time for an idle worker to leave when asked.
    pub retire_ms: u64,
    /// Longest time that a worker may stay stopped by a signal; then it is killed.
    pub stopped_ms: u64,
    /// Longest time that a signal may stop the program of a task; then the task is timed out. `None`: no limit.
    pub program_stopped_ms: Option<u64>,
    /// Tasks after which a worker is replaced when a spare is ready; `None`: no number does that.
    pub recycle_tasks: Option<u64>,
    /// Age since it was ready at which a worker is replaced after its task.
    pub recycle_age_ms: Option<u64>,
    /// Resident size in bytes at which a worker is replaced after its task; `recycle.rs` says how often it is read.
    pub recycle_resident_bytes: Option<u64>,
    /// Whether a worker of the default pool that is due to be recycled is offered nothing more, and waits for the spare.
    pub recycle_strict: bool,
    /// Whether the first worker of each pool comes up alone: the others are spawned once it is ready, or after one second. The first
    /// task is then done sooner where a start takes as long as an interpreter's.
    pub one_first: bool,
    /// Time from a death to the spawn of its replacement, so that answers go first.
    pub respawn_delay_ms: u64,
    /// Restart intensity: uncharged deaths within `restart_period_ms` that degrade the pool. As the `intensity` of an
    /// OTP supervisor, but beyond it spawns back off instead of stopping.
    pub restart_intensity: u32,
    /// The period of the restart intensity.
    pub restart_period_ms: u64,
    /// First backoff of a degraded pool; doubles, with jitter, up to `backoff_max_ms`.
    pub backoff_min_ms: u64,
    /// Longest backoff.
    pub backoff_max_ms: u64,
    /// Waiting time that raises the urgency of a queued job by one priority.
    pub ageing_ms: u64,
    /// Bounds that are lower than the configuration says.
    pub lowered: LoweredBounds,
    /// Whether jobs may be durable, and what the journal has given for that.
    pub journal: JournalUse,
    /// The first numbers of this run.
    pub first: RunNumbers,
}

/// What the core has of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalUse {
    /// There is none: every job is volatile. Why, as a text for people.
    None(String),
    /// There is one.
    Open(JournalTerms),
}

/// Numbers that go on over the runs of a daemon with a journal, beside those of jobs: of each the first that was not given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunNumbers {
    /// Of workers.
    pub worker: u64,
    /// Of records.
    pub record: u64,
    /// Of outputs that the tasks of a job share.
    pub scratch: u64,
    /// Of logs.
    pub log: u64,
}

/// Nothing was given out yet: numbers count from 1.
impl Default for RunNumbers {
    fn default() -> Self {
        Self { worker: 1, record: 1, scratch: 1, log: 1 }
    }
}

/// An open journal, as far as the core decides by it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalTerms {
    /// The numbers of jobs that may be given out at first: from the first one to before the second.
    pub jobs: (JobId, JobId),
    /// Most facts that are made and not stored.
    pub facts_max: u64,
    /// Most bytes of these.
    pub fact_bytes_max: u64,
    /// Whether the run before has not ended by itself: a job of it may be what took the machine down.
    pub was_unclean: bool,
}

/// How long other workers wait for the first one of their pool, with [`Config::one_first`].
pub(crate) const FIRST_ALONE_MS: u64 = 1000;
/// How long they wait after it has come up: its first task does not share the cores with the starts of several interpreters.
pub(crate) const OTHERS_AFTER_MS: u64 = 10;

/// Which bounds of descriptors are lower than the configuration says, because the limit of open files is low.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoweredBounds {
    /// That of connections.
    pub clients: bool,
    /// That of files that come with jobs.
    pub files: bool,
    /// That of outputs which are kept.
    pub keep_outputs: bool,
    /// That of logs which are kept: also because outputs that are kept have a lower bound than usual.
    pub keep_logs: bool,
}

/// A pool beside the default one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSize {
    /// Its name, by which kinds choose it.
    pub name: String,
    /// Its slots. At least 1.
    pub slots: u16,
    /// Warm workers kept beside them. 0: one is started when something needs it.
    pub spares: u16,
    /// Slots beyond its own that it may lend, if [`Config::lend_after_ms`] is set.
    pub lend_max: u16,
    /// Most workers of it that one user may hold. At least 1; `None`: no limit.
    pub running_max: Option<u16>,
    /// Whether each of its workers serves one user: a spare takes the place of one that served another.
    pub one_user: bool,
    /// Whether a worker of it that is due to be recycled is offered nothing more, and waits for the spare.
    pub recycle_strict: bool,
}

impl Default for PoolSize {
    fn default() -> Self {
        Self {
            name: String::new(),
            slots: 1,
            spares: 1,
            lend_max: 0,
            running_max: None,
            one_user: false,
            recycle_strict: false,
        }
    }
}

impl Config {
    /// The first number of a job.
    pub(crate) fn first_job(&self) -> JobId {
        match &self.journal {
            JournalUse::None(_) => JobId(1),
            JournalUse::Open(open) => open.jobs.0.max(JobId(1)),
        }
    }

    /// Every pool, the default one first; its index here is its number.
    pub fn all_pools(&self) -> impl Iterator<Item = PoolSize> + '_ {
        let default = PoolSize {
            name: DEFAULT_POOL.to_owned(),
            slots: self.slots,
            spares: self.spares,
            lend_max: self.lend_max,
            running_max: self.running_max,
            one_user: self.one_user,
            recycle_strict: self.recycle_strict,
        };
        std::iter::once(default).chain(self.pools.iter().cloned())
    }

    /// The longest output in memory of a kind that does not say: so much that all workers of its pool can write one for
    /// one user at a time, from [`EXEC_OUTPUT_MAX_BYTES`] to [`OUTPUT_MAX_BYTES`].
    pub fn usual_output_max(&self, pool: PoolId) -> u64 {
        let slots = self.all_pools().nth(usize::from(pool.0)).map_or(1, |pool| pool.slots.max(1));
        let all = self.outputs_bytes_max;
        let share = if self.users == Users::One { all } else { all - all / 4 };
        (share / u64::from(slots)).clamp(EXEC_OUTPUT_MAX_BYTES, OUTPUT_MAX_BYTES)
    }

    /// The pool that runs a kind: the default one if the kind names none, or one that does not exist.
    pub fn pool_of(&self, kind: &Kind) -> PoolId {
        let found = self.pools.iter().position(|pool| pool.name == kind.pool);
        PoolId(found.and_then(|at| u16::try_from(at + 1).ok()).unwrap_or_default())
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            pid: 0,
            users: Users::Several,
            seed: 0,
            kinds: bulkhead_proto::kind::builtin(false),
            cores: 1,
            limits: KindLimits::default(),
            slots: 1,
            spares: 1,
            lend_max: 0,
            running_max: None,
            one_user: false,
            lend_after_ms: None,
            pools: Vec::new(),
            queue_max: 1_000_000,
            queue_bytes_max: 1 << 30,
            files_max: 1024,
            files_bytes_max: 1 << 30,
            arena_bytes_max: 1 << 30,
            keep_jobs_max: 100_000,
            keep_bytes_max: 256 << 20,
            outputs_bytes_max: 4 << 30,
            open_outputs_max: u64::MAX,
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
            program_stopped_ms: None,
            recycle_tasks: None,
            recycle_age_ms: None,
            recycle_resident_bytes: None,
            recycle_strict: false,
            one_first: false,
            respawn_delay_ms: 2,
            restart_intensity: 10,
            restart_period_ms: 10_000,
            backoff_min_ms: 100,
            backoff_max_ms: 30_000,
            ageing_ms: 10_000,
            lowered: LoweredBounds::default(),
            journal: JournalUse::None("this daemon has no state folder".to_owned()),
            first: RunNumbers::default(),
        }
    }
}
