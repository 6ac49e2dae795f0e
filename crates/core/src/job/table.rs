//! The table of jobs: the slab of entries, the index of their numbers, their batches, and counts by phase.
//!
//! [`JobTable::enter`] makes every change of state, and asserts that `state.rs` allows it.

use std::ops::{Index, IndexMut};

use bulkhead_proto::ids::{ClientId, JobId};
use bulkhead_proto::job::Payload;

use crate::job::batch::Batch;
use crate::job::entry::Job;
use crate::job::list::Key;
use crate::job::number_index::NumberIndex;
use crate::job::paged_slab::PagedSlab;
use crate::job::part_set::FIRST_PART;
use crate::job::run::{Handle, TaskRun};
use crate::job::state::{EntryState, PHASES, Phase, TaskKind};
use crate::turn::{AccountId, Charges, Resource, count_down};

/// All jobs and parts, and their batches.
#[derive(Debug, Default)]
pub(crate) struct JobTable {
    pub(super) slab: PagedSlab<Job>,
    numbers: NumberIndex,
    pub(super) batches: PagedSlab<Batch>,
    last: u64,
    counts: [u64; PHASES],
    /// The same counts of parts, which are no jobs.
    parts: [u64; PHASES],
    /// What the accounts of users took and gave back.
    pub(super) charges: Charges,
}

/// A job that has left the table.
pub(super) struct RemovedJob {
    pub(super) job: Job,
    /// The client for whose receipt it was held, if it was.
    pub(super) holder: Option<ClientId>,
    /// Its batch, if it was the last job of that.
    pub(super) gone: Option<Batch>,
}

impl Index<Key> for JobTable {
    type Output = Job;

    fn index(&self, key: Key) -> &Job {
        &self.slab[key as usize]
    }
}

impl IndexMut<Key> for JobTable {
    fn index_mut(&mut self, key: Key) -> &mut Job {
        &mut self.slab[key as usize]
    }
}

impl JobTable {
    /// No jobs; numbers begin at `first`.
    ///
    /// # Panics
    /// If that is 0, which is no number of a job.
    pub(crate) fn new(first: JobId) -> Self {
        let last = first.0.checked_sub(1).expect("numbers of jobs count from 1");
        Self { last, ..Self::default() }
    }

    /// The number that the next job gets.
    pub(crate) fn next_id(&self) -> JobId {
        JobId(self.last + 1)
    }

    /// The last number that was given to a job; 0 before the first.
    pub(crate) fn last_id(&self) -> JobId {
        JobId(self.last)
    }

    /// The place of the job of this number.
    pub(crate) fn find(&self, job: JobId) -> Option<Key> {
        self.numbers.find(job.0)
    }

    /// The first job at or after this number.
    pub(crate) fn next_from(&self, job: JobId) -> Option<(JobId, Key)> {
        let found = self.numbers.next_from(job.0).map(|(number, key)| (JobId(number), key));
        found.filter(|(number, _)| *number < FIRST_PART)
    }

    /// The last job at or before this number.
    pub(crate) fn last_to(&self, job: JobId) -> Option<(JobId, Key)> {
        let last = JobId(FIRST_PART.0 - 1).min(job);
        self.numbers.last_to(last.0).map(|(number, key)| (JobId(number), key))
    }

    /// Whether the task that was at this place is still there.
    pub(crate) fn is_there(&self, handle: Handle, number: JobId) -> bool {
        self.slab.get(handle.index as usize).is_some_and(|job| job.id == number)
    }

    /// The run at this place.
    pub(crate) fn run(&self, key: Key) -> TaskRun {
        let job = &self[key];
        TaskRun { handle: Handle { batch: job.batch, index: key }, first: job.id, count: 1 }
    }

    /// The place of a run.
    ///
    /// # Panics
    /// If its number is not at that place any more. A caller uses a run before the next change of its job, or asks
    /// [`JobTable::is_there`].
    pub(crate) fn open(&self, run: TaskRun) -> Key {
        assert!(self.is_there(run.handle, run.first), "job {} is not where it was", run.first);
        run.handle.index
    }

    /// The batch of a job.
    pub(crate) fn batch(&self, key: Key) -> &Batch {
        &self.batches[self[key].batch as usize]
    }

    /// Jobs in this phase.
    pub(crate) fn count(&self, phase: Phase) -> u64 {
        self.counts[phase as usize]
    }

    /// Parts in this phase.
    pub(crate) fn count_parts(&self, phase: Phase) -> u64 {
        self.parts[phase as usize]
    }

    /// Jobs that have not ended.
    pub(crate) fn unended(&self) -> u64 {
        self.counts.iter().sum::<u64>() - self.count(Phase::Ended)
    }

    /// Adds a batch that has no jobs yet.
    pub(crate) fn open_batch(&mut self, batch: Batch) -> u32 {
        let key = self.batches.insert(batch);
        u32::try_from(key).expect("fewer batches than jobs, and those are bounded far below")
    }

    /// Reserves so many numbers, which follow each other; the first of them.
    pub(crate) fn reserve(&mut self, count: u32) -> JobId {
        let first = self.next_id();
        self.last += u64::from(count);
        first
    }

    /// Adds a job to a batch, queued, under a number that was reserved for it.
    ///
    /// # Panics
    /// If the number was not given out, or is in use.
    pub(crate) fn insert(&mut self, batch: u32, number: JobId, input: Payload, task_kind: TaskKind) -> Key {
        self.insert_job(Job::new(number, batch, input, task_kind))
    }

