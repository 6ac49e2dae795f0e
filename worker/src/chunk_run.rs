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

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;
    use std::sync::{Arc, Mutex};

    use bulkhead_link::supervisor::Ring;
    use bulkhead_link::worker::WorkerRing;
    use bulkhead_proto::chunk::{ChunkRegion, STORE_FILE};
    use bulkhead_proto::file::{FileUse, Way};
    use bulkhead_proto::ids::{Fence, JobId, Seq};
    use bulkhead_proto::job::OutputMode;
    use bulkhead_proto::worker::stage::Stage;
    use bulkhead_sys::shared_page::SharedPage;
    use bulkhead_task::RegisteredContext;

    use super::*;
    use crate::output::TaskEnd;
    use crate::task_files::TaskFiles;

    const REGION: ChunkRegion = ChunkRegion { key: 77, offset: 64, length: 256 };

    /// Runs a chunk of two items whose results are this long, and whose job is cancelled while this item runs.
    fn run_cancelled(result_bytes: [usize; 2], cancelled_at: usize) -> TaskEnd {
        let (ours, descriptors) = Ring::create().unwrap();
        let ring = WorkerRing::map(&[descriptors.box_page, descriptors.orders_page]).unwrap();
        let ours = Mutex::new(ours);
        ours.lock().unwrap().offer(Seq(1), JobId(1), Fence(1));
        assert!(ring.claim(Seq(1)));
        let (page, descriptor) = SharedPage::create_for_writers("a chunk", 4096).unwrap();
        for at in [ChunkRegion::BEGUN_AT, ChunkRegion::COUNTED_AT] {
            page.store(64 + at as usize, REGION.count_word(0), Ordering::Relaxed);
        }
        let store =
            RegisteredContext::new(Vec::new(), vec![(FileUse::new(STORE_FILE, Way::Out), descriptor)]);
        let mut output = TaskOutput::new(&ring, TaskFiles::default(), Stage::Whole, OutputMode::Inline);
        output.add_context(Arc::new(store));
        let chunk = ChunkInput::encode(Some(REGION), b"", &["0", "1"]).unwrap();
        // The handler is shared by threads: the ring is locked.
        let handler = move |_: &[u8], item: &[u8], _: &mut dyn TaskContext| {
            let at = usize::from(item[0] - b'0');
            if at == cancelled_at {
                ours.lock().unwrap().request_cancel(Seq(1));
            }
            Ok(vec![7; result_bytes[at]])
        };
        let ended = run_items(&handler, &chunk, &mut output);
        output.end(ended)
    }

    #[test]
    fn a_cancelled_chunk_keeps_a_long_result_and_its_last_one() {
        const LONG: usize = 300;
        let failed = run_cancelled([5, 5], 0);
        let TaskEnd::Failed { text, .. } = &failed else { panic!("{failed:?}") };
        assert!(text.contains("to end before its last item"), "{text}");
        assert_eq!(run_cancelled([5, 5], 1), TaskEnd::Inline(Vec::new()), "all have a result");
        assert_eq!(run_cancelled([LONG, 5], 0), TaskEnd::Inline(vec![7; LONG]));
        assert_eq!(run_cancelled([5, LONG], 1), TaskEnd::Inline(vec![7; LONG]));
    }
}
