//! Plan, run and merge: how a job is done in parts. The data of the parts is in `part_set.rs`.
//!
//! A few parts for each slot are made at a time and stand in lists of their own beside the jobs of their client, so
//! that a job of ten thousand parts holds nobody up. A part that ends other than done ends its job; its other parts
//! are removed, and their workers recalled or killed, without a charge. The number of jobs in parts has bounds:
//! one for each client and pool, so that jobs are finished before more are planned, and one in all, because results
//! take memory; beyond that one a user has one such job in a pool.

use std::collections::BTreeSet;
use std::rc::Rc;

use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::view::Parts;
use bulkhead_proto::client::why::Part;
use bulkhead_proto::ids::{OutputId, Seq, WorkerId};
use bulkhead_proto::job::Payload;
use bulkhead_proto::limits::{PARTS_MAX, RESULTS_MAX_BYTES};

use crate::job::Jobs;
use crate::job::attempt::truncate;
use crate::job::batch::Batch;
use crate::job::list::Key;
use crate::job::part_set::{PartSet, PartSetId, PartSets, part_of};
use crate::job::run::TaskRun;
use crate::job::state::{EntryState, Phase, TaskKind};
use crate::turn::Turn;

/// Most jobs in parts of one client in one pool: one for each slot and one more, but no more than this.
const PART_SETS_MAX: usize = 16;
/// Most jobs in parts of all clients: each may keep `RESULTS_MAX_BYTES`, and a place for each part.
const PART_SETS_ALL_MAX: usize = 128;

/// Parts of one job that are in the table at a time, in a pool of so many slots.
fn window(slots: usize) -> usize {
    2 * slots + 2
}

impl Jobs {
    /// Begins the parts of a job whose plan task is done, in a pool of so many slots.
    ///
    /// # Panics
    /// If the job does not run its plan task, has parts, or gets more than [`PARTS_MAX`].
    pub(crate) fn planned(
        &mut self,
        turn: &mut Turn,
        run: TaskRun,
        plan: OutputId,
        parts: u32,
        slots: usize,
    ) {
        let key = self.table.open(run);
        let job = &self.table[key];
        assert!(
            job.task_kind == TaskKind::Plan && job.part_set().is_none(),
            "job {} was at its plan",
            job.id
        );
        assert!(parts <= PARTS_MAX, "job {} has {parts} parts, at most {PARTS_MAX} have numbers", job.id);
        self.keep_plan(turn, key, plan);
        self.table.enter(key, EntryState::Parted);
        let job = &self.table[key];
        let (id, attempts) = (job.id, job.attempts);
        let mut batch = self.table.batch(key).copy();
        // The part set is one user of the batch: it stays when no part is in the table for a moment.
        batch.refs = 1;
        (batch.attached, batch.watched, batch.progress) = (false, false, false);
        batch.since_ns = turn.now_ns();
        let (client, uid, pool) = (batch.client, batch.uid, batch.pool);
        let part_set = self.part_sets.open(PartSet {
            job: key,
            id,
            client,
            uid,
            pool,
            batch: self.table.open_batch(batch),
            parts,
            next: 0,
            done: 0,
            live: BTreeSet::new(),
            results: Rc::new(vec![Payload::default(); parts as usize]),
            bytes: 0,
            attempts,
        });
        self.table[key].rare_mut().part_set = Some(part_set);
        self.begin_progress(turn, run);
        self.make_parts(part_set, slots);
    }

    /// Makes the next parts, up to the window, or queues the merge when all parts are done.
    fn make_parts(&mut self, id: PartSetId, slots: usize) {
        let part_set = self.part_sets.get_mut(id).expect("a job in parts has parts until its end");
        if part_set.done == part_set.parts {
            let job = part_set.job;
            return self.await_merge(job);
        }
        while part_set.next < part_set.parts && part_set.live.len() < window(slots) {
            let key = self.table.insert_part(part_set.batch, id.number(part_set.next));
            part_set.next += 1;
            part_set.live.insert(key);
            self.queues.push_back(&mut self.table, key);
        }
    }

    /// Queues the merge of a job before the parts of other jobs.
    fn await_merge(&mut self, key: Key) {
        let job = &mut self.table[key];
        job.task_kind = TaskKind::Merge;
        job.attempts = 0;
        if job.alone {
            self.table.enter(key, EntryState::Solo);
            self.queues.push_back_solo(&mut self.table, key);
        } else {
            self.table.enter(key, EntryState::Queued);
            self.queues.push_front(&mut self.table, key);
        }
    }

    /// Keeps the result of a part and removes the part, in a pool of so many slots. If the results exceed what may be
    /// kept, returns the job and the outcome that the caller ends it with.
    ///
    /// # Panics
    /// If it is no part, or does not run.
    pub(crate) fn part_done(
        &mut self,
        run: TaskRun,
        result: Payload,
        slots: usize,
    ) -> Option<(TaskRun, Outcome)> {
        let key = self.table.open(run);
        let (id, part) = part_of(run.first()).expect("a part is done as a part");
        assert_eq!(
            self.table[key].state.phase(),
            Phase::Running,
            "part {} was done by a worker",
            run.first()
        );
        let part_set = self.remove_part(key, id);
        if part_set.keep(part, result) > RESULTS_MAX_BYTES {
            let (job, done, parts) = (part_set.job, part_set.done, part_set.parts);
            let message = format!(
                "{done} of its {parts} parts left more than the {RESULTS_MAX_BYTES} bytes that may be kept for its \
                 merge: large results belong into the output"
            );
            return Some((self.table.run(job), Outcome::Failed { message, code: None }));
        }
        self.make_parts(id, slots);
        None
    }

