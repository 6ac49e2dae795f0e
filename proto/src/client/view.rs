//! The rows and details that the daemon shows of its jobs, workers, deaths, pools and of itself.
//!
//! The core fills them in; `bulkhead jobs`, `job`, `deaths`, `workers` and `status` show them, with `--json` under the
//! names of these fields. They must hold no more than the asking user may see: the core checks that. Moments are
//! microseconds since 1970 (`_us`); spans have their unit in their name.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::client::evidence::{Evidence, ProcessSeen};
use crate::client::outcome::{Outcome, OutputGone, Survivor};
use crate::client::record_text::Span;
use crate::client::why::Part;
use crate::codec::{Decode, Encode};
use crate::death::{Death, Signal};
use crate::ids::{JobId, SlotId, WorkerId};
use crate::job::{JobState, Policy};

/// A job in a list.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct JobRow {
    /// Its number.
    pub job: JobId,
    /// Its kind.
    pub kind: String,
    /// What it is doing.
    pub state: JobState,
    /// The word for its outcome ([`Outcome::word`]), if it has ended.
    pub outcome: Option<String>,
    /// Attempts started.
    pub attempts: u32,
    /// Deaths charged to it.
    pub crashes: u8,
    /// The user who submitted it.
    pub uid: u32,
    /// When it was accepted.
    pub accepted_us: u64,
}

/// Everything that the daemon shows of one job.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct JobDetail {
    /// The row of the job in a list.
    pub row: JobRow,
    /// Its policy.
    pub policy: Policy,
    /// Its flavour, see [`crate::client::message::Submit::flavour`]; 0: none.
    pub flavour: u32,
    /// Whether its results stream to the client that submitted it.
    pub attached: bool,
    /// Whether files came with it. The daemon closes them when the job ends, so it cannot be retried after that.
    pub has_files: bool,
    /// Its input as text, cut to a few hundred characters.
    pub input: String,
    /// The worker that runs it.
    pub worker: Option<WorkerId>,
    /// The progress of its parts, while it runs in parts.
    pub parts: Option<Parts>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Bytes of its output.
    pub output_bytes: Option<u64>,
    /// The output that it had until room was needed.
    pub output_gone: Option<OutputGone>,
    /// When it ended.
    pub ended_us: Option<u64>,
    /// The deaths that ended its attempts, oldest first.
    pub deaths: Vec<JobDeath>,
    /// Processes of its last attempt that the daemon could not end. They may have ended since.
    pub survivors: Vec<Survivor>,
}

/// The progress of a job that runs in parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Parts {
    /// Parts that are done.
    pub done: u32,
    /// Parts that workers have now.
    pub running: u32,
    /// Number of parts.
    pub total: u32,
}

/// A death of a worker that was running a job.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct JobDeath {
    /// When the death was proven.
    pub at_us: u64,
    /// The part of the job that was running, if it ran in parts.
    pub part: Option<Part>,
    /// The attempt that the death ended.
    pub attempt: u32,
    /// The worker that died.
    pub worker: WorkerId,
    /// The worker's process id.
    pub pid: u32,
    /// How it died.
    pub death: Death,
    /// Whether the death was charged to the job; if not, the job's outcome says why.
    pub charged: bool,
    /// What else is known of the death.
    pub evidence: Evidence,
}

/// A death in a list, with the job that was running.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct DeathRow {
    /// The job, which may have been forgotten since.
    pub job: JobId,
    /// Its kind.
    pub kind: String,
    /// The user who submitted it.
    pub uid: u32,
    /// The death.
    #[serde(flatten)]
    pub death: JobDeath,
}

/// What a worker is doing, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkerState {
    /// Spawned, not yet connected.
    Starting,
    /// Warm, has run nothing, has no slot.
    Spare,
    /// Has a slot and no task.
    Idle,
    /// Runs a task.
    Busy,
    /// Was asked to leave once its tasks have ended.
    Retiring,
    /// Killed; its death is not proven yet.
    Killed,
    /// Killed, and the proof of its death is overdue.
    Stuck,
}

