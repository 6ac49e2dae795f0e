//! Checks of the files that came with a submit: their names, their number, and the room that is left.
//!
//! A descriptor can pin memory and the process has few of them, so both have budgets: one in all, and three quarters
//! of it for one user who is not root. `attachments.rs` holds the files that were admitted.

use bulkhead_proto::client::message::Submit;
use bulkhead_proto::client::refusal::Refusal;
use bulkhead_proto::file::{self, Way};
use bulkhead_proto::job::OutputMode;

use crate::event::Attached;
use crate::job::Jobs;
use crate::turn::Turn;

impl Jobs {
    /// Checks the files of a submit. The budgets are checked last, because `busy` tells a client to try again, and
    /// that must not fail for another reason then.
    ///
    /// # Errors
    /// A refusal that says what is wrong with the files, or which budget is used up.
    pub(crate) fn check_files(
        &self,
        turn: &Turn,
        uid: u32,
        submit: &Submit,
        came: &[Attached],
    ) -> Result<(), Refusal> {
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
        self.room_for_files(turn, uid, came)
    }

    fn room_for_files(&self, turn: &Turn, uid: u32, came: &[Attached]) -> Result<(), Refusal> {
        let (used, of) = (self.attachments.all, self.attachments.of.get(&uid).copied().unwrap_or_default());
        let (files, bytes) = (came.len() as u64, pinned(came));
        let sorts = [
            ("files that come with jobs", files, used.files, of.files, turn.config().files_max),
            (
                "bytes of memory in files that come with jobs",
                bytes,
                used.bytes,
                of.bytes,
                turn.config().files_bytes_max,
            ),
        ];
        for (what, wanted, all, own, most) in sorts {
            let share = if uid == 0 { most } else { most - most / 4 };
            if wanted > share {
                let why = format!("{wanted} {what}, at most {share} fit: leave large files on a disk");
                return Err(Refusal::Invalid { why });
            }
            let retry_after_ms = turn.retry_after_ms(1);
            if own.saturating_add(wanted) > share {
                let what = format!("your share of the {what}");
                return Err(Refusal::Busy { what, limit: share, retry_after_ms });
            }
            if all.saturating_add(wanted) > most {
                let what = format!("the table of {what}");
                return Err(Refusal::Busy { what, limit: most, retry_after_ms });
            }
        }
        Ok(())
    }
}

/// Bytes of memory that these files pin. Their makers choose the sizes, so the sum saturates.
pub(super) fn pinned(came: &[Attached]) -> u64 {
    came.iter().fold(0, |sum: u64, file| sum.saturating_add(file.pinned_bytes))
}
