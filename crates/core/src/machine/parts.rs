//! Plan, run and merge: how a job is done in parts. What a part is stands in `fan.rs`.
//!
//! Parts are made a few for each slot at a time, and stand in lists of their own between the jobs of their client, so
//! that a job of ten thousand parts is no burden and holds nobody up. A part that ends badly ends its job; the others
//! are taken back or killed then, and charged to nobody. So that plans do not pile up with nothing done, a client has a
//! few jobs in parts at a time: the next one is planned when one of them has ended. What parts leave takes memory, so all
//! together have a bound as well, beyond which a user has one.

use std::collections::BTreeSet;
use std::rc::Rc;

use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::client::view::Parts;
use bulkhead_proto::client::why::Part;
use bulkhead_proto::ids::{JobId, OutputId, Seq, WorkerId};
use bulkhead_proto::job::Payload;
use bulkhead_proto::limits::{PARTS_MAX, RESULTS_MAX_BYTES};
use bulkhead_proto::worker::stage::Stage;

use crate::action::Action;
use crate::event::{Leftover, TaskResult};
use crate::job::batch::Batch;
use crate::job::entry::{Left, Phase, State, Step};
use crate::job::fan::{Fan, FanId, Fans, part_of};
use crate::job::list::Key;
use crate::machine::Core;

/// Jobs of one client that have parts in one pool at a time, at most: one for each slot and one more, within this.
const FANS_MAX: usize = 16;
/// Jobs that have parts at a time, of all clients: each may keep `RESULTS_MAX_BYTES`, and a place for each part.
const FANS_ALL_MAX: usize = 128;

impl Core {
    /// A task is done, with this result.
    pub(crate) fn task_done(&mut self, key: Key, result: TaskResult) {
        match (self.jobs[key].step, result) {
            (step, TaskResult::Failed { output, message, code }) => {
                let left = if step == Step::Whole { output.into() } else { self.let_go(output) };
                self.job_failed(key, message, code, left);
            }
            (Step::Whole | Step::Merge, TaskResult::Inline(payload)) => {
                self.end_job(key, Outcome::Done, Left::Inline(payload));
            }
            (Step::Whole | Step::Merge, TaskResult::Held { output, bytes }) => {
                self.end_job(key, Outcome::Done, Left::Held { output, bytes });
            }
            (Step::Plan, TaskResult::Planned { output, parts, .. }) if parts <= PARTS_MAX => {
                self.planned(key, output, parts);
            }
            (Step::Run, TaskResult::Inline(payload)) => self.part_done(key, payload),
            // The shell holds a worker to the form of its task, so these do not come.
            (_, TaskResult::Held { output, .. } | TaskResult::Planned { output, .. }) => {
                self.turn.act(Action::DropOutput { output });
                self.job_failed(
                    key,
                    "its task brought an output that was not asked for".to_owned(),
                    None,
                    Left::Nothing,
                );
            }
            (Step::Plan, TaskResult::Inline(_)) => {
                self.job_failed(key, "its plan task brought no plan".to_owned(), None, Left::Nothing);
            }
        }
    }

    /// What one of several tasks had written before it failed is of no use.
    fn let_go(&mut self, output: Leftover) -> Left {
        if let Leftover::Held { output, .. } = output {
            self.turn.act(Action::DropOutput { output });
        }
        Left::Nothing
    }

    /// A job's plan is there: its parts are done from now on.
    fn planned(&mut self, key: Key, plan: OutputId, parts: u32) {
        self.keep_plan(key, plan);
        self.jobs.enter(key, State::Parted);
        let job = &self.jobs[key];
        let (id, attempts) = (job.id, job.attempts);
        let mut batch = self.jobs.batch(key).copy();
        // Held by the fan, so that it outlives the last part that is there for the moment.
        batch.refs = 1;
        (batch.attached, batch.watched, batch.progress) = (false, false, false);
        batch.since_ns = self.turn.now_ns();
        let (client, uid, pool) = (batch.client, batch.uid, batch.pool);
        let batch = self.jobs.open_batch(batch);
        let results = Rc::new(vec![Payload::default(); parts as usize]);
        let live = BTreeSet::new();
        let fan = Fan {
            job: key,
            id,
            client,
            uid,
            pool,
            batch,
            parts,
            next: 0,
            done: 0,
            live,
            results,
            bytes: 0,
            attempts,
        };
        let fan = self.fans.open(fan);
        self.jobs[key].aside_mut().fan = Some(fan);
        self.begin_telling(key);
        self.make_parts(fan);
    }

    /// Makes the next parts, as many as may be there at a time, or has the job merged when all are done.
    fn make_parts(&mut self, id: FanId) {
        let Some(fan) = self.fans.get_mut(id) else { return };
        let window = 2 * self.pools[fan.pool].size() + 2;
        if fan.done == fan.parts {
            return self.await_merge(id);
        }
        while fan.next < fan.parts && fan.live.len() < window {
            let key = self.jobs.insert_part(fan.batch, id.number(fan.next));
            fan.next += 1;
            fan.live.insert(key);
            self.queues.push_back(&mut self.jobs, key);
        }
    }

