//! Plain values that this room takes and returns.
//!
//! None of them is part of the room's state, and no change of one changes the room.

use std::rc::Rc;

use bulkhead_facts::fact::AcceptedJobs;
use bulkhead_facts::job_to_run::JobToRun;
use bulkhead_proto::client::evidence::Evidence;
use bulkhead_proto::client::message::Submit;
use bulkhead_proto::death::Death;
use bulkhead_proto::ids::{ClientId, JobId, KindId, PoolId, RegistrationId, Seq, Tag, WorkerId};
use bulkhead_proto::log::LOG_BYTES;

use crate::action::{RegisteredContent, Task};
use crate::event::Attached;
use crate::job::run::{TaskRun, Ticket};
use crate::turn::{AccountId, TaskLimits};
use bulkhead_proto::ids::Fence;

/// The first `count` jobs of a checked submit, to be admitted.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) client: ClientId,
    pub(crate) tag: Tag,
    pub(crate) uid: u32,
    pub(crate) account: AccountId,
    pub(crate) kind: KindId,
    /// The pool that runs the kind.
    pub(crate) pool: PoolId,
    pub(crate) submit: Submit,
    pub(crate) files: Vec<Attached>,
    pub(crate) count: u32,
    /// The number of the first and when they were accepted, if there is a fact of that.
    pub(crate) accepted: Option<(JobId, u64)>,
    /// What the jobs use that their connection registered.
    pub(crate) named: Option<Rc<NamedRegistrations>>,
}

/// Jobs of one submit that are to run again.
pub(crate) struct Reloading {
    pub(crate) submit: Rc<AcceptedJobs>,
    pub(crate) jobs: Vec<JobToRun>,
    pub(crate) account: AccountId,
    pub(crate) kind: KindId,
    pub(crate) pool: PoolId,
}

/// What the jobs of a submit use that their connection registered.
#[derive(Debug)]
pub(crate) struct NamedRegistrations {
    /// In the order of the submit; an arena is the first.
    pub(crate) all: Vec<(RegistrationId, Rc<RegisteredContent>)>,
    /// Whether the inputs are in an arena.
    pub(crate) has_arena: bool,
}

/// A job whose registrations no worker uses any more: it has ended, and no offer of it is left.
#[derive(Debug)]
pub(crate) struct UnnamedJob {
    pub(crate) job: JobId,
    pub(crate) client: ClientId,
    pub(crate) named: Rc<NamedRegistrations>,
    /// Whether its end says so to the client.
    pub(crate) is_told: bool,
}

/// An attempt that has begun: what is offered to the worker.
pub(crate) struct StartedAttempt {
    pub(crate) task: Task,
    pub(crate) ticket: Ticket,
    pub(crate) limits: TaskLimits,
    pub(crate) uid: u32,
    pub(crate) client: ClientId,
    pub(crate) pool: PoolId,
}

/// An offer in a worker's ring, as this room looks its task up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OfferRef {
    pub(crate) worker: WorkerId,
    pub(crate) seq: Seq,
    /// The number of the task: of a job, or of a part.
    pub(crate) number: JobId,
    /// The number of tasks; their numbers follow each other.
    pub(crate) count: u32,
    pub(crate) fence: Fence,
    pub(crate) ticket: Ticket,
}

/// The weight of an end that its attached client has not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Untold {
    pub(crate) client: ClientId,
    pub(crate) bytes: u64,
    /// Held outputs.
    pub(crate) outputs: u64,
}

/// A batch in its client's list whose last job is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchGone {
    pub(crate) client: ClientId,
    /// The number of its first job.
    pub(crate) first: JobId,
}

/// What the room of clients stops counting when an ended job leaves its retention or the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Released {
    pub(crate) untold: Option<Untold>,
    pub(crate) batch: Option<BatchGone>,
    /// The client of a job that was held for a receipt, and is no more.
    pub(crate) held_by: Option<ClientId>,
}

/// The clients to be told of an end.
pub(crate) struct EndNotice {
    /// Clients that wait for the job; with a request, if that submitted it.
    pub(crate) waiters: Vec<(ClientId, Option<Tag>)>,
    /// The client that the job is attached to.
    pub(crate) attached: Option<(ClientId, Tag)>,
    /// Clients that follow its log no more.
    pub(crate) followers: Vec<ClientId>,
}

/// A proven death, as evidence.
#[derive(Clone, Copy)]
pub(crate) struct ProvenDeath<'a> {
    pub(crate) worker: WorkerId,
    pub(crate) pid: u32,
    pub(crate) death: &'a Death,
    pub(crate) evidence: &'a Evidence,
}

/// What a task needs in memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutputNeed {
    /// Whose memory it is.
    pub(crate) account: AccountId,
    /// The most that an output of its own may take; 0 if it has none.
    pub(crate) own_max: u64,
    /// The most that the shared output may take, if the task is the first that has it; else 0.
    pub(crate) shared_max: u64,
    /// What it takes in any case: a log, room for the results of parts.
    pub(crate) fixed: u64,
    /// What its job has of it already: it is not given back while the task waits.
    pub(crate) promised: u64,
    /// Of `fixed`, what counts for its job instead of its offer.
    pub(crate) fixed_of_job: u64,
    pub(crate) is_plan: bool,
    pub(crate) has_log: bool,
}

/// What of the memory in outputs and logs can be had back, for one account or for all, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OutputSums {
    /// All that counts.
    pub(crate) held: u64,
    /// The room of tasks that are with workers.
    pub(crate) granted: u64,
    /// Outputs of kept jobs.
    pub(crate) kept: u64,
    /// Logs, of jobs that run too.
    pub(crate) logs: u64,
    /// Logs of attempts that are with workers.
    pub(crate) running_logs: u64,
    /// Dropped in this turn: most of it is free when the next one begins.
    pub(crate) leaving: u64,
    /// All that counts, in files.
    pub(crate) files: u64,
    /// Outputs of kept jobs, in files.
    pub(crate) kept_files: u64,
    /// Dropped in this turn, in files.
    pub(crate) leaving_files: u64,
}

impl OutputSums {
    /// Outputs that clients have not read, and plans.
    pub(crate) fn unread(&self) -> u64 {
        self.held - self.granted - self.kept - self.logs - self.leaving
    }

    /// Logs of jobs that do not run.
    pub(crate) fn idle_logs(&self) -> u64 {
        self.logs.saturating_sub(self.running_logs)
    }

    /// What is free or can be dropped.
    pub(crate) fn evictable(&self) -> u64 {
        self.kept + self.idle_logs() + self.leaving
    }

    /// How many files are free or can be dropped.
    pub(crate) fn evictable_files(&self) -> u64 {
        self.kept_files + self.idle_logs() / LOG_BYTES + self.leaving_files
    }
}

/// Why the jobs of a batch are to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DueReason {
    /// Their client did not come back: all that have not ended are cancelled.
    Vanished,
    /// Those end that have not begun.
    Expired,
}

/// Jobs that are to end in this turn.
pub(crate) struct DueJobs {
    pub(crate) reason: DueReason,
    pub(crate) runs: Vec<TaskRun>,
    /// What it took to find them: at least one.
    pub(crate) looks: usize,
}
