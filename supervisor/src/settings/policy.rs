//! Converts the config file's keys on jobs and workers to the core's configuration.
//!
//! A value out of its range is an error that names the key. Called once, by `settings.rs`.

use std::num::NonZero;

use anyhow::{Context, Result, ensure};
use bulkhead_core::config::Config;
use bulkhead_proto::limits::{INLINE_MAX_BYTES, LIMIT_MAX_MS, OUTPUTS_MIN_BYTES, WORKERS_MAX};

use super::bounds::LIMIT_MAX_SECONDS;
use super::{File, kinds, pools, programs};

/// The highest restart intensity; each death is remembered for the whole period.
const INTENSITY_MAX: u64 = 1_000_000;

/// Facts about process and machine.
pub(super) struct HostFacts {
    pub(super) pid: u32,
    /// The seed of the jitter.
    pub(super) seed: u64,
    pub(super) cores: u16,
    /// The memory of the machine.
    pub(super) memory_bytes: u64,
    /// Whether the daemon serves one parent (`--private`).
    pub(super) is_private: bool,
}

impl HostFacts {
    /// Reads the facts of this process and machine.
    pub(super) fn look(is_private: bool) -> Self {
        let count = std::thread::available_parallelism().map_or(1, NonZero::get);
        let cores = u16::try_from(count).unwrap_or(WORKERS_MAX);
        let memory_bytes = bulkhead_sys::process::machine_memory_bytes();
        Self {
            pid: std::process::id(),
            seed: bulkhead_sys::clock::wall_us(),
            cores,
            memory_bytes,
            is_private,
        }
    }
}

/// Builds the core's configuration; `workers` is the value of the command line.
pub(super) fn core_config(
    file: &File,
    workers: Option<u16>,
    enable_chaos: bool,
    here: &HostFacts,
) -> Result<Config> {
    let defaults = Config::default();
    let usual = here.cores.min(WORKERS_MAX);
    let slots = count_of_workers("workers", workers.map(u64::from).or(file.workers), (1, usual))?;
    let spares = count_of_workers("spares", file.spares, (0, defaults.spares))?;
    let backoff = backoff_ms(file, &defaults)?;
    check_recycling(file)?;
    check_ranges(file)?;
    programs::check_texts(file)?;
    let in_ms = |seconds: Option<u64>, default_ms| seconds.map_or(default_ms, |s| s.saturating_mul(1000));
    let limits = file.limits().read("")?;
    let kinds = kinds::table(file, (enable_chaos, here.is_private), &limits)?;
    let lending = pools::LendKeys::of(file);
    let config = Config {
        pid: here.pid,
        seed: here.seed,
        lend_after_ms: lending.after_ms(),
        lend_max: lending.lend_max("lend_max", file.lend_max, slots)?,
        running_max: pools::running_max("running_max", file.running_max)?,
        one_user: pools::one_user(file),
        pools: pools::sizes(file, &kinds, &lending)?,
        kinds,
        cores: u32::from(here.cores),
        limits,
        slots,
        spares,
        queue_max: file.queue_max.unwrap_or(defaults.queue_max),
        queue_bytes_max: file.queue_bytes_max.unwrap_or(defaults.queue_bytes_max),
        keep_ms: in_ms(file.keep_seconds, defaults.keep_ms),
        stuck_after_ms: in_ms(file.stuck_after_seconds, defaults.stuck_after_ms),
        restart_intensity: file.restart_intensity.unwrap_or(defaults.restart_intensity),
        restart_period_ms: in_ms(file.restart_period_seconds, defaults.restart_period_ms),
        backoff_min_ms: backoff[0],
        backoff_max_ms: backoff[1],
        stopped_ms: in_ms(file.stopped_seconds, defaults.stopped_ms),
        program_stopped_ms: file.program_stopped_seconds.map(|s| s.saturating_mul(1000)),
        recycle_tasks: file.recycle_tasks.or(defaults.recycle_tasks),
        recycle_age_ms: file.recycle_age_seconds.map(|s| s.saturating_mul(1000)).or(defaults.recycle_age_ms),
        recycle_strict: file.recycle_strict.unwrap_or(defaults.recycle_strict),
        // The parent waits for its first task, and its program may be an interpreter that takes long to start.
        one_first: here.is_private && file.worker_program.is_some(),
        recycle_resident_bytes: file.recycle_resident_bytes.or(defaults.recycle_resident_bytes),
        keep_jobs_max: file.keep_jobs_max.unwrap_or(defaults.keep_jobs_max),
        keep_bytes_max: file.keep_bytes_max.unwrap_or(defaults.keep_bytes_max),
        keep_outputs_max: file.keep_outputs_max.unwrap_or(defaults.keep_outputs_max),
        outputs_bytes_max: file
            .outputs_bytes_max
            .unwrap_or_else(|| (here.memory_bytes / 4).max(OUTPUTS_MIN_BYTES)),
        // Lowered later to the descriptor budget, which is not known yet.
        files_max: file.files_max.unwrap_or(u64::MAX),
        files_bytes_max: file.files_bytes_max.unwrap_or(here.memory_bytes / 4),
        arena_bytes_max: file.arena_bytes_max.unwrap_or(here.memory_bytes / 4),
        ..defaults
    };
    pools::check_sum(&config)?;
    Ok(config)
}

