//! Checks of the files that came with a submit: their names, their number, and that they fit together.
//!
//! A descriptor can pin memory, and the process has few of them: `machine/admission.rs` asks the ledger whether there
//! is room. `attachments.rs` holds the files that were admitted.

use bulkhead_proto::client::message::Submit;
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::file::{self, Way};
use bulkhead_proto::job::OutputMode;

use crate::event::Attached;

/// Checks the files of a submit.
///
/// # Errors
/// A refusal that says what is wrong with the files.
pub(crate) fn check_files(submit: &Submit, came: &[Attached]) -> Result<(), Refusal> {
    let invalid = |why: String| Err(Refusal::Invalid { why });
    let files = &submit.files;
    if let Some(fault) = file::fault(files) {
        return invalid(fault);
    }
    if files.len() != came.len() {
        let (named, came) = (files.len(), came.len());
        return invalid(format!("the submit names {named} files and {came} came with it"));
    }
    let to_out = files.iter().any(|file| file.name == file::OUT && file.way == Way::Out);
    if submit.policy.output == OutputMode::File && !to_out {
        return invalid(format!(
            "the output is to go into a file, and no {:?} to be written came",
            file::OUT
        ));
    }
    if files.is_empty() {
        return Ok(());
    }
    if submit.inputs.len() != 1 {
        let inputs = submit.inputs.len();
        return invalid(format!(
            "files belong to one job, and the submit has {inputs} inputs: submit each by itself"
        ));
    }
    Ok(())
}

/// Bytes of memory that these files pin. Their makers choose the sizes, so the sum saturates.
pub(crate) fn pinned_bytes(came: &[Attached]) -> u64 {
    came.iter().fold(0, |sum: u64, file| sum.saturating_add(file.pinned_bytes))
}
