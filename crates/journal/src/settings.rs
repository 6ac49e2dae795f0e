//! What an administrator chooses of the journal, and what the daemon says of itself.
//!
//! Plain values; the daemon's configuration has checked them.

use std::path::PathBuf;

/// The settings of a journal.
#[derive(Clone, Debug)]
pub struct JournalSettings {
    /// The folder that is the journal's alone.
    pub folder: PathBuf,
    /// The daemon's version.
    pub version: String,
    /// The least room that the file system must have at a start, in bytes.
    pub room_min_bytes: u64,
    /// Most facts that wait for the writer. Submits are refused from three quarters of it on.
    pub queue_facts_max: usize,
    /// Most bytes of those facts, in the same way.
    pub queue_bytes_max: usize,
    /// How long ended jobs are kept.
    pub keep: KeepRules,
}

/// How long ended jobs are kept, and how many. Jobs that have not ended are never removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepRules {
    /// The longest time after their end, in microseconds. Attempts of jobs that are gone go at the same age.
    pub age_max_us: u64,
    /// Most ended jobs. Beyond it, the oldest of the user with most of them goes first.
    pub jobs_max: u64,
    /// Most bytes of their rows, of inputs that stay for them, and of attempts, in the same way. Attempts of jobs that are gone go
    /// first.
    pub bytes_max: u64,
}

impl JournalSettings {
    /// The settings for a folder, with all else by default.
    pub fn new(folder: impl Into<PathBuf>, version: impl Into<String>) -> Self {
        Self {
            folder: folder.into(),
            version: version.into(),
            room_min_bytes: 64 << 20,
            queue_facts_max: 65_536,
            queue_bytes_max: 64 << 20,
            keep: KeepRules::default(),
        }
    }
}

/// A week, 10,000,000 jobs, 4 GiB.
impl Default for KeepRules {
    fn default() -> Self {
        Self { age_max_us: 7 * crate::bounds::DAY_US, jobs_max: 10_000_000, bytes_max: 4 << 30 }
    }
}
