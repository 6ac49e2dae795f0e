//! The fuzz target `config`: text that an administrator may have written.
//!
//! Every accepted value must lie within the ranges that the sample names, and a machine with it must start and go on at
//! any time of its clock. The ranges are repeated here on purpose, so that they do not depend on the reader under test.

use bulkhead_core::Core;
use bulkhead_core::action::{Action, Output};
use bulkhead_core::config::{Bound, Config, KindLimits};
use bulkhead_core::event::{Event, Now};
use bulkhead_proto::file;
use bulkhead_proto::job::OutputMode;
use bulkhead_proto::kind::Kind;
use bulkhead_proto::limits::{
    CANCEL_GRACE_MAX_MS, KIND_NAME_MAX_BYTES, LIMIT_MAX_MS, MEMORY_MIN_BYTES, RING, TEXT_MAX_BYTES,
    WORKERS_MAX,
};

const YEAR_NS: u64 = 365 * 24 * 3600 * 1_000_000_000;

/// The text of a config file: it is refused in words, or taken, and then a machine with it runs.
///
/// # Panics
/// If that does not hold.
pub fn config(data: &[u8]) {
    match bulkhead_supervisor::check_config(&String::from_utf8_lossy(data)) {
        Err(why) => assert!(!why.trim().is_empty()),
        Ok(config) => {
            in_range(&config);
            starts(config);
        }
    }
}

fn in_range(config: &Config) {
    let workers = 1..=WORKERS_MAX;
    for pool in config.all_pools() {
        assert!(workers.contains(&pool.slots) && pool.spares <= WORKERS_MAX, "{pool:?}");
        assert!((1..=KIND_NAME_MAX_BYTES).contains(&pool.name.len()), "{:?}", pool.name);
    }
    let sum: u64 = config.all_pools().map(|pool| u64::from(pool.slots)).sum();
    assert!(sum <= u64::from(WORKERS_MAX), "{sum} workers");
    for at in 0..=config.pools.len() {
        let runs = |kind: &Kind| usize::from(config.pool_of(kind).0) == at;
        assert!(config.kinds.iter().any(runs), "pool {at} has nothing to run");
    }
    assert!((1..=LIMIT_MAX_MS).contains(&config.backoff_min_ms));
    assert!((config.backoff_min_ms..=LIMIT_MAX_MS).contains(&config.backoff_max_ms));
    assert!(config.queue_max > 0 && config.queue_bytes_max > 0, "nothing is ever accepted");
    for ms in [config.stuck_after_ms, config.stopped_ms, config.restart_period_ms] {
        assert!((1000..=LIMIT_MAX_MS).contains(&ms), "{ms}");
    }
    assert!(config.restart_intensity <= 1_000_000, "each death is remembered");
    limits(&config.limits);
    let recycled = [config.recycle_tasks, config.recycle_age_ms, config.recycle_resident_bytes];
    assert!(!recycled.contains(&Some(0)), "a worker for each task");
    assert!(!config.kinds.is_empty());
    for kind in &config.kinds {
        assert!((1..=KIND_NAME_MAX_BYTES).contains(&kind.name.len()), "{:?}", kind.name);
        assert!((1..=RING).contains(&usize::from(kind.ring)), "{}", kind.ring);
        assert!(kind.usage.len() <= TEXT_MAX_BYTES && kind.summary.len() <= TEXT_MAX_BYTES);
        limits(&kind.limits);
        assert!(kind.cancel_grace_ms <= CANCEL_GRACE_MAX_MS);
        assert!(kind.crashes_max != Some(0) && kind.output != OutputMode::File);
        assert_eq!(file::fault(&kind.needs), None);
        let same = config.kinds.iter().filter(|other| other.name == kind.name);
        assert_eq!(same.count(), 1, "kind {:?} stands twice in the table", kind.name);
    }
}

fn limits(limits: &KindLimits) {
    for bound in [limits.timeout_ms, limits.no_progress_ms, limits.cpu_ms] {
        within(bound, 1000, LIMIT_MAX_MS);
    }
    within(limits.memory_bytes, MEMORY_MIN_BYTES, u64::MAX);
}

fn within(Bound { usual, most }: Bound, low: u64, high: u64) {
    for value in [usual, most].into_iter().flatten() {
        assert!((low..=high).contains(&value), "{value}");
    }
    assert!(usual.is_none_or(|usual| most.is_none_or(|most| usual <= most)), "{usual:?} {most:?}");
}

/// The first turn, with spawns that all fail, then each turn that the machine asks for, with the clock of a machine
/// that was up for a year and then for a century.
fn starts(mut config: Config) {
    // More workers are only more of the same, and slow.
    (config.slots, config.spares) = (config.slots.min(4), config.spares.min(4));
    for pool in &mut config.pools {
        (pool.slots, pool.spares) = (pool.slots.min(4), pool.spares.min(4));
    }
    let start = Now { mono_ns: 1, wall_us: 1 };
    let mut core = Core::new(config, start);
    let mut out = Output::default();
    core.step(start, &mut Vec::new(), &mut out);
    assert!(!out.actions.is_empty(), "no worker was spawned");
    for mono_ns in [YEAR_NS, 100 * YEAR_NS] {
        let mut batch: Vec<Event> = out.actions.drain(..).filter_map(refused).collect();
        core.step(Now { mono_ns, wall_us: 1 }, &mut batch, &mut out);
        assert!(core.deadline().is_none_or(|deadline_ns| deadline_ns > mono_ns), "the machine spins");
    }
}

/// What a machine hears that asked for a worker and got none.
fn refused(action: Action) -> Option<Event> {
    match action {
        Action::Spawn { worker, .. } => Some(Event::SpawnFailed { worker, error: "none today".to_owned() }),
        _ => None,
    }
}
