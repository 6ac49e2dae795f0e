//! Runs a task of a kind whose handler takes one item: a chunk, item by item, or a job with one item.
//!
//! An item that fails fails alone: its text is its result. A panic is the task's, and so is a limit of time. Each item counts as
//! progress of the task. Driven by `stage_call.rs`.

use std::io::Write;

use bulkhead_proto::chunk::ChunkInput;
use bulkhead_task::{TaskContext, TaskFailure};

use crate::item_writer::ItemWriter;
use crate::output::TaskOutput;

/// A handler of one item: what all items share, the item, and the task.
pub(crate) type ItemHandler =
    dyn Fn(&[u8], &[u8], &mut dyn TaskContext) -> Result<Vec<u8>, TaskFailure> + Send + Sync;

/// Runs all items of a task.
///
/// # Errors
/// [`TaskFailure`]: the input is none of this kind, the chunk cannot be written, the only item of the job failed, or the job was
/// cancelled.
pub(crate) fn run_items(
    handler: &ItemHandler,
    input: &[u8],
    output: &mut TaskOutput<'_>,
) -> Result<(), TaskFailure> {
    let chunk = ChunkInput::read(input).map_err(TaskFailure::new)?;
    let mut items = chunk.items();
    if chunk.region.is_none() {
        let result = run_one(handler, &chunk, items.next(), output)??;
        return Ok(output.write_all(&result)?);
    }
    let (mut writer, total) = (ItemWriter::open(&chunk, &*output)?, chunk.len() as u64);
    while writer.begin()?.is_some() {
        match run_one(handler, &chunk, items.next(), output)? {
            Ok(result) => writer.store(&result, false, output)?,
            Err(failure) => writer.store(failure.to_string().as_bytes(), true, output)?,
        }
        output.progress(writer.counted() as u64, total);
        // A long result is the output of the task: what was computed is not thrown away.
        if output.is_cancelled() && !writer.is_over() {
            return Err(TaskFailure::new("the chunk was to end before its last item"));
        }
    }
    writer.finish()
}

/// Runs one item; what it returned.
///
/// # Errors
/// [`TaskFailure`]: it has written output.
fn run_one(
    handler: &ItemHandler,
    chunk: &ChunkInput<'_>,
    item: Option<&[u8]>,
    output: &mut TaskOutput<'_>,
) -> Result<Result<Vec<u8>, TaskFailure>, TaskFailure> {
    let result = handler(chunk.head, item.unwrap_or_default(), output);
    if output.is_empty() {
        return Ok(result);
    }
    Err(TaskFailure::new("the handler of an item must return its result, and has written output to its task"))
}