/// A worker in a list. What it runs is shown to the user of its task and to administrators: others see no pid, job, look,
/// stop or program.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct WorkerRow {
    /// Its number.
    pub worker: WorkerId,
    /// The pool that it works in.
    pub pool: String,
    /// Its slot, if it has one.
    pub slot: Option<SlotId>,
    /// Whether that slot is lent: one beyond the number of its pool.
    pub lent: bool,
    /// The user to whom it is lent, if the client may see that.
    pub lent_to: Option<u32>,
    /// Its process, once spawned, if the client may see it.
    pub pid: Option<u32>,
    /// What it is doing.
    pub state: WorkerState,
    /// The job at the head of its ring, if the client may see it.
    pub job: Option<JobId>,
    /// Offers that it has, of jobs that the client may see.
    pub offers: u32,
    /// Tasks that it has ended.
    pub ended: u64,
    /// When it was spawned.
    pub spawned_us: u64,
    /// Set while a signal has stopped the worker itself, in whatever state.
    pub stopped: Option<StoppedWorker>,
    /// What the kernel showed of it when it became stuck.
    pub seen: Option<ProcessSeen>,
    /// Set while a signal has stopped the program that it runs.
    pub program: Option<StoppedProgram>,
}

/// A worker, while a signal has stopped it: it runs nothing, and is killed unless SIGCONT continues it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct StoppedWorker {
    /// For how long it has been stopped.
    pub for_ms: u64,
    /// Time until it is killed for it.
    pub left_ms: u64,
}

impl fmt::Display for StoppedWorker {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (stopped, left) = (Span::ms(self.for_ms), Span::ms(self.left_ms));
        write!(out, "stopped by a signal for {stopped}, killed in {left} unless SIGCONT comes")
    }
}

/// The program of a task, while a signal has stopped it. The worker says so; other processes of the task may run or be
/// stopped too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct StoppedProgram {
    /// Its process id.
    pub pid: u32,
    /// The signal.
    pub signal: i32,
    /// When it was stopped.
    pub since_us: u64,
    /// For how long it has been stopped.
    pub for_ms: u64,
    /// Time until the task is ended for it, unless a SIGCONT continues the program; `None`: no such limit is set.
    pub left_ms: Option<u64>,
}

impl fmt::Display for StoppedProgram {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "its program (pid {}) is stopped by {}", self.pid, Signal(self.signal))
    }
}

/// A process that the daemon may not end and that has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct SurvivorRow {
    /// The process.
    #[serde(flatten)]
    pub survivor: Survivor,
    /// The worker that left it, if that is known.
    pub worker: Option<WorkerId>,
    /// The job that left it, if that is known.
    pub job: Option<JobId>,
}

/// The health of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PoolHealth {
    /// Its first workers are starting.
    Starting,
    /// Its workers start and live.
    Healthy,
    /// Its workers keep dying with no job to charge; new ones are spawned with backoff.
    Degraded,
}

/// One pool of workers in a status.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct PoolRow {
    /// Its name.
    pub name: String,
    /// Its health.
    pub health: PoolHealth,
    /// Why it is not healthy, as a text for people; empty if it is.
    pub health_reason: String,
    /// Number of its slots.
    pub slots: u16,
    /// Workers that run a task.
    pub busy: u16,
    /// Spares that are ready.
    pub spares: u16,
    /// Jobs, and parts of jobs, in its queue.
    pub waiting: u64,
    /// Slots beyond its number that it has lent.
    pub lent: u16,
    /// The most that it lends.
    pub lend_max: u16,
    /// The most of its workers that one user may hold; `None`: no limit.
    pub running_max: Option<u16>,
}

/// The state of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Status {
    /// Its version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// When it started.
    pub started_us: u64,
    /// Whether accepted jobs survive the end of the service. In this version they do not.
    pub durable: bool,
    /// Whether it drains: it accepts no new jobs.
    pub draining: bool,
    /// The health of the worst pool.
    pub health: PoolHealth,
    /// Why that pool is not healthy, as a text for people; empty if it is. Names the pool if there are several.
    pub health_reason: String,
    /// Slots of all pools.
    pub slots: u16,
    /// Warm spares ready, of all pools.
    pub spares: u16,
    /// The pools, the default one first.
    pub pools: Vec<PoolRow>,
    /// Workers that are stuck: killed, and not dead yet.
    pub stuck: Vec<WorkerRow>,
    /// Workers in slots that are lent.
    pub lent: Vec<WorkerRow>,
    /// Processes that dead workers left, that run as other users and so cannot be ended; the first
    /// [`crate::limits::SURVIVORS_SHOWN`], those of jobs that the client may see.
    pub survivors: Vec<SurvivorRow>,
    /// Connected clients.
    pub clients: u32,
    /// Jobs in a queue.
    pub queued: u64,
    /// Jobs that wait for their backoff, or for a worker that has run nothing.
    pub retrying: u64,
    /// Jobs that workers have.
    pub running: u64,
    /// Jobs that have ended and are kept.
    pub kept: u64,
    /// Bytes of their results, outputs in memory included.
    pub kept_bytes: u64,
    /// The memory in outputs and logs.
    pub outputs: OutputMemory,
    /// Kept jobs that are quarantined.
    pub quarantined: u64,
    /// Most jobs that may be queued.
    pub queue_max: u64,
    /// Why jobs with a large result wait, as a text for people; empty if they do not.
    pub shortage: String,
    /// Counts since the start.
    pub totals: Totals,
    /// What users hold of each bounded resource: the own user's account first; an administrator also sees those of
    /// others, the fullest first, about [`crate::limits::ACCOUNTS_SHOWN`].
    pub accounts: Vec<AccountRow>,
    /// Accounts that the client may see and that are not listed.
    pub accounts_left_out: u64,
}