fn count_of_workers(key: &str, said: Option<u64>, (least, usual): (u16, u16)) -> Result<u16> {
    let Some(count) = said else { return Ok(usual) };
    let fitting = u16::try_from(count).ok().filter(|count| (least..=WORKERS_MAX).contains(count));
    fitting.with_context(|| format!("{key} = {count} is not from {least} to {WORKERS_MAX}"))
}

/// Checks the shortest and the longest backoff.
fn backoff_ms(file: &File, defaults: &Config) -> Result<[u64; 2]> {
    let least = file.backoff_min_ms.unwrap_or(defaults.backoff_min_ms);
    let most = file.backoff_max_ms.unwrap_or(defaults.backoff_max_ms.max(least));
    ensure!(
        (1..=LIMIT_MAX_MS).contains(&least),
        "backoff_min_ms = {least} is not from 1 to {LIMIT_MAX_MS}: it is what keeps a broken pool from spinning"
    );
    ensure!(
        (least..=LIMIT_MAX_MS).contains(&most),
        "backoff_max_ms = {most} is not from backoff_min_ms ({least}) to {LIMIT_MAX_MS}"
    );
    Ok([least, most])
}

/// Rejects 0, which would replace a worker after each task.
fn check_recycling(file: &File) -> Result<()> {
    for (key, value) in [
        ("recycle_tasks", file.recycle_tasks),
        ("recycle_age_seconds", file.recycle_age_seconds),
        ("recycle_resident_bytes", file.recycle_resident_bytes),
    ] {
        ensure!(value != Some(0), "{key} = 0 is not 1 or more: leave it out for no such bound");
    }
    Ok(())
}

