//! `parts` and `progress`: jobs that are planned, run in parts and merged, and the progress that clients get.
//!
//! Each task comes in its turn and with the files that it needs: the plan first, then the parts, and the merge when all
//! parts are done, with exactly their results. It is a part of the ledger, and never asks the core.

use bulkhead_core::action::{Task, TaskFile};
use bulkhead_core::event::{Now, TaskResult};
use bulkhead_proto::ids::{JobId, OutputId};
use bulkhead_proto::job::{OutputMode, Payload};
use bulkhead_proto::worker::stage::Stage;

use crate::oracle::job::KnownJob;
use crate::oracle::ledger::JobOracle;
use crate::report::{Verdict, broken};
use crate::task::TaskId;

impl JobOracle {
    /// Whether it is this task's turn, with these files. A part is followed from its first offer on.
    pub(crate) fn offered_in_turn(&mut self, now: Now, task: &Task) -> Verdict {
        let id = TaskId::of(task);
        let Some(job) = self.jobs.get(&task.job) else { return Ok(()) };
        let in_turn = match task.stage {
            Stage::Whole => !job.plans,
            Stage::Plan => job.plans && job.planned.is_none(),
            Stage::Run { part, parts } => {
                let is_open = self.parts.get(&id).is_none_or(|part| part.reports.is_empty());
                job.planned.is_some_and(|plan| plan.1 == parts && part < parts)
                    && is_open
                    && job.reports.is_empty()
            }
            Stage::Merge { parts } => {
                job.planned.is_some_and(|plan| plan.1 == parts) && self.left_by(task.job, parts).is_some()
            }
        };
        if !in_turn {
            return broken("parts", format!("{id:?} is offered as {:?}: {job:?}", task.stage));
        }
        self.has_files(task, job)?;
        if id.part > 0 && !self.parts.contains_key(&id) {
            let (policy, input) = (job.policy.clone(), job.input.clone());
            let part = KnownJob::new(job.client, job.uid, job.kind, policy, input, now.mono_ns);
            self.parts.insert(id, part);
        }
        Ok(())
    }

    /// The results of all parts of a job, in their order, if all are done.
    fn left_by(&self, job: JobId, parts: u32) -> Option<Vec<Payload>> {
        let mut all = Vec::new();
        for part in 1..=parts {
            match self.parts.get(&TaskId { job, part })?.reports.as_slice() {
                [TaskResult::Inline(payload)] => all.push(payload.clone()),
                _ => return None,
            }
        }
        Some(all)
    }

    fn has_files(&self, task: &Task, job: &KnownJob) -> Verdict {
        let wants_shared = task.stage != Stage::Whole && job.policy.output == OutputMode::Descriptor;
        let plan: Option<OutputId> = job.planned.map(|plan| plan.0);
        let results = match task.stage {
            Stage::Merge { parts } => self.left_by(task.job, parts),
            _ => None,
        };
        let results = results.filter(|all| all.iter().any(|payload| !payload.as_bytes().is_empty()));
        let mut named = Vec::new();
        let (mut shared, mut plans, mut left) = (0, None, None);
        for file in &task.files {
            match file {
                TaskFile::Client { name, .. } => named.push(name.clone()),
                TaskFile::Shared { .. } => shared += 1,
                TaskFile::Plan { output } => plans = Some(*output),
                TaskFile::Results { results } => left = Some(results.to_vec()),
                TaskFile::Log { .. } | TaskFile::Registered { .. } => {}
            }
        }
        let needs_plan = matches!(task.stage, Stage::Run { .. } | Stage::Merge { .. });
        let fits =
            named == job.files && shared == usize::from(wants_shared) && plans == plan.filter(|_| needs_plan);
        if !fits || left != results {
            return broken("parts", format!("job {} is offered as {task:?}, and it is {job:?}", task.job));
        }
        Ok(())
    }

    /// A job is run again: nothing of it may be with a worker.
    pub(crate) fn forget_parts(&mut self, job: JobId) -> Verdict {
        if let Some((held, _)) = self.offers.iter().find(|(_, task)| task.job == job) {
            return broken("exclusive", format!("job {job} is run again, and offer {held:?} of it is open"));
        }
        self.parts.retain(|task, _| task.job != job);
        Ok(())
    }

    /// A client gets the progress of a job.
    ///
    /// # Errors
    /// It went back, or is not true.
    pub(crate) fn progressed(&mut self, id: JobId, done: u64, total: u64) -> Verdict {
        let counted = |part: u32| {
            self.parts.get(&TaskId { job: id, part }).is_some_and(|part| !part.reports.is_empty())
        };
        let Some(job) = self.jobs.get(&id) else {
            return broken("progress", format!("job {id} never was, and has done {done} of {total}"));
        };
        if let Some((_, parts)) = job.planned {
            let truth = (1..=parts).filter(|part| counted(*part)).count() as u64;
            if total != u64::from(parts) || done > truth {
                return broken(
                    "progress",
                    format!("job {id} has done {done} of {total}, and it is {truth} of {parts}"),
                );
            }
        }
        let (fence, before) =
            (job.fence, job.told.filter(|told| told.0 == job.fence).map_or(0, |told| told.1));
        if done < before {
            return broken("progress", format!("job {id} has done {done}, and had done {before}"));
        }
        if let Some(job) = self.jobs.get_mut(&id) {
            job.told = Some((fence, done));
        }
        Ok(())
    }
}
