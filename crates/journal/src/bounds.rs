//! The bounds of the journal, each once. Those that an administrator chooses are fields of `JournalSettings`.
//!
//! Nothing decides here.

use std::time::Duration;

/// Most facts in one transaction. Each may change some pages of its own, and the log holds all of them.
pub(crate) const COMMIT_FACTS_MAX: usize = 2048;
/// Most bytes of facts in one transaction; the last one may go beyond it.
pub(crate) const COMMIT_BYTES_MAX: usize = 4 << 20;
/// How long another process may hold the write lock.
pub(crate) const LOCK_PATIENCE: Duration = Duration::from_secs(1);
/// How long a writer whose last commit failed waits before it tries again, unless the run ends.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Pages in the write-ahead log from which on it is copied into the database after a commit: 4 MiB.
pub(crate) const CHECKPOINT_PAGES: u32 = 1024;
/// The page size of the database, in bytes.
pub(crate) const PAGE_BYTES: u32 = 4096;
/// Numbers that are reserved at a time.
pub const BLOCK: u64 = 1_000_000;
/// Rows that one step of retention removes, in a transaction of its own.
pub(crate) const EVICT_STEP: usize = 512;
/// Free pages that go back to the file system after such a step.
pub(crate) const VACUUM_PAGES: u32 = 1024;
/// Longest time that the reader spends on one page.
pub(crate) const SLICE: Duration = Duration::from_millis(50);
/// Unfinished jobs in one chunk of loading.
pub const LOAD_CHUNK: usize = 4096;
/// The same in the first chunk that is loaded to be run, so that the first job of a run is offered soon.
pub const FIRST_LOAD_CHUNK: usize = 256;
/// An hour, and a day, in microseconds.
pub(crate) const HOUR_US: u64 = 3_600_000_000;
pub(crate) const DAY_US: u64 = 24 * HOUR_US;
