//! The merge of a transform: it checks that every range was done once and as planned, and then writes the output's
//! header.
//!
//! The header is written last, so an output with a missing part is no valid clip. It must not read the output of the
//! run tasks. Driven by the kind `transform`.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};

use crate::error::TransformError;
use crate::plan::Plan;
use crate::range_run::{RangeDone, write};

/// The size of a complete output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Merged {
    /// Frames of the output.
    pub frames: u64,
    /// Bytes of the output.
    pub bytes: u64,
}

/// Checks what the run tasks reported, in any order, and completes the output.
///
/// # Errors
/// [`TransformError::Merge`], which names the range by its first frame; [`TransformError::Write`].
pub fn merge(
    plan: &Plan,
    done: &[RangeDone],
    output: &(impl FileExt + ?Sized),
) -> Result<Merged, TransformError> {
    let wrong =
        |first: u64, what: &str| Err(TransformError::Merge(format!("range of frame {first}: it {what}")));
    let mut reported = BTreeMap::new();
    for range in done {
        if reported.insert(range.first, range).is_some() {
            return wrong(range.first, "was reported twice");
        }
    }
    for range in &plan.ranges {
        match reported.remove(&range.first) {
            None => return wrong(range.first, "is missing from the output"),
            Some(done) if (done.frames, done.bytes) != (range.frames, range.output_bytes) => {
                return wrong(range.first, "was not done as planned");
            }
            Some(_) => {}
        }
    }
    if let Some(first) = reported.keys().next() {
        return wrong(*first, "is not in the plan");
    }
    write(output, &plan.recipe.output().to_line(), 0)?;
    Ok(Merged { frames: plan.frames(), bytes: plan.output_bytes() })
}
