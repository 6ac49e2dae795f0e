//! Calls the function of a kind that a task's stage needs: the handler, the handler of each item, or the plan, run or merge of a job
//! that is split.
//!
//! The plan task packs its parts, and a brief for all later tasks, into its output (`proto/src/worker/stage.rs`); only
//! workers read more of it than the count of parts. Each later task checks every offset of the plan, because another
//! worker wrote it, and compares the files that the job reads with what the plan task saw. Driven by `runtime.rs`.

use std::io::Write;

use bulkhead_proto::codec;
use bulkhead_proto::limits::{FRAME_MAX_BYTES, PARTS_MAX};
use bulkhead_proto::worker::stage::{Brief, Stage, pack};
use bulkhead_task::{FanOut, PackedParts, Planned, PositionedFile, Split, TaskFailure};

use crate::chunk_run::run_items;
use crate::output::TaskOutput;
use crate::registry::KindHandler;
use crate::task_files::CheckedFile;

/// Calls the function of this stage.
///
/// # Errors
/// [`TaskFailure`] of the kind's own code, or because the plan, the results or the files of the job are wrong.
pub(crate) fn call(
    code: &KindHandler,
    stage: Stage,
    input: &[u8],
    output: &mut TaskOutput<'_>,
) -> Result<(), TaskFailure> {
    match (code, stage) {
        (KindHandler::Whole(handler), Stage::Whole) => handler(input, output),
        (KindHandler::Items(handler), Stage::Whole) => run_items(&**handler, input, output),
        (KindHandler::Split(kind), Stage::Plan) => plan(&**kind, input, output),
        (KindHandler::Split(kind), Stage::Run { part, parts }) => run(&**kind, input, (part, parts), output),
        (KindHandler::Split(kind), Stage::Merge { parts }) => merge(&**kind, input, parts, output),
        (KindHandler::Split(_), Stage::Whole) => {
            Err(TaskFailure::new("this kind splits its jobs: write plans = true in its table of the config"))
        }
        (KindHandler::Whole(_) | KindHandler::Items(_), _) => Err(TaskFailure::new(
            "this kind does not split its jobs: leave plans = true out of its table of the config",
        )),
    }
}

fn plan(kind: &dyn FanOut, input: &[u8], output: &mut TaskOutput<'_>) -> Result<(), TaskFailure> {
    let split = kind.plan(input, output)?;
    if !output.is_empty() {
        return Err(TaskFailure::new(
            "the plan of a job must not write output: let its parts or its merge write it",
        ));
    }
    output.plan_ends();
    let Split { common, parts } = split;
    if parts.len() > PARTS_MAX as usize {
        return Err(TaskFailure::new(format!(
            "the plan has {} parts, the limit is {PARTS_MAX}: make them larger",
            parts.len()
        )));
    }
    if common.len() > FRAME_MAX_BYTES {
        let bytes = common.len();
        return Err(TaskFailure::new(format!(
            "the common data of the plan has {bytes} bytes, the limit is {FRAME_MAX_BYTES}: make it shorter"
        )));
    }
    output.write_all(&pack(&parts))?;
    let seen = output.files().seen();
    Ok(output.write_all(&codec::encode(&Brief { seen, common }))?)
}

fn run(
    kind: &dyn FanOut,
    input: &[u8],
    (part, parts): (u32, u32),
    output: &mut TaskOutput<'_>,
) -> Result<(), TaskFailure> {
    let file = output.files().plan.clone();
    let (packed, brief) = read_plan(file.as_deref(), parts)?;
    output.files().expect(&brief.seen)?;
    kind.run(Planned { input, common: &brief.common }, &packed.get(part)?, output)
}

fn merge(
    kind: &dyn FanOut,
    input: &[u8],
    parts: u32,
    output: &mut TaskOutput<'_>,
) -> Result<(), TaskFailure> {
    if output.files().shared.as_ref().is_some_and(|shared| shared.is_sealed()) {
        // An earlier merge task did everything and died before it reported it.
        return Ok(());
    }
    let file = output.files().plan.clone();
    let (packed, brief) = read_plan(file.as_deref(), parts)?;
    output.files().expect(&brief.seen)?;
    let left = output.files().results.clone();
    let results = match &left {
        Some(results) => open(results, parts, "the results of the parts")?,
        None => PackedParts::empty(parts),
    };
    kind.merge(Planned { input, common: &brief.common }, &packed, &results, output)
}

fn read_plan(plan: Option<&CheckedFile>, parts: u32) -> Result<(PackedParts<'_>, Brief), TaskFailure> {
    let plan = plan.ok_or_else(|| TaskFailure::new("the task came without the plan of its job"))?;
    let packed = open(plan, parts, "the plan")?;
    let brief = codec::decode(&packed.rest()?);
    let brief =
        brief.map_err(|error| TaskFailure::new(format!("the plan of the job is malformed: {error}")))?;
    Ok((packed, brief))
}

fn open<'a>(file: &'a CheckedFile, parts: u32, what: &str) -> Result<PackedParts<'a>, TaskFailure> {
    file.look()?;
    let packed = PackedParts::open(file, file.length())?;
    match packed.len() {
        count if count == parts => Ok(packed),
        count => {
            Err(TaskFailure::new(format!("{what} of the job has {count} parts, {parts} were announced")))
        }
    }
}
