//! Opens the journal at the start of the daemon, and says whether the daemon starts without it.
//!
//! | the journal cannot be opened | then the daemon |
//! |---|---|
//! | the configuration names its folder | does not start |
//! | its database is foreign, newer, damaged or locked | does not start: jobs that were accepted may be in it |
//! | the usual folder is another user's, in use, on a network, full or cannot be made | starts without it and logs a warning; every submit of a durable job is refused with the reason |
//!
//! Blocks while the disk is slow: nothing is served yet. Called once, by `daemon.rs`.

use anyhow::{Context, Result};
use bulkhead_journal::fault::{OpenFault, OpenNote};
use bulkhead_journal::opening::OpenJournal;

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
    match OpenJournal::open(settings) {
        Ok(journal) => {
            log::info!("journal opened folder={} run={}", journal.folder().display(), journal.epoch().number);
            journal.notes().iter().for_each(log_note);
            Ok(Ok(journal))
        }
        Err(fault) if is_named || !is_about_folder(&fault) => Err(fault).context("cannot open the journal"),
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
