//! The result of a task, done or failed, for its job, which may consist of a plan, parts and a merge.
//!
//! `settle.rs` calls `task_done` for each report that is current.

use bulkhead_proto::client::evidence::Evidence;
use bulkhead_proto::client::outcome::Outcome;
use bulkhead_proto::death::{Death, ProgramEnd};
use bulkhead_proto::ids::PoolId;
use bulkhead_proto::limits::PARTS_MAX;

use crate::event::{Leftover, TaskResult};
use crate::job::{Doing, ProvenDeath, TaskKind, TaskRun, truncate};
use crate::machine::Core;
use crate::worker::MetLimit;

impl Core {
    /// A task has ended, with this result.
    pub(super) fn task_done(&mut self, run: TaskRun, result: TaskResult) {
        match (self.jobs.task_kind(run), result) {
            (kind, TaskResult::Failed { output, message, program }) => {
                let left = if kind == TaskKind::Whole { output } else { self.let_go(output) };
                if let Some(ProgramEnd::Signal { signal, core }) = program {
                    self.note_program_death(run, Death::OfProgram { signal: i32::from(signal), core });
                }
                self.task_failed(run, message, program.map(ProgramEnd::code), left);
            }
            (TaskKind::Whole | TaskKind::Merge, TaskResult::Inline(payload)) => {
                self.end_task(run, Outcome::Done, Leftover::Inline(payload));
            }
            (TaskKind::Whole | TaskKind::Merge, TaskResult::Held { output, bytes })
            | (TaskKind::Whole, TaskResult::InArena { output, bytes }) => {
                self.end_task(run, Outcome::Done, Leftover::Held { output, bytes });
            }
            (TaskKind::Plan, TaskResult::Planned { output, parts, .. }) if parts <= PARTS_MAX => {
                let slots = self.slots_of(self.jobs.batch(run).pool());
                self.jobs.planned(&mut self.turn, run, output, parts, slots);
            }
            (TaskKind::Run, TaskResult::Inline(payload)) => {
                let slots = self.slots_of(self.jobs.batch(run).pool());
                if let Some((job, outcome)) = self.jobs.part_done(run, payload, slots) {
                    self.end_task(job, outcome, Leftover::Nothing);
                }
            }
            // The shell checks the form of a report against its task, so these do not occur.
            (
                _,
                TaskResult::Held { output, .. }
                | TaskResult::InArena { output, .. }
                | TaskResult::Planned { output, .. },
            ) => {
                self.jobs.drop_output(&mut self.turn, output);
                let message = "its task brought an output that was not asked for".to_owned();
                self.task_failed(run, message, None, Leftover::Nothing);
            }
            (TaskKind::Plan, TaskResult::Inline(_)) => {
                let message = "its plan task brought no plan".to_owned();
                self.task_failed(run, message, None, Leftover::Nothing);
            }
        }
    }

    /// A task has ended that met a limit of time before: the limit has decided the outcome, and what the task wrote is
    /// kept as that of a failed one is.
    pub(super) fn timed_out_task_ended(&mut self, run: TaskRun, met: MetLimit, result: TaskResult) {
        let output = match result {
            TaskResult::Inline(payload) => Leftover::Inline(payload),
            TaskResult::Held { output, bytes }
            | TaskResult::InArena { output, bytes }
            | TaskResult::Planned { output, bytes, .. } => Leftover::Held { output, bytes },
            TaskResult::Failed { output, .. } => output,
        };
        let is_whole = self.jobs.task_kind(run) == TaskKind::Whole;
        let left = if is_whole { output } else { self.let_go(output) };
        self.end_task(run, met.outcome(), left);
    }

    /// A signal ended the program of a task that runs: it is kept among the deaths, charged to nobody.
    fn note_program_death(&mut self, run: TaskRun, death: Death) {
        let Doing::Running { worker, .. } = self.jobs.job(run).doing() else { return };
        let pid = self.workers.get(worker).and_then(|worker| worker.pid()).unwrap_or(0);
        let evidence = Evidence::default();
        self.jobs.note_of_program(
            &self.turn,
            run,
            &ProvenDeath { worker, pid, death: &death, evidence: &evidence },
        );
    }

    fn slots_of(&self, pool: PoolId) -> usize {
        self.workers.pool(pool).size()
    }

    /// Drops the output of a task that failed or timed out and is one of several of its job.
    fn let_go(&mut self, output: Leftover) -> Leftover {
        if let Leftover::Held { output, .. } = output {
            self.jobs.drop_output(&mut self.turn, output);
        }
        Leftover::Nothing
    }

    /// A task failed by its own code, with this exit code if it was a program: its job is tried again or fails.
    fn task_failed(&mut self, run: TaskRun, mut message: String, code: Option<u8>, left: Leftover) {
        truncate(&mut message);
        if self.jobs.may_retry(run) {
            self.jobs.back_off(&mut self.turn, run, message, left);
        } else {
            self.end_task(run, Outcome::Failed { message, code }, left);
        }
    }
}
