//! Kinds that plan, with types of their own: three plain functions, and JSON between their tasks.
//!
//! It knows nothing of stages or files. Every task parses the job's input again, because it may run in another worker
//! than the one before. Driven by `stage_call.rs`, like any other kind that plans.

use std::fmt;
use std::marker::PhantomData;

use bulkhead_task::{FanOut, PackedParts, Planned, Split, TaskContext, TaskFailure};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{read_input, write_output};

/// The value types, for `PhantomData`: no value is stored.
type Values<I, P, R, O> = fn(I, P) -> (R, O);

/// Three functions over values: plan: `I` to parts `P`, run: `P` to `R`, merge: all `R` to `O`.
pub(super) struct TypedPlan<I, P, R, O, Plan, Run, Merge> {
    plan: Plan,
    run: Run,
    merge: Merge,
    types: PhantomData<Values<I, P, R, O>>,
}

impl<I, P, R, O, Plan, Run, Merge> TypedPlan<I, P, R, O, Plan, Run, Merge> {
    pub(super) fn new(plan: Plan, run: Run, merge: Merge) -> Self {
        Self { plan, run, merge, types: PhantomData }
    }
}

impl<I, P, R, O, E, Plan, Run, Merge> FanOut for TypedPlan<I, P, R, O, Plan, Run, Merge>
where
    I: DeserializeOwned,
    P: Serialize + DeserializeOwned,
    R: Serialize + DeserializeOwned,
    O: Serialize,
    E: fmt::Display,
    Plan: Fn(&I, &mut dyn TaskContext) -> Result<Vec<P>, E> + Send + Sync,
    Run: Fn(&I, P, &mut dyn TaskContext) -> Result<R, E> + Send + Sync,
    Merge: Fn(&I, Vec<R>, &mut dyn TaskContext) -> Result<O, E> + Send + Sync,
{
    fn plan(&self, input: &[u8], task: &mut dyn TaskContext) -> Result<Split, TaskFailure> {
        let parts = (self.plan)(&read_input(input)?, task).map_err(said)?;
        let parts =
            parts.iter().map(|part| serde_json::to_vec(part).map_err(lost)).collect::<Result<_, _>>()?;
        Ok(Split { common: Vec::new(), parts })
    }

    fn run(&self, job: Planned<'_>, part: &[u8], task: &mut dyn TaskContext) -> Result<(), TaskFailure> {
        let part = serde_json::from_slice(part).map_err(lost)?;
        let result = (self.run)(&read_input(job.input)?, part, task).map_err(said)?;
        write_output(&result, task)
    }

    fn merge(
        &self,
        job: Planned<'_>,
        _parts: &PackedParts<'_>,
        results: &PackedParts<'_>,
        task: &mut dyn TaskContext,
    ) -> Result<(), TaskFailure> {
        let results = results.iter().map(|result| serde_json::from_slice(&result?).map_err(lost));
        let results = results.collect::<Result<Vec<R>, TaskFailure>>()?;
        let output = (self.merge)(&read_input(job.input)?, results, task).map_err(said)?;
        write_output(&output, task)
    }
}

/// The failure for an error of the kind's function, with its text.
fn said(error: impl fmt::Display) -> TaskFailure {
    TaskFailure::new(error.to_string())
}

/// The failure for a part or result that cannot be serialised or parsed again.
fn lost(error: serde_json::Error) -> TaskFailure {
    TaskFailure::new(format!("a part or its result cannot be converted to JSON and back: {error}"))
}
