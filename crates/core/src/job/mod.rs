//! Jobs: the only writer of jobs, their queues, and all that belongs to a job.
//!
//! A state and the list that goes with it change in one method, which asserts what must hold before it; `tests/` has a
//! test for each assertion. Other rooms name jobs by [`TaskRun`]s; what has to change there is returned, never called.
//!
//! | file | what it is about |
//! |---|---|
//! | `state`, `entry`, `table`, `batch`, `number_index`, `list` | the states of a job, and where it is stored |
//! | `admit`, `grant`, `files` | which jobs are admitted, with which policy and which files |
//! | `queues`, `queue`, `backlog`, `level`, `turns`, `solo_queue`, `candidate` | which job is next |
//! | `attempt` | from an offer to the end of the attempt |
//! | `part_set`, `parts` | jobs that are done in parts |
//! | `ending`, `unbegun`, `announce`, `kept`, `evictions`, `retry`, `batches`, `due_ends` | outcomes, who is told, how long they are kept, what follows |
//! | `output_need`, `held_outputs` | outputs and logs in memory: what a task needs, what is held, what goes first |
//! | `attachments`, `logs`, `progress`, `deaths` | files, logs, progress subscriptions and evidence of a job |

mod admit;
mod announce;
mod attachments;
mod attempt;
mod audit;
mod backlog;
mod batch;
mod batches;
mod candidate;
mod deaths;
mod due_ends;
mod durable;
mod ending;
mod entry;
mod evictions;
mod files;
mod grant;
mod held_outputs;
mod kept;
mod left_early;
mod level;
mod list;
mod logs;
mod number_index;
mod on_demand;
mod output_need;
mod paged_slab;
mod part_set;
mod parts;
mod progress;
mod queue;
mod queues;
mod reload;
mod retry;
mod run;
mod solo_queue;
mod spare_ends;
mod state;
mod table;
mod task_entry;
#[cfg(test)]
mod tests;
mod turns;
mod unbegun;
mod values;

use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::ids::{JobId, PoolId};

pub(crate) use attempt::truncate;
pub(crate) use batch::Batch;
pub(crate) use candidate::Candidate;
pub(crate) use deaths::EVIDENCE_MAX;
pub(crate) use ending::EndedBy;
pub(crate) use entry::Job;
pub(crate) use files::{check_files, pinned_bytes};
pub(crate) use grant::{grant, missing_file};
pub(crate) use level::TakeChoice;
pub(crate) use output_need::OutputGrant;
pub(crate) use progress::ProgressLook;
pub(crate) use run::{TaskRun, Ticket};
pub(crate) use state::{Doing, TaskKind};
pub(crate) use turns::Search;
pub(crate) use values::{
    Admission, BatchGone, DueJobs, DueReason, EndNotice, NamedRegistrations, OfferRef, OutputNeed,
    OutputSums, ProvenDeath, Released, Reloading, StartedAttempt, UnnamedJob, Untold,
};

use crate::config::RunNumbers;
use crate::event::Peer;
use crate::job::attachments::AttachmentTable;
use crate::job::deaths::RecentDeaths;
use crate::job::due_ends::DueEnds;
use crate::job::evictions::EvictionNotes;
use crate::job::held_outputs::HeldOutputs;
use crate::job::kept::KeptJobs;
use crate::job::left_early::LeftEarly;
use crate::job::logs::Logs;
use crate::job::part_set::{FIRST_PART, PartSets};
use crate::job::progress::Subscriptions;
use crate::job::queues::Queues;
use crate::job::spare_ends::SpareEnds;
use crate::job::state::Phase;
use crate::job::table::JobTable;
use crate::job::unbegun::UnbegunEnds;
use crate::turn::{Charges, Owner};

/// All jobs and parts, and everything that belongs to them.
#[derive(Debug)]
pub(crate) struct Jobs {
    table: JobTable,
    queues: Queues,
    kept: KeptJobs,
    outputs: HeldOutputs,
    attachments: AttachmentTable,
    part_sets: PartSets,
    logs: Logs,
    evictions: EvictionNotes,
    deaths: RecentDeaths,
    progress: Subscriptions,
    unbegun: UnbegunEnds,
    due: DueEnds,
    spare_ends: SpareEnds,
    left_early: LeftEarly,
}

