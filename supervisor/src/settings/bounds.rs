//! The keys of limits, which have the same form at the top of the config file and in the table of a kind.
//!
//! A value out of its range is an error that names the key. Used by `policy.rs` and `kinds.rs`.

use anyhow::{Result, ensure};
use bulkhead_proto::bound::{Bound, KindLimits};
use bulkhead_proto::limits::{LIMIT_MAX_MS, MEMORY_MIN_BYTES};

/// The longest time limit, in seconds.
pub(super) const LIMIT_MAX_SECONDS: u64 = LIMIT_MAX_MS / 1000;

/// The limits in one table of the config file: of each limit the default and the maximum.
pub(super) struct LimitKeys {
    pub(super) timeout: (Option<u64>, Option<u64>),
    pub(super) no_progress: (Option<u64>, Option<u64>),
    pub(super) cpu: (Option<u64>, Option<u64>),
    pub(super) memory: (Option<u64>, Option<u64>),
}

impl LimitKeys {
    /// Converts them to the core's units. Errors prefix each key with `table`, which ends with a dot.
    pub(super) fn read(&self, table: &str) -> Result<KindLimits> {
        let seconds = |key: &str, values| {
            let name = format!("{table}{key}");
            let Bound { usual, most } = bound(&name, "_seconds", values, (1, LIMIT_MAX_SECONDS))?;
            let in_ms = |seconds: u64| seconds * 1000;
            anyhow::Ok(Bound { usual: usual.map(in_ms), most: most.map(in_ms) })
        };
        let memory = format!("{table}memory");
        Ok(KindLimits {
            timeout_ms: seconds("timeout", self.timeout)?,
            no_progress_ms: seconds("no_progress", self.no_progress)?,
            cpu_ms: seconds("cpu", self.cpu)?,
            memory_bytes: bound(&memory, "_bytes", self.memory, (MEMORY_MIN_BYTES, u64::MAX))?,
        })
    }
}

/// Checks one limit: the default for jobs that do not set it, and the maximum that users may set.
fn bound(key: &str, unit: &str, values: (Option<u64>, Option<u64>), range: (u64, u64)) -> Result<Bound> {
    let (usual, most) = values;
    for (value, name) in [(usual, format!("{key}{unit}")), (most, format!("{key}_max{unit}"))] {
        if let Some(value) = value {
            ensure!(
                (range.0..=range.1).contains(&value),
                "{name} = {value} is not from {} to {}",
                range.0,
                range.1
            );
        }
    }
    if let (Some(usual), Some(most)) = (usual, most) {
        ensure!(usual <= most, "{key}{unit} = {usual} is above {key}_max{unit} = {most}");
    }
    Ok(Bound { usual, most })
}

/// A default of a kind above the daemon's maximum is an error; otherwise it would silently be lowered.
pub(super) fn check_over(table: &str, own: &KindLimits, daemon: &KindLimits) -> Result<()> {
    let sorts = [
        ("timeout", "_seconds", 1000, own.timeout_ms, daemon.timeout_ms),
        ("no_progress", "_seconds", 1000, own.no_progress_ms, daemon.no_progress_ms),
        ("cpu", "_seconds", 1000, own.cpu_ms, daemon.cpu_ms),
        ("memory", "_bytes", 1, own.memory_bytes, daemon.memory_bytes),
    ];
    for (key, unit, scale, own, daemon) in sorts {
        if let (Some(usual), None, Some(most)) = (own.usual, own.most, daemon.most) {
            ensure!(
                usual <= most,
                "{table}{key}{unit} = {} is above {key}_max{unit} = {}: set {table}{key}_max{unit} too",
                usual / scale,
                most / scale
            );
        }
    }
    Ok(())
}