/// Rejects values with which no job would be accepted, workers would be killed at once, or counts of deaths would
/// never expire.
fn check_ranges(file: &File) -> Result<()> {
    let seconds = 1..=LIMIT_MAX_SECONDS;
    let wide = 1..=u64::MAX;
    // With less, an input of the allowed size would never fit, and its client would retry for ever.
    let input = INLINE_MAX_BYTES as u64..=u64::MAX;
    let outputs = OUTPUTS_MIN_BYTES..=u64::MAX;
    for (key, value, range) in [
        ("clients_max", file.clients_max, &wide),
        ("queue_max", file.queue_max, &wide),
        ("queue_bytes_max", file.queue_bytes_max, &input),
        ("lend_after_seconds", file.lend_after_seconds, &seconds),
        ("outputs_bytes_max", file.outputs_bytes_max, &outputs),
        ("stuck_after_seconds", file.stuck_after_seconds, &seconds),
        ("stopped_seconds", file.stopped_seconds, &seconds),
        ("program_stopped_seconds", file.program_stopped_seconds, &seconds),
        ("restart_period_seconds", file.restart_period_seconds, &seconds),
        ("restart_intensity", file.restart_intensity.map(u64::from), &(0..=INTENSITY_MAX)),
    ] {
        let (low, high) = (range.start(), range.end());
        if let Some(value) = value {
            ensure!(range.contains(&value), "{key} = {value} is not from {low} to {high}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bulkhead_core::config::{Bound, KindLimits};

    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        let here = HostFacts { pid: 1, seed: 1, cores: 1, memory_bytes: 4 << 20, is_private: false };
        core_config(&file, Some(1), false, &here).map_err(|error| error.to_string())
    }

    #[test]
    fn limits_are_read_in_the_units_of_the_core() {
        let config = read("timeout_seconds = 60\ncpu_max_seconds = 5\nmemory_bytes = 1048576\n").unwrap();
        assert_eq!(config.limits.timeout_ms, Bound { usual: Some(60_000), most: None });
        assert_eq!(config.limits.cpu_ms, Bound { usual: None, most: Some(5000) });
        assert_eq!(config.limits.memory_bytes.usual, Some(1 << 20));
        assert_eq!(read("").unwrap().limits, KindLimits::default());
    }

    #[test]
    fn files_arenas_and_outputs_may_take_a_quarter_of_the_memory_each_unless_told_otherwise() {
        assert_eq!(read("").unwrap().files_bytes_max, 1 << 20);
        assert_eq!(read("").unwrap().arena_bytes_max, 1 << 20);
        assert_eq!(read("arena_bytes_max = 9").unwrap().arena_bytes_max, 9);
        assert_eq!(read("").unwrap().outputs_bytes_max, 128 << 20, "and no less than is needed");
        let config = read("outputs_bytes_max = 199999999\nkeep_outputs_max = 3").unwrap();
        assert_eq!((config.outputs_bytes_max, config.keep_outputs_max), (199_999_999, 3));
        let config = read("files_max = 5\nfiles_bytes_max = 7").unwrap();
        assert_eq!((config.files_max, config.files_bytes_max), (5, 7));
    }

    #[test]
    fn a_limit_out_of_range_is_named() {
        for (text, fault) in [
            ("timeout_seconds = 0", "timeout_seconds = 0 is not from 1"),
            ("cpu_max_seconds = 99999999", "cpu_max_seconds = 99999999 is not from 1 to 2592000"),
            ("memory_bytes = 4096", "memory_bytes = 4096 is not from 1048576"),
            ("recycle_tasks = 0", "recycle_tasks = 0 is not 1 or more"),
            ("spares = 100000", "spares = 100000 is not from 0 to 1024"),
            ("clients_max = 0", "clients_max = 0 is not from 1"),
            ("queue_max = 0", "queue_max = 0 is not from 1 to 18446744073709551615"),
            ("queue_bytes_max = 4095", "queue_bytes_max = 4095 is not from 4096 to"),
            ("outputs_bytes_max = 1", "outputs_bytes_max = 1 is not from 134217728 to"),
            ("stuck_after_seconds = 0", "stuck_after_seconds = 0 is not from 1 to 2592000"),
            ("lend_after_seconds = 0", "lend_after_seconds = 0 is not from 1 to 2592000"),
            ("stopped_seconds = 0", "stopped_seconds = 0 is not from 1 to 2592000"),
            ("program_stopped_seconds = 0", "program_stopped_seconds = 0 is not from 1 to 2592000"),
            ("stopped_seconds = 2592001", "stopped_seconds = 2592001 is not from 1 to 2592000"),
            ("restart_period_seconds = 2592001", "restart_period_seconds = 2592001 is not from 1 to 2592000"),
            ("restart_intensity = 1000001", "restart_intensity = 1000001 is not from 0 to 1000000"),
            ("no_progress_seconds = 9\nno_progress_max_seconds = 8", "no_progress_seconds = 9 is above"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(fault), "{text}: {error}");
        }
    }
}