    /// Removes a part that ended other than done; returns its job, the part, and the outcome that the caller ends the
    /// job with.
    ///
    /// # Panics
    /// If it is no part.
    pub(crate) fn part_ended(
        &mut self,
        turn: &mut Turn,
        run: TaskRun,
        outcome: Outcome,
    ) -> (TaskRun, Part, Outcome) {
        let key = self.table.open(run);
        let (id, part) = part_of(run.first()).expect("a part ends as a part");
        self.leave_list(turn, key);
        let part_set = self.remove_part(key, id);
        let (job, part) = (part_set.job, Part { number: part + 1, parts: part_set.parts });
        let outcome = match outcome {
            Outcome::Failed { message, code } => {
                let mut message = format!("{part}: {message}");
                truncate(&mut message);
                Outcome::Failed { message, code }
            }
            Outcome::Crashed { crashes, last } => {
                Outcome::Crashed { crashes, last: format!("{last} in {part}") }
            }
            Outcome::TimedOut { limit, limit_ms, .. } => {
                Outcome::TimedOut { limit, limit_ms, part: Some(part) }
            }
            Outcome::Done | Outcome::Cancelled | Outcome::Expired | Outcome::Lost { .. } => outcome,
        };
        (self.table.run(job), part, outcome)
    }

    /// Removes a part from the table and from its part set.
    fn remove_part(&mut self, key: Key, id: PartSetId) -> &mut PartSet {
        let part = self.table.remove_part(key);
        let part_set = self.part_sets.get_mut(id).expect("a part never outlives its job");
        let was_live = part_set.live.remove(&key);
        assert!(was_live, "part {} is gone once", part.id);
        part_set.attempts = part_set.attempts.max(part.attempts);
        part_set
    }

    /// Removes all parts of a job that is about to end; returns the offers of those that run.
    ///
    /// # Panics
    /// If it has ended.
    pub(crate) fn close_parts(&mut self, turn: &mut Turn, run: TaskRun) -> Vec<(WorkerId, Seq)> {
        let key = self.table.open(run);
        let job = &mut self.table[key];
        assert!(job.end().is_none(), "job {} has parts until its end", job.id);
        let Some(id) = job.rare.as_mut().and_then(|rare| rare.part_set.take()) else { return Vec::new() };
        let part_set = self.part_sets.close(id);
        let mut held = Vec::new();
        let mut attempts = part_set.attempts;
        for part in part_set.live {
            self.leave_list(turn, part);
            let part = self.table.remove_part(part);
            attempts = attempts.max(part.attempts);
            if let EntryState::Running { worker, seq, .. } = part.state {
                held.push((worker, seq));
            }
        }
        let job = &mut self.table[key];
        job.attempts = job.attempts.max(attempts);
        let gone = self.table.release_batch(part_set.batch);
        assert!(gone.is_some_and(|batch| !batch.watched), "parts have a batch that no client knows");
        held
    }

    /// The place of the job of a task, and which part the task is, if it is one.
    pub(super) fn task_of(&self, key: Key) -> (Key, Option<Part>) {
        let found = part_of(self.table[key].id).and_then(|(id, part)| Some((self.part_sets.get(id)?, part)));
        match found {
            Some((part_set, part)) => (part_set.job, Some(Part { number: part + 1, parts: part_set.parts })),
            None => (key, None),
        }
    }

    /// The part set of a job, while it has one.
    pub(super) fn part_set_of(&self, key: Key) -> Option<&PartSet> {
        self.part_sets.get(self.table[key].part_set()?)
    }

    /// Which task of its job a run is.
    pub(crate) fn task_kind(&self, run: TaskRun) -> TaskKind {
        self.job(run).task_kind
    }

    /// How many parts of a job are done and run, while it has any.
    pub(crate) fn parts_of(&self, run: TaskRun) -> Option<Parts> {
        let part_set = self.part_set_of(self.table.open(run))?;
        let runs = |part: &&Key| self.table[**part].state.phase() == Phase::Running;
        let running = u32::try_from(part_set.live.iter().filter(runs).count()).unwrap_or(u32::MAX);
        Some(Parts { done: part_set.done, running, total: part_set.parts })
    }

    /// The most attempts that one task of a job took.
    pub(crate) fn attempts_of(&self, run: TaskRun) -> u32 {
        let key = self.table.open(run);
        self.table[key].attempts.max(self.part_set_of(key).map_or(0, |part_set| part_set.attempts))
    }

    /// Ageing of a job's parts counts from the last turn that one of them had.
    pub(super) fn note_turn(&mut self, key: Key, now_ns: u64) {
        if self.table[key].is_part() {
            let batch = self.table[key].batch;
            self.table.batches[batch as usize].since_ns = now_ns;
            self.queues.refresh(&self.table, key);
        }
    }
}

/// Whether the plan of a job of this batch has to wait in a pool of so many slots.
pub(super) fn plan_waits(part_sets: &PartSets, slots: usize, batch: &Batch) -> bool {
    let most = (slots + 1).min(PART_SETS_MAX);
    part_sets.count_of(batch.client, batch.pool) >= most
        || part_sets.count() >= PART_SETS_ALL_MAX && part_sets.count_of_user(batch.uid, batch.pool) > 0
}
