//! What the daemon shows of itself: rows for `jobs`, `workers`, `status`, and for `--json`.
//!
//! Times that are moments are microseconds since 1970 (`_us`); spans say their unit in their name.

use serde::{Deserialize, Serialize};

use crate::client::evidence::{Evidence, Seen};
use crate::client::outcome::Outcome;
use crate::client::why::Part;
use crate::codec::{Decode, Encode};
use crate::death::Death;
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
    /// The word for its outcome, if it has ended.
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

/// All about one job.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct JobDetail {
    /// As in a list.
    pub row: JobRow,
    /// How it is treated.
    pub policy: Policy,
    /// Whether its results stream to the client that submitted it.
    pub attached: bool,
    /// Whether files came with it: these are let go at its end, so that it cannot be retried after that.
    pub has_files: bool,
    /// Its input as text, cut after some hundred characters.
    pub input: String,
    /// The worker that runs it.
    pub worker: Option<WorkerId>,
    /// How far its parts are, while it is done in parts.
    pub parts: Option<Parts>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Bytes of its output.
    pub output_bytes: Option<u64>,
    /// When it ended.
    pub ended_us: Option<u64>,
    /// The deaths that ended its attempts, oldest first.
    pub deaths: Vec<JobDeath>,
}

/// How far a job is that is done in parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Parts {
    /// Done.
    pub done: u32,
    /// With workers now.
    pub running: u32,
    /// How many there are.
    pub total: u32,
}

/// A death of a worker that was running a job.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct JobDeath {
    /// When it was proven.
    pub at_us: u64,
    /// The part that was running, if it was one.
    pub part: Option<Part>,
    /// Which attempt it ended.
    pub attempt: u32,
    /// Whose death.
    pub worker: WorkerId,
    /// The process id it had.
    pub pid: u32,
    /// What it died of.
    pub death: Death,
    /// Whether it was charged to the job; else its outcome says why not.
    pub charged: bool,
    /// What else is known.
    pub evidence: Evidence,
}

/// A death in a list, with the job that was running.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct DeathRow {
    /// The job; it may have been forgotten since.
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
    /// Has a slot and nothing to run.
    Idle,
    /// Runs a task.
    Busy,
    /// Asked to leave after what it holds.
    Retiring,
    /// Killed; its death is not proven yet.
    Killed,
    /// Killed long ago, and still no proof of death.
    Stuck,
}

/// A worker in a list.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct WorkerRow {
    /// Its number.
    pub worker: WorkerId,
    /// The pool that it works in.
    pub pool: String,
    /// Its place, if it has one.
    pub slot: Option<SlotId>,
    /// Its process, once spawned.
    pub pid: Option<u32>,
    /// What it is doing.
    pub state: WorkerState,
    /// The job at the head of its ring.
    pub job: Option<JobId>,
    /// Offers it holds.
    pub offers: u32,
    /// Tasks it has ended.
    pub ended: u64,
    /// When it was spawned.
    pub spawned_us: u64,
    /// What the kernel showed of it when it became stuck.
    pub seen: Option<Seen>,
}

/// How a pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PoolHealth {
    /// The first workers are coming up.
    Starting,
    /// All is well.
    Healthy,
    /// Workers keep dying without a job to blame; they are respawned with backoff.
    Degraded,
}

/// One pool of workers in a status.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct PoolRow {
    /// Its name.
    pub name: String,
    /// How it is.
    pub health: PoolHealth,
    /// Why, in words; empty when healthy.
    pub health_reason: String,
    /// Its slots.
    pub slots: u16,
    /// Workers that run something.
    pub busy: u16,
    /// Its warm spares that are ready.
    pub spares: u16,
    /// Jobs, and parts of jobs, in its queue.
    pub waiting: u64,
}

/// The daemon itself.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Status {
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it started.
    pub started_us: u64,
    /// Whether accepted jobs outlive the service. In this version they do not.
    pub durable: bool,
    /// Whether it takes no new jobs.
    pub draining: bool,
    /// How the pools are: how the worst of them is.
    pub health: PoolHealth,
    /// Why, in words; empty when healthy. Names the pool if there are several.
    pub health_reason: String,
    /// Slots of all pools.
    pub slots: u16,
    /// Warm spares ready, of all pools.
    pub spares: u16,
    /// The pools, the default one first.
    pub pools: Vec<PoolRow>,
    /// Workers that were killed and have not died yet, with what is seen of them.
    pub stuck: Vec<WorkerRow>,
    /// Connected clients.
    pub clients: u32,
    /// Jobs by what they are doing.
    pub queued: u64,
    /// Waiting for backoff or a fresh worker.
    pub retrying: u64,
    /// Handed to workers.
    pub running: u64,
    /// Ended and kept.
    pub kept: u64,
    /// Bytes of results kept.
    pub kept_bytes: u64,
    /// Quarantined, among the kept.
    pub quarantined: u64,
    /// Most jobs that may be queued.
    pub queue_max: u64,
    /// What is short, so that jobs with a large result wait, in words; empty when nothing is.
    pub shortage: String,
    /// Counts since the start.
    pub totals: Totals,
}

/// Counts since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Totals {
    /// Jobs accepted.
    pub accepted: u64,
    /// Jobs refused.
    pub refused: u64,
    /// Jobs by outcome, each once: one that is retried counts again when it has its next outcome.
    pub done: u64,
    /// Their own code said no.
    pub failed: u64,
    /// Quarantined.
    pub crashed: u64,
    /// Met their limit.
    pub timed_out: u64,
    /// Taken back.
    pub cancelled: u64,
    /// Waited too long.
    pub expired: u64,
    /// Not ended by the service.
    pub lost: u64,
    /// Attempts that were run again, after a crash, a failure or a loss.
    pub retries: u64,
    /// Workers that died without being asked to.
    pub deaths: u64,
    /// Workers spawned.
    pub spawned: u64,
    /// Offers taken back.
    pub taken_back: u64,
    /// Answers dropped because their fence was old.
    pub stale: u64,
    /// Lies by workers.
    pub lies: u64,
    /// Kept results dropped early, to stay within what may be kept.
    pub evicted: u64,
}