impl Jobs {
    /// No jobs, and an empty queue for each of so many pools. Numbers of jobs begin at `first`.
    pub(crate) fn new(pools: usize, first: JobId, numbers: RunNumbers) -> Self {
        Self {
            table: JobTable::new(first),
            queues: Queues::new(pools),
            kept: KeptJobs::default(),
            outputs: HeldOutputs::default(),
            attachments: AttachmentTable::new(numbers.scratch),
            part_sets: PartSets::default(),
            logs: Logs::new(numbers.log),
            evictions: EvictionNotes::default(),
            deaths: RecentDeaths::default(),
            progress: Subscriptions::default(),
            unbegun: UnbegunEnds::default(),
            due: DueEnds::default(),
            spare_ends: SpareEnds::default(),
            left_early: LeftEarly::new(first),
        }
    }

    /// The numbers that the next shared output and the next log get.
    pub(crate) fn next_files(&self) -> (u64, u64) {
        (self.attachments.next_scratch().0, self.logs.next())
    }

    /// The job or part of this number.
    pub(crate) fn find(&self, number: JobId) -> Option<TaskRun> {
        self.table.find(number).map(|key| self.table.run(key))
    }

    /// The first job at or after this number.
    pub(crate) fn next_from(&self, number: JobId) -> Option<TaskRun> {
        self.table.next_from(number).map(|(_, key)| self.table.run(key))
    }

    /// The last job at or before this number.
    pub(crate) fn last_to(&self, number: JobId) -> Option<TaskRun> {
        self.table.last_to(number).map(|(_, key)| self.table.run(key))
    }

    /// The task of an offer, if it is still in the table, in whatever state.
    pub(crate) fn there(&self, ticket: Ticket, number: JobId, count: u32) -> Option<TaskRun> {
        let run = TaskRun { handle: ticket.handle, first: number, count };
        self.table.is_there(ticket.handle, number).then_some(run)
    }

    /// The job of this number, if this client may see it.
    ///
    /// # Errors
    /// A refusal in the same words for a job that is gone and for a job of another user, so that a refusal does not
    /// tell which numbers others have.
    pub(crate) fn visible(&self, peer: Peer, job: JobId) -> Result<TaskRun, Refusal> {
        let unknown = || Refusal::unknown(job, self.last_id(), !peer.admin);
        self.find_visible(peer, job).ok_or_else(unknown)
    }

    /// The run of this job, if the client may see it.
    pub(crate) fn find_visible(&self, peer: Peer, job: JobId) -> Option<TaskRun> {
        let run = self.find(job).filter(|_| job < FIRST_PART)?;
        Owner::User(self.batch(run).uid()).may_be_seen_by(peer).then_some(run)
    }

    /// Posts what accounts took and gave back since the last call. A turn asks some ten times, and mostly nothing has changed.
    #[inline]
    pub(crate) fn post_charges(&mut self, post: impl FnOnce(&mut Charges)) {
        if !self.table.charges.is_empty() {
            post(&mut self.table.charges);
        }
    }

    /// The last number that was given to a job.
    pub(crate) fn last_id(&self) -> JobId {
        self.table.last_id()
    }

    /// The entry of the first task of a run.
    pub(crate) fn job(&self, run: TaskRun) -> &Job {
        &self.table[self.table.open(run)]
    }

    /// The batch of a run.
    pub(crate) fn batch(&self, run: TaskRun) -> &Batch {
        self.table.batch(self.table.open(run))
    }

    /// Jobs that have not ended.
    pub(crate) fn unended(&self) -> u64 {
        self.table.unended()
    }

    /// Jobs that are queued.
    pub(crate) fn queued(&self) -> u64 {
        self.table.count(Phase::Queued)
    }

    /// Jobs that wait for their backoff, or to run alone.
    pub(crate) fn retrying(&self) -> u64 {
        self.table.count(Phase::Waiting) + self.table.count(Phase::Solo)
    }

    /// Jobs that run or whose parts do.
    pub(crate) fn running(&self) -> u64 {
        self.table.count(Phase::Running) + self.table.count(Phase::Parted)
    }

    /// Ended jobs that are still in the table.
    pub(crate) fn ended(&self) -> u64 {
        self.table.count(Phase::Ended)
    }

    /// Tasks in the queue of a pool.
    pub(crate) fn queued_in(&self, pool: PoolId) -> u64 {
        self.queues.length_in(pool)
    }

    /// All jobs that have not ended. It walks the table: only the end of the daemon calls it.
    pub(crate) fn all_unended(&self) -> Vec<TaskRun> {
        let unended = self.table.slab.iter().filter(|(_, job)| job.end().is_none() && !job.is_part());
        unended.map(|(at, _)| self.table.run(at as u32)).collect()
    }
}
