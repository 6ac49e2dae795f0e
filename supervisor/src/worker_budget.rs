//! Checks at the start that tasks (processes and threads) and memory are enough for all workers, those in lent slots too.
//!
//! Descriptors are shared out in `descriptor_budget.rs`. A limit of tasks that the workers alone pass is an error, because
//! some workers could never start; memory that tasks may take and the machine does not have is a warning, because tasks
//! seldom take all that they may. Called once, by `daemon.rs`.

use anyhow::{Result, ensure};
use bulkhead_core::config::{Config, PoolSize};

/// The daemon's own threads: those of ARCHITECTURE.md that are not for each worker, and a few closers.
const OWN: u64 = 16;
/// Of a worker: its process, and the thread that connects it or the program that it runs.
const PER_WORKER: u64 = 2;

/// Checks the limit of tasks of this process, if it has one.
///
/// # Errors
/// It is too low for so many workers.
pub(crate) fn check_tasks(limit: Option<u64>, config: &Config) -> Result<()> {
    let sum =
        |count: fn(&PoolSize) -> u16| config.all_pools().map(|pool| u64::from(count(&pool))).sum::<u64>();
    let (slots, spares, lent) =
        (sum(|pool| pool.slots), sum(PoolSize::spares_most), sum(|pool| pool.lend_max));
    let needed = OWN + PER_WORKER * (slots + spares + lent);
    let Some(limit) = limit else { return Ok(()) };
    ensure!(
        limit >= needed,
        "the limit of tasks (processes and threads) is {limit}, but {slots} workers with {spares} spares, and {lent} more \
         that pools may lend, need {needed}: raise it (TasksMax in a unit) or choose fewer --workers or a lower lend_max"
    );
    Ok(())
}

/// What to warn of if all tasks that can run at a time may take more memory than the machine has; nothing if the memory of
/// some task is not bounded.
pub(crate) fn memory_warning(memory_bytes: u64, config: &Config) -> Option<String> {
    let of_pool = |pool: PoolSize| {
        let own = config.kinds.iter().filter(|kind| {
            let home = config.all_pools().nth(usize::from(config.pool_of(kind).0));
            home.is_some_and(|home| home.name == pool.name)
        });
        let mosts: Option<Vec<u64>> =
            own.map(|kind| kind.limits.over(config.limits).memory_bytes.most).collect();
        let workers = u64::from(pool.slots) + u64::from(pool.lend_max);
        Some(mosts?.into_iter().max().unwrap_or(0).saturating_mul(workers))
    };
    let all: Option<Vec<u64>> = config.all_pools().map(of_pool).collect();
    let needed = all?.into_iter().fold(0, u64::saturating_add);
    let lent: u64 = config.all_pools().map(|pool| u64::from(pool.lend_max)).sum();
    (memory_bytes > 0 && needed > memory_bytes).then(|| {
        format!(
            "tasks may take more memory than the machine has: memory_max_bytes of all workers, {lent} of them in slots \
             that pools may lend needed_bytes={needed} memory_bytes={memory_bytes}"
        )
    })
}

#[cfg(test)]
mod tests {
    use bulkhead_core::config::{Bound, KindLimits};

    use super::*;

    fn config(lend_max: u16, most: Option<u64>) -> Config {
        let limits = KindLimits { memory_bytes: Bound { usual: None, most }, ..KindLimits::default() };
        Config { slots: 4, lend_max, limits, ..Config::default() }
    }

    #[test]
    fn tasks_of_lent_workers_are_counted_and_the_error_says_what_to_do() {
        assert!(
            check_tasks(Some(26), &config(0, None)).is_ok() && check_tasks(None, &config(4, None)).is_ok()
        );
        let error = check_tasks(Some(26), &config(4, None)).unwrap_err().to_string();
        for part in ["is 26", "4 more that pools may lend, need 34", "TasksMax", "lend_max"] {
            assert!(error.contains(part), "{part:?} is not in: {error}");
        }
    }

    #[test]
    fn memory_of_lent_workers_is_counted_where_that_of_all_tasks_is_bounded() {
        assert_eq!(memory_warning(4 << 30, &config(0, Some(1 << 30))), None);
        let warning = memory_warning(4 << 30, &config(4, Some(1 << 30))).expect("twice as much");
        assert!(warning.contains(&format!("needed_bytes={}", 8_u64 << 30)), "{warning}");
        assert_eq!(memory_warning(4 << 30, &config(4, None)), None);
        assert_eq!(memory_warning(0, &config(4, Some(1 << 30))), None, "unknown");
    }
}
