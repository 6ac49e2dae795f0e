//! Copies a result out of a box once and checks its form.
//!
//! The worker can change each byte at any time. So each field is loaded exactly once, and the value that was checked
//! is the value that is used. Called by `ring.rs`.

use std::sync::atomic::Ordering;

use super::{FailureOutput, FinishedResult, FinishedTask};
use crate::words::Words;
use bulkhead_proto::death::Violation;
use bulkhead_proto::ids::Seq;
use bulkhead_proto::job::Payload;
use bulkhead_proto::limits::{INLINE_MAX_BYTES, OUTPUT_MAX_BYTES, TEXT_MAX_BYTES, is_block};
use bulkhead_proto::worker::boxes::{
    self, ELAPSED_NS_AT, LENGTH_AT, OUTPUT_BYTES_AT, ReportStatus, STATUS_AT,
};

/// The result of an entry that was seen DONE with Acquire.
pub(super) fn copy(page: &impl Words, seq: Seq) -> Result<FinishedTask, Violation> {
    let index = boxes::index_of(seq);
    let field = |at: usize| page.load(boxes::entry_at(index) + at, Ordering::Relaxed);
    let status = ReportStatus::unpack(field(STATUS_AT)).ok_or(Violation::Result)?;
    let result = match status {
        ReportStatus::Inline => {
            let length = usize::try_from(field(LENGTH_AT)).ok().filter(|length| *length <= INLINE_MAX_BYTES);
            let mut payload = Payload::zeroed(length.ok_or(Violation::Result)?);
            page.read_bytes(boxes::result_at(index, payload.as_bytes().len()), payload.as_bytes_mut());
            FinishedResult::Inline(payload)
        }
        ReportStatus::Failed { program } => {
            let (text, output) = failure(page, index, field(LENGTH_AT), field(OUTPUT_BYTES_AT))?;
            let message = String::from_utf8(text).map_err(|_| Violation::Result)?;
            FinishedResult::Failed { message, program, output }
        }
        ReportStatus::Block => {
            let (bytes, offset) = (field(LENGTH_AT), field(OUTPUT_BYTES_AT));
            // What fits into the box does not go into the arena, where each block costs the daemon more than it holds.
            if bytes <= INLINE_MAX_BYTES as u64 || !is_block(offset, bytes) {
                return Err(Violation::Result);
            }
            FinishedResult::Block { offset, bytes }
        }
        ReportStatus::Descriptor => match field(OUTPUT_BYTES_AT) {
            bytes @ 0..=OUTPUT_MAX_BYTES => FinishedResult::Descriptor { bytes },
            _ => return Err(Violation::Result),
        },
    };
    Ok(FinishedTask { seq, elapsed_ns: field(ELAPSED_NS_AT), result })
}

/// The text of a failure, and the output that its task had written: behind the text, or in the output file.
fn failure(
    page: &impl Words,
    index: usize,
    text_bytes: u64,
    output_bytes: u64,
) -> Result<(Vec<u8>, FailureOutput), Violation> {
    let text_bytes = usize::try_from(text_bytes).ok().filter(|bytes| *bytes <= TEXT_MAX_BYTES);
    let text_bytes = text_bytes.ok_or(Violation::Result)?;
    let behind = boxes::behind_text(text_bytes, output_bytes);
    let length = text_bytes + behind.unwrap_or(0);
    let mut text = vec![0; length];
    page.read_bytes(boxes::result_at(index, length), &mut text);
    let output = match (output_bytes, behind) {
        (0, _) => FailureOutput::Nothing,
        (_, Some(_)) => FailureOutput::Inline(Payload::from(text.split_off(text_bytes))),
        (bytes @ 0..=OUTPUT_MAX_BYTES, None) => FailureOutput::Descriptor { bytes },
        _ => return Err(Violation::Result),
    };
    Ok((text, output))
}
