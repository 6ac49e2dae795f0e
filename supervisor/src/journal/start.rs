//! Opens the journal at the start of the daemon, and says whether the daemon starts without it.
//!
//! | the journal cannot be opened | then the daemon |
//! |---|---|
//! | the configuration names its folder | does not start |
//! | its database is foreign, newer, damaged or locked | does not start: jobs that were accepted may be in it |
//! | the usual folder is in use, or a journal may be in it | does not start: without the journal, numbers of its jobs would be given out again |
//! | the usual folder is another user's, on a network, full or cannot be made, and no journal is in it | starts without it and logs a warning; every submit of a durable job is refused with the reason |
//!
//! Blocks while the disk is slow: nothing is served yet. Called once, by `daemon.rs`.

use anyhow::{Context, Result, bail};
use bulkhead_journal::fault::{OpenFault, OpenNote};
use bulkhead_journal::opening::{self, OpenJournal};

use crate::settings::JournalChoice;

/// Opens it. The inner error says why the daemon has none, as a text for people.
///
/// # Errors
/// [`OpenFault`]: the daemon does not start.
pub(crate) fn open(choice: JournalChoice) -> Result<Result<OpenJournal, String>> {
    let (settings, is_named) = match choice {
        JournalChoice::None(why) => return Ok(Err(why.to_owned())),
        JournalChoice::In { settings, is_named } => (settings, is_named),
    };
    let folder = settings.folder.clone();
    match OpenJournal::open(settings) {
        Ok(journal) => {
            log::info!("journal opened folder={} run={}", journal.folder().display(), journal.epoch().number);
            journal.notes().iter().for_each(log_note);
            Ok(Ok(journal))
        }
        Err(fault) if is_named || !is_about_folder(&fault) => Err(fault).context("cannot open the journal"),
        Err(fault) if matches!(fault, OpenFault::InUse { .. }) || opening::may_hold_journal(&folder) => {
            bail!(
                "cannot open the journal: {fault}; a journal is in {}, or may be, and a daemon without it would give out its job numbers \
             again: set journal_folder = \"none\" to start without it all the same",
                folder.display()
            )
        }
        Err(fault) => {
            log::warn!("there is no journal, so jobs cannot be durable: {fault}");
            Ok(Err(format!("this daemon has no journal: {fault}")))
        }
    }
}

/// Whether the fault is about the folder and not about what is in it.
fn is_about_folder(fault: &OpenFault) -> bool {
    match fault {
        OpenFault::Io { .. }
        | OpenFault::NoFolder { .. }
        | OpenFault::NotOwn { .. }
        | OpenFault::OpenToOthers { .. }
        | OpenFault::Remote { .. }
        | OpenFault::NoRoom { .. }
        | OpenFault::InUse { .. } => true,
        OpenFault::BadNumbers { .. }
        | OpenFault::Foreign { .. }
        | OpenFault::Newer { .. }
        | OpenFault::Damaged { .. }
        | OpenFault::Locked { .. }
        | OpenFault::LogHeld { .. }
        | OpenFault::Database { .. } => false,
    }
}

fn log_note(note: &OpenNote) {
    match note {
        OpenNote::New { .. } => log::info!("journal: {note}"),
        OpenNote::InMemory { .. }
        | OpenNote::DatabaseGone { .. }
        | OpenNote::OlderCopy { .. }
        | OpenNote::UncleanEnd { .. }
        | OpenNote::ClockJumped => log::warn!("journal: {note}"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    use bulkhead_journal::settings::JournalSettings;

    use super::*;

    fn open_usual(folder: &Path) -> Result<Result<OpenJournal, String>> {
        let settings = JournalSettings { room_min_bytes: 0, ..JournalSettings::new(folder, "0") };
        open(JournalChoice::In { settings, is_named: false })
    }

    /// Why the daemon does not start.
    fn refusal(folder: &Path) -> String {
        open_usual(folder).map(|opened| opened.map(drop)).unwrap_err().to_string()
    }

    #[test]
    fn the_usual_folder_is_done_without_only_if_no_journal_is_in_it() {
        let state = tempfile::tempdir().unwrap();
        let folder = state.path().join("journal");
        let open_to_others = |folder: &Path| {
            fs::set_permissions(folder, Permissions::from_mode(0o777)).unwrap();
        };
        fs::create_dir(&folder).unwrap();
        open_to_others(&folder);
        fs::write(folder.join("journal.db"), "").unwrap();
        let why = open_usual(&folder).unwrap().unwrap_err();
        assert!(why.contains("this daemon has no journal: other users may write"), "{why}");

        fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
        let journal = open_usual(&folder).unwrap().unwrap();
        let in_use = refusal(&folder);
        assert!(in_use.contains("is in use by") && in_use.contains("\"none\""), "{in_use}");
        drop(journal);
        open_to_others(&folder);
        let text = refusal(&folder);
        let parts = ["other users may write to", "chmod it", "journal_folder = \"none\""];
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        for removed in ["journal.db", "numbers"] {
            let kept = tempfile::tempdir_in(state.path()).unwrap();
            for name in ["journal.db", "numbers"].into_iter().filter(|name| *name != removed) {
                fs::write(kept.path().join(name), fs::read(folder.join(name)).unwrap()).unwrap();
            }
            open_to_others(kept.path());
            assert!(refusal(kept.path()).contains("chmod it"), "without {removed}");
        }
    }

    #[test]
    fn a_link_to_a_disk_that_is_not_mounted_may_lead_to_a_journal() {
        let state = tempfile::tempdir().unwrap();
        let link = state.path().join("journal");
        symlink(state.path().join("disk/journal"), &link).unwrap();
        assert!(refusal(&link).contains("journal_folder = \"none\""));
    }
}
