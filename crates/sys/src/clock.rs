//! The clocks. Limits and backoff use the monotonic one, which stops while the machine is suspended; people and
//! expiry use wall time; the clock since boot, which goes on while it is suspended, shows whether wall time was set.
//!
//! All are read through the vDSO in some tens of nanoseconds, without a system call. Used by all crates but the pure
//! ones.

use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};

const NS_PER_S: u64 = 1_000_000_000;

/// CLOCK_MONOTONIC in nanoseconds. It is the same in all processes of the machine, so times that a worker stored can
/// be compared.
pub fn monotonic_ns() -> u64 {
    ns(clock_gettime(ClockId::CLOCK_MONOTONIC).expect("the kernel always has CLOCK_MONOTONIC"))
}

/// CLOCK_BOOTTIME in microseconds: time since the boot of the machine, pauses included.
pub fn boot_us() -> u64 {
    ns(clock_gettime(ClockId::CLOCK_BOOTTIME).expect("the kernel always has CLOCK_BOOTTIME")) / 1000
}

fn ns(now: TimeSpec) -> u64 {
    let seconds = u64::try_from(now.tv_sec()).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec()).unwrap_or(0);
    seconds * NS_PER_S + nanoseconds
}

/// Wall time in microseconds since 1970; 0 if the clock is set before that.
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
        let first = boot_us();
        assert!(first > 0 && boot_us() >= first);
    }

    #[test]
    fn the_wall_clock_is_in_this_century() {
        assert!(wall_us() > 1_577_836_800_000_000, "before 2020");
    }
}