    /// Adds a job that waits, in its state.
    ///
    /// # Panics
    /// If its number was not given out, or is in use, or it does not wait.
    pub(super) fn insert_job(&mut self, job: Job) -> Key {
        let phase = job.state.phase();
        assert!(job.id.0 <= self.last && phase.waits(), "job {} enters the table to wait", job.id);
        self.counts[phase as usize] += 1;
        let account = self.batches[job.batch as usize].account;
        self.charges.charge(account, Resource::Jobs, 1);
        charge_waiting(&mut self.charges, account, &job.input, true);
        self.enter_table(job)
    }

    /// Adds a queued part under this number. It has no input of its own.
    ///
    /// # Panics
    /// If the number is a job's, or is taken.
    pub(crate) fn insert_part(&mut self, batch: u32, number: JobId) -> Key {
        assert!(number >= FIRST_PART, "number {number} of a part is no job's");
        self.parts[Phase::Queued as usize] += 1;
        self.enter_table(Job::new(number, batch, Payload::default(), TaskKind::Run))
    }

    fn enter_table(&mut self, job: Job) -> Key {
        self.batches[job.batch as usize].refs += 1;
        let number = job.id.0;
        let key = Key::try_from(self.slab.insert(job)).expect("the queue's bound lies far below 2^32");
        self.numbers.insert(number, key);
        key
    }

    /// Removes a part in any state. The caller has taken it out of its list.
    ///
    /// # Panics
    /// If it is no part, or still in a list.
    pub(crate) fn remove_part(&mut self, key: Key) -> Job {
        let job = self.slab.remove(key as usize);
        assert!(job.is_part(), "job {} is removed as a part", job.id);
        assert!(job.links.are_loose(), "part {} has left its list before it goes", job.id);
        self.numbers.remove(job.id.0);
        count_down(&mut self.parts[job.state.phase() as usize], 1, "parts in a phase");
        // The part set is a user of the batch too, and releases it last.
        let refs = &mut self.batches[job.batch as usize].refs;
        assert!(*refs > 1, "the batch of part {} outlives it", job.id);
        *refs -= 1;
        job
    }

    /// Changes the state of a job or part.
    ///
    /// # Panics
    /// If `state.rs` does not allow it.
    #[inline]
    pub(crate) fn enter(&mut self, key: Key, state: EntryState) {
        let job = &mut self.slab[key as usize];
        let (from, to) = (job.state.phase(), state.phase());
        assert!(from.leads_to().contains(&to), "job {} went from {from:?} to {to:?}", job.id);
        let counts = if job.is_part() { &mut self.parts } else { &mut self.counts };
        count_down(&mut counts[from as usize], 1, "jobs in a phase");
        counts[to as usize] += 1;
        job.state = state;
        let account = || self.batches[job.batch as usize].account;
        // A job that waits counts with its input; its log counts while it does not run.
        if from.waits() != to.waits() && !job.is_part() {
            charge_waiting(&mut self.charges, account(), &job.input, to.waits());
        }
        if (from == Phase::Running) != (to == Phase::Running) && job.log().is_some() {
            let account = account();
            let change = if from == Phase::Running { Charges::charge } else { Charges::release };
            change(&mut self.charges, account, Resource::Logs, 1);
        }
    }

    /// Removes an ended job, and its batch if it was the last job of it. The caller has taken it out of its list.
    ///
    /// # Panics
    /// If it has not ended, or is still in a list.
    pub(super) fn remove(&mut self, key: Key) -> RemovedJob {
        let job = self.slab.remove(key as usize);
        assert_eq!(job.state.phase(), Phase::Ended, "job {} leaves the table after its end", job.id);
        assert!(job.links.are_loose(), "job {} has left its list before it goes", job.id);
        self.numbers.remove(job.id.0);
        count_down(&mut self.counts[Phase::Ended as usize], 1, "ended jobs");
        let batch = &self.batches[job.batch as usize];
        self.charges.release(batch.account, Resource::Jobs, 1);
        let holder = batch.holder();
        let gone = self.release_batch(job.batch);
        RemovedJob { job, holder, gone }
    }

    /// Moves a job to another batch; returns the old batch if it was the last job of it.
    pub(crate) fn rebatch(&mut self, key: Key, batch: u32) -> Option<Batch> {
        self.batches[batch as usize].refs += 1;
        let old = std::mem::replace(&mut self[key].batch, batch);
        self.release_batch(old)
    }

    /// Removes one user of a batch; returns the batch if that was the last.
    ///
    /// # Panics
    /// If it has no user.
    pub(crate) fn release_batch(&mut self, key: u32) -> Option<Batch> {
        let batch = &mut self.batches[key as usize];
        count_down(&mut batch.refs, 1, "users of a batch");
        (batch.refs == 0).then(|| self.batches.remove(key as usize))
    }
}

/// Charges a job that waits from now on to its account, or releases it.
fn charge_waiting(charges: &mut Charges, account: AccountId, input: &Payload, waits: bool) {
    let change = if waits { Charges::charge } else { Charges::release };
    change(charges, account, Resource::Queue, 1);
    change(charges, account, Resource::QueueBytes, input.as_bytes().len() as u64);
}
