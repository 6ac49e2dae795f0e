//! The two clocks of the kernel. Limits and backoff go by the monotonic one, which stands still while the
//! machine sleeps; people and expiry go by the wall.
//!
//! Both are read through the vDSO: some tens of nanoseconds, no system call.

use std::time::{SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

const NS_PER_S: u64 = 1_000_000_000;

/// CLOCK_MONOTONIC, in nanoseconds. The same in every process of the machine, so that moments that a worker
/// wrote can be compared with our own.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("the kernel always has CLOCK_MONOTONIC");
    let seconds = u64::try_from(now.tv_sec()).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec()).unwrap_or(0);
    seconds * NS_PER_S + nanoseconds
}

/// Wall time, in microseconds since 1970; 0 on a machine whose clock stands before that.
pub fn wall_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monotonic_clock_does_not_step_back() {
        let first = monotonic_ns();
        assert!(first > 0 && monotonic_ns() >= first);
    }

    #[test]
    fn the_wall_clock_is_in_this_century() {
        assert!(wall_us() > 1_577_836_800_000_000, "before 2020");
    }
}