/// What one user holds of the bounded resources.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct AccountRow {
    /// The user; `None`: the service itself.
    pub uid: Option<u32>,
    /// What it holds. In the own account also resources of which it holds nothing, for their bounds.
    pub holds: Vec<HoldingRow>,
}

/// How much one user holds of one resource.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct HoldingRow {
    /// What it is, in the plural.
    pub resource: String,
    /// How much the user holds.
    pub held: u64,
    /// The most that the user may hold. `None`: there is no bound, or what is beyond it is dropped from the user who
    /// holds most.
    pub share: Option<u64>,
    /// How much more the user may take now: less than up to the share if all users together fill the bound. `None` where
    /// `share` is.
    pub left: Option<u64>,
    /// The bound of all users together, if there is one.
    pub bound: Option<u64>,
    /// What sets the bound: a key of the configuration, or a limit of the system. `None`: it is fixed, or there is none.
    pub key: Option<String>,
    /// Whether the bound is a number that nothing sets.
    pub fixed: bool,
}

impl Status {
    /// Adds what another ledger has of the same accounts. Of a resource that both have, the row with a bound stays.
    pub fn add_accounts(&mut self, rows: Vec<AccountRow>, left_out: u64) {
        for row in rows {
            match self.accounts.iter_mut().find(|known| known.uid == row.uid) {
                Some(known) => row.holds.into_iter().for_each(|holding| known.add(holding)),
                None => self.accounts.push(row),
            }
        }
        self.accounts_left_out = self.accounts_left_out.max(left_out);
    }
}

impl AccountRow {
    fn add(&mut self, holding: HoldingRow) {
        match self.holds.iter_mut().find(|known| known.resource == holding.resource) {
            Some(known) if known.bound.is_none() => *known = holding,
            Some(_) => {}
            None => self.holds.push(holding),
        }
    }
}

/// The memory in outputs and logs, from the offer that they are made for to their last close, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct OutputMemory {
    /// All of it.
    pub held: u64,
    /// What tasks that run may write.
    pub running: u64,
    /// Outputs that no client has read yet, and plans of jobs in parts.
    pub unread: u64,
    /// Outputs of kept jobs: the oldest go when there is too little room.
    pub kept: u64,
    /// Logs.
    pub logs: u64,
    /// The bound of all users together (`outputs_bytes_max`).
    pub max: u64,
}

/// Counts since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Totals {
    /// Jobs accepted.
    pub accepted: u64,
    /// Jobs refused.
    pub refused: u64,
    /// Outcomes `done`. A job that is retried counts once for each outcome that it gets.
    pub done: u64,
    /// Outcomes `failed`.
    pub failed: u64,
    /// Outcomes `crashed`.
    pub crashed: u64,
    /// Outcomes `timed-out`.
    pub timed_out: u64,
    /// Outcomes `cancelled`.
    pub cancelled: u64,
    /// Outcomes `expired`.
    pub expired: u64,
    /// Outcomes `lost`.
    pub lost: u64,
    /// Attempts that repeated an earlier one, after a crash, a failure or a loss.
    pub retries: u64,
    /// Workers that died without being asked to.
    pub deaths: u64,
    /// Workers spawned.
    pub spawned: u64,
    /// Offers taken back.
    pub taken_back: u64,
    /// Answers dropped because their fence was old.
    pub stale: u64,
    /// Protocol violations by workers.
    #[serde(rename = "lies")]
    pub violations: u64,
    /// Kept results that were dropped early because a limit of what is kept was reached.
    pub evicted: u64,
}