    fn part_done(&mut self, key: Key, result: Payload) {
        let Some((id, part)) = part_of(self.jobs[key].id) else { return };
        let Some(fan) = self.remove_part(key, id) else { return };
        if fan.keep(part, result) > RESULTS_MAX_BYTES {
            let (job, done, parts) = (fan.job, fan.done, fan.parts);
            let message = format!(
                "{done} of its {parts} parts left more than the {RESULTS_MAX_BYTES} bytes that may be kept for its \
                 merge: large results belong into the output"
            );
            return self.end_job(job, Outcome::Failed { message, code: None }, Left::Nothing);
        }
        self.make_parts(id);
    }

    /// All parts are done: the job itself goes on, before any part that waits.
    fn await_merge(&mut self, id: FanId) {
        let Some(key) = self.fans.get(id).map(|fan| fan.job) else { return };
        let job = &mut self.jobs[key];
        job.step = Step::Merge;
        job.attempts = 0;
        if job.alone {
            self.jobs.enter(key, State::Solo);
            let pool = self.jobs.batch(key).pool;
            self.pools[pool].solo.push_back(&mut self.jobs.slab, key);
        } else {
            self.jobs.enter(key, State::Queued);
            self.queues.push_front(&mut self.jobs, key);
        }
    }

    /// A part has ended other than well, and its job with it.
    pub(crate) fn part_ended(&mut self, key: Key, outcome: Outcome) {
        let Some((id, part)) = part_of(self.jobs[key].id) else { return };
        self.leave_list(key);
        let Some(fan) = self.remove_part(key, id) else { return };
        let (job, part) = (fan.job, Part { number: part + 1, parts: fan.parts });
        let outcome = match outcome {
            Outcome::Failed { message, code } => {
                let mut message = format!("{part}: {message}");
                crate::machine::retry::truncate(&mut message);
                Outcome::Failed { message, code }
            }
            Outcome::Crashed { crashes, last } => {
                Outcome::Crashed { crashes, last: format!("{last} in {part}") }
            }
            Outcome::TimedOut { limit, limit_ms, .. } => {
                Outcome::TimedOut { limit, limit_ms, part: Some(part) }
            }
            other => other,
        };
        self.end_by_part((job, Some(part)), outcome, Left::Nothing);
    }

    /// Takes a part out of the table.
    fn remove_part(&mut self, key: Key, id: FanId) -> Option<&mut Fan> {
        let part = self.jobs.remove_part(key);
        let fan = self.fans.get_mut(id)?;
        fan.live.remove(&key);
        fan.attempts = fan.attempts.max(part.attempts);
        Some(fan)
    }

    /// A job has ended: its parts end with it. What runs is killed, unless it can be taken back before it begins.
    pub(crate) fn close_fan(&mut self, key: Key) {
        let Some(id) = self.jobs[key].aside.as_mut().and_then(|aside| aside.fan.take()) else { return };
        let Some(fan) = self.fans.close(id) else { return };
        let mut running: Vec<(WorkerId, Seq)> = Vec::new();
        let mut attempts = fan.attempts;
        for part in fan.live {
            self.leave_list(part);
            let part = self.jobs.remove_part(part);
            attempts = attempts.max(part.attempts);
            if let State::Running { worker, seq, .. } = part.state {
                running.push((worker, seq));
            }
        }
        let job = &mut self.jobs[key];
        job.attempts = job.attempts.max(attempts);
        let gone = self.jobs.release_batch(fan.batch);
        self.batch_gone(gone);
        for (worker, seq) in running {
            self.recall_or_look(worker, seq);
        }
    }

    /// The job that a task is of: its place and number, and the part if it is one.
    pub(crate) fn job_of(&self, key: Key) -> (Key, JobId, Option<Part>) {
        let task = &self.jobs[key];
        match part_of(task.id).and_then(|(id, part)| Some((self.fans.get(id)?, part))) {
            Some((fan, part)) => (fan.job, fan.id, Some(Part { number: part + 1, parts: fan.parts })),
            None => (key, task.id, None),
        }
    }

    /// As its worker is told.
    pub(crate) fn stage_of(&self, key: Key) -> Stage {
        let job = &self.jobs[key];
        match job.step {
            Step::Whole => Stage::Whole,
            Step::Plan => Stage::Plan,
            Step::Run => match self.job_of(key).2 {
                Some(Part { number, parts }) => Stage::Run { part: number - 1, parts },
                None => Stage::Whole,
            },
            Step::Merge => Stage::Merge { parts: self.parts_of(key).map_or(0, |parts| parts.total) },
        }
    }

    /// How far the parts of a job are, while it has any.
    pub(crate) fn parts_of(&self, key: Key) -> Option<Parts> {
        let fan = self.fans.get(self.jobs[key].fan()?)?;
        let runs = |part: &&Key| self.jobs[**part].state.phase() == Phase::Running;
        let running = u32::try_from(fan.live.iter().filter(runs).count()).unwrap_or(u32::MAX);
        Some(Parts { done: fan.done, running, total: fan.parts })
    }

    /// A part of a job has its turn: its job's next one waits from now on.
    pub(crate) fn note_turn(&mut self, key: Key) {
        if self.jobs[key].is_part() {
            let batch = self.jobs[key].batch;
            self.jobs.batches[batch as usize].since_ns = self.turn.now_ns();
        }
    }
}

/// Whether the plan of a job of this batch has to wait, with so many slots in its pool.
pub(crate) fn plan_waits(fans: &Fans, slots: usize, batch: &Batch) -> bool {
    let most = (slots + 1).min(FANS_MAX);
    fans.count_of(batch.client, batch.pool) >= most
        || fans.count() >= FANS_ALL_MAX && fans.count_of_user(batch.uid, batch.pool) > 0
}
