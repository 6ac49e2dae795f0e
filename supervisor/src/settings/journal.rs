//! The keys of the journal: whether the daemon has one, in which folder, and how much it keeps.
//!
//! A value out of its range is an error that names the key. Nothing is opened here. Called once, by `settings.rs`.

use std::path::Path;

use anyhow::{Result, ensure};
use bulkhead_journal::settings::{JournalSettings, KeepRules};
use bulkhead_proto::limits::{BATCH_MAX, INLINE_MAX_BYTES};

use super::{File, absolute};

/// The value of `journal_folder` that stands for no journal.
const NO_JOURNAL: &str = "none";
/// The name of the folder in the state folder.
const USUAL_NAME: &str = "journal";
/// The least that may wait for the disk: three quarters of it hold one submit of the greatest size.
const QUEUE_MIN: u64 = 1024;
const QUEUE_BYTES_MIN: u64 = 32 << 20;
const _: () = assert!(QUEUE_BYTES_MIN / 4 * 3 > (BATCH_MAX * (INLINE_MAX_BYTES + 256)) as u64);

/// Whether the daemon has a journal.
#[derive(Clone, Debug)]
pub(crate) enum JournalChoice {
    /// It has none. Why, as a text for people.
    None(&'static str),
    /// It has one.
    In {
        /// Where, and how much it keeps.
        settings: JournalSettings,
        /// Whether the configuration names the folder: then the daemon does not start without it.
        is_named: bool,
    },
}

/// The journal of a daemon with this state folder.
pub(super) fn choice(file: &File, state: &Path, is_private: bool) -> Result<JournalChoice> {
    check_ranges(file)?;
    let folder = match &file.journal_folder {
        Some(named) if named.as_os_str() == NO_JOURNAL => {
            return Ok(JournalChoice::None("this daemon has no journal: its configuration says so"));
        }
        Some(named) => absolute(named.clone())?,
        None if is_private => {
            return Ok(JournalChoice::None("this daemon serves one parent and has no journal"));
        }
        None => state.join(USUAL_NAME),
    };
    let count = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    let settings = JournalSettings {
        queue_facts_max: count(file.journal_queue_max.unwrap_or(65_536)),
        queue_bytes_max: count(file.journal_queue_bytes_max.unwrap_or(67_108_864)),
        keep: KeepRules {
            age_max_us: file.journal_keep_seconds.unwrap_or(604_800) * 1_000_000,
            jobs_max: file.journal_keep_jobs_max.unwrap_or(10_000_000),
            bytes_max: file.journal_keep_bytes_max.unwrap_or(4_294_967_296),
        },
        ..JournalSettings::new(folder, env!("CARGO_PKG_VERSION"))
    };
    Ok(JournalChoice::In { settings, is_named: file.journal_folder.is_some() })
}

fn check_ranges(file: &File) -> Result<()> {
    for (key, value, least) in [
        ("journal_queue_max", file.journal_queue_max, QUEUE_MIN),
        ("journal_queue_bytes_max", file.journal_queue_bytes_max, QUEUE_BYTES_MIN),
    ] {
        if let Some(value) = value {
            ensure!(value >= least, "{key} = {value} is not {least} or more");
        }
    }
    for (key, value) in [
        ("journal_keep_seconds", file.journal_keep_seconds),
        ("journal_keep_jobs_max", file.journal_keep_jobs_max),
        ("journal_keep_bytes_max", file.journal_keep_bytes_max),
    ] {
        // SQLite's numbers are signed.
        let most = i64::MAX as u64 / 1_000_000;
        if let Some(value) = value {
            ensure!(value <= most, "{key} = {value} is not from 0 to {most}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn read(text: &str, is_private: bool) -> Result<JournalChoice, String> {
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        choice(&file, Path::new("/state"), is_private).map_err(|error| error.to_string())
    }

    /// The folder, and whether it was named.
    fn place(text: &str, is_private: bool) -> Option<(PathBuf, bool)> {
        match read(text, is_private).unwrap() {
            JournalChoice::None(_) => None,
            JournalChoice::In { settings, is_named } => Some((settings.folder, is_named)),
        }
    }

    #[test]
    fn a_daemon_has_a_journal_in_its_state_folder_unless_it_serves_one_parent() {
        assert_eq!(place("", false), Some(("/state/journal".into(), false)));
        assert_eq!(place("", true), None);
        assert_eq!(place("journal_folder = \"none\"", false), None);
        for is_private in [false, true] {
            assert_eq!(place("journal_folder = \"/x\"", is_private), Some(("/x".into(), true)));
        }
    }

    #[test]
    fn what_is_kept_and_what_waits_is_read_in_the_units_of_the_journal() {
        let text = "journal_keep_seconds = 2\njournal_keep_jobs_max = 3\njournal_keep_bytes_max = 4\n\
                    journal_queue_max = 5000\njournal_queue_bytes_max = 40000000\n";
        let JournalChoice::In { settings, .. } = read(text, false).unwrap() else { panic!("no journal") };
        assert_eq!(settings.keep, KeepRules { age_max_us: 2_000_000, jobs_max: 3, bytes_max: 4 });
        assert_eq!((settings.queue_facts_max, settings.queue_bytes_max), (5000, 40_000_000));
    }

    #[test]
    fn a_value_out_of_range_is_named() {
        for (text, fault) in [
            ("journal_queue_max = 1", "journal_queue_max = 1 is not 1024 or more"),
            ("journal_queue_bytes_max = 1", "journal_queue_bytes_max = 1 is not 33554432 or more"),
            (
                "journal_keep_seconds = 9223372036854775807",
                "journal_keep_seconds = 9223372036854775807 is not from 0 to 9223372036854",
            ),
        ] {
            assert_eq!(read(text, false).unwrap_err(), fault);
        }
    }
}
