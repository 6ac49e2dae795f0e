//! The clock of the command, for ages.
//!
//! An age is this clock minus a timestamp of the daemon. `views::time` prints timestamps.

use std::time::{SystemTime, UNIX_EPOCH};

/// The current time in microseconds since 1970.
pub(crate) fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
