//! The pools of workers: the default pool, whose keys stand at the top of the config file, and one table for each
//! other pool.
//!
//! A kind names the pool that runs it. Checked here: that each named pool is declared, that each pool has a kind to
//! run, and that there are not too many workers in all. What its workers run is in `programs.rs`. Called by `policy.rs`.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use bulkhead_core::config::{Config, PoolSize};
use bulkhead_proto::kind::{DEFAULT_POOL, Kind};
use bulkhead_proto::limits::{KIND_NAME_MAX_BYTES, WORKERS_MAX};
use serde::Deserialize;

use super::kinds::is_name;
use super::programs::{EnvSetting, ProgramKeys};
use super::{File, Mode, lend_after_seconds};

/// A table `[pools.NAME]` of the config file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct OwnPool {
    /// The number of workers that run its tasks. Default 1.
    workers: Option<u16>,
    /// The number of warm spare workers. Default 1; 0: one is started when something needs it.
    spares: Option<u16>,
    /// The number of slots beyond its workers that it may lend. Default: as many as it has workers.
    lend_max: Option<u16>,
    /// The most of its workers that one user may hold. Default: no limit.
    running_max: Option<u16>,
    /// Whether each of its workers serves one user. Default: in a daemon for several users, if the program is not ours.
    one_user: Option<bool>,
    /// Whether no worker of it that is due to be recycled gets another task. Default: as for the default pool.
    recycle_strict: Option<bool>,
    /// Its worker program. Default: that of the default pool.
    worker_program: Option<PathBuf>,
    /// Arguments of its worker program. Default: those of the default pool, if the program is the default pool's.
    worker_args: Option<Vec<String>>,
    /// The environment of its workers. Default: as of `worker_args`.
    worker_env: Option<EnvSetting>,
}

impl OwnPool {
    /// Whether its table names a worker program.
    pub(super) fn has_program(&self) -> bool {
        self.worker_program.is_some()
    }

    /// What its workers run, as its table says.
    pub(super) fn program_keys(&self, name: &str) -> ProgramKeys<'_> {
        ProgramKeys {
            table: format!("pools.{name}."),
            program: self.worker_program.as_deref(),
            args: self.worker_args.as_deref(),
            env: self.worker_env.as_ref(),
        }
    }
}

/// Whether pools lend slots to users who wait: only a daemon that serves several users does.
#[derive(Clone, Copy, Debug)]
pub(super) struct LendKeys {
    after_seconds: Option<u64>,
}

impl LendKeys {
    /// By the mode of the daemon.
    pub(super) fn of(file: &File) -> Self {
        let after_seconds = lend_after_seconds(file);
        let is_on = file.mode == Some(Mode::System);
        Self { after_seconds: is_on.then_some(after_seconds) }
    }

    /// How long a user waits before a slot is lent, in milliseconds.
    pub(super) fn after_ms(self) -> Option<u64> {
        self.after_seconds.map(|seconds| seconds.saturating_mul(1000))
    }

    /// The slots that a pool of so many workers may lend.
    pub(super) fn lend_max(self, key: &str, said: Option<u16>, workers: u16) -> Result<u16> {
        let count = said.unwrap_or(workers);
        ensure!(count <= WORKERS_MAX, "{key} = {count} is not from 0 to {WORKERS_MAX}");
        Ok(if self.after_seconds.is_some() { count } else { 0 })
    }
}

/// The most workers of a pool that one user may hold.
pub(super) fn running_max(key: &str, said: Option<u16>) -> Result<Option<u16>> {
    let is_fit = said.is_none_or(|most| (1..=WORKERS_MAX).contains(&most));
    let shown = said.unwrap_or(0);
    ensure!(is_fit, "{key} = {shown} is not from 1 to {WORKERS_MAX}: leave it out for no such limit");
    Ok(said)
}

/// Whether each worker of the default pool serves one user.
pub(super) fn one_user(file: &File) -> bool {
    serves_one(file, file.one_user, file.worker_program.is_some())
}

/// A program of others may keep anything from one task to the next. In a daemon for several users its workers therefore serve one
/// user each, unless the configuration says otherwise.
fn serves_one(file: &File, said: Option<bool>, is_foreign: bool) -> bool {
    said.unwrap_or(is_foreign && file.mode == Some(Mode::System))
}

/// The pools other than the default one, sorted by name.
pub(super) fn sizes(file: &File, kinds: &[Kind], lending: &LendKeys) -> Result<Vec<PoolSize>> {
    for kind in kinds {
        let (name, pool) = (&kind.name, &kind.pool);
        ensure!(
            pool.is_empty() || pool == DEFAULT_POOL || file.pools.contains_key(pool),
            "kinds.{name}.pool = {pool:?} is no pool: declare it with a table [pools.{pool}], or leave the key out for \
             the default pool"
        );
    }
    let mut sizes = Vec::new();
    for (name, own) in &file.pools {
        ensure!(
            name != DEFAULT_POOL,
            "pools.{name}: this name is reserved for the pool of the keys at the top of the file: set workers, spares \
             and worker_program there, or choose another name"
        );
        ensure!(
            is_name(name),
            "pool name {name:?} is not valid: use 1 to {KIND_NAME_MAX_BYTES} of a-z, 0-9 and -"
        );
        let size = |key, value: Option<u16>, least| {
            let value = value.unwrap_or(1);
            let is_fit = (least..=WORKERS_MAX).contains(&value);
            ensure!(is_fit, "pools.{name}.{key} = {value} is not from {least} to {WORKERS_MAX}");
            Ok(value)
        };
        let (slots, spares) = (size("workers", own.workers, 1)?, size("spares", own.spares, 0)?);
        ensure!(
            kinds.iter().any(|kind| kind.pool == *name),
            "pools.{name} has nothing to run: set kinds.NAME.pool = {name:?} for a kind, or drop the table"
        );
        sizes.push(PoolSize {
            name: name.clone(),
            slots,
            spares,
            lend_max: lending.lend_max(&format!("pools.{name}.lend_max"), own.lend_max, slots)?,
            running_max: running_max(&format!("pools.{name}.running_max"), own.running_max)?,
            one_user: serves_one(
                file,
                own.one_user,
                own.worker_program.is_some() || file.worker_program.is_some(),
            ),
            recycle_strict: own.recycle_strict.or(file.recycle_strict).unwrap_or(false),
        });
    }
    let is_default = |kind: &Kind| kind.pool.is_empty() || kind.pool == DEFAULT_POOL;
    ensure!(
        kinds.iter().any(is_default),
        "the default pool has nothing to run, as every kind names another one: leave out kinds.NAME.pool for one of them"
    );
    Ok(sizes)
}

/// Checks the sum of all workers.
pub(super) fn check_sum(config: &Config) -> Result<()> {
    let workers: u64 = config.all_pools().map(|pool| u64::from(pool.slots)).sum();
    let spares: u64 = config.all_pools().map(|pool| u64::from(pool.spares)).sum();
    let lent: u64 = config.all_pools().map(|pool| u64::from(pool.lend_max)).sum();
    for (key, sum) in [("workers", workers), ("spares", spares), ("lend_max", lent)] {
        ensure!(
            sum <= u64::from(WORKERS_MAX),
            "{key} of all pools together are {sum}, the limit is {WORKERS_MAX}: give some pools fewer"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::settings::core_config_of;

    #[test]
    fn a_pool_has_one_worker_and_one_spare_unless_told() {
        let text = "workers = 3\n[pools.heavy]\n[pools.own]\nworkers = 2\nspares = 4\nworker_program = \"/x\"\n\
                    [kinds.sleep]\npool = \"heavy\"\n[kinds.x]\npool = \"own\"\n[kinds.noop]\npool = \"default\"\n";
        let config = core_config_of(text).unwrap();
        let sizes: Vec<_> = config.all_pools().map(|pool| (pool.name, pool.slots, pool.spares)).collect();
        let expected = [("default", 3, 1), ("heavy", 1, 1), ("own", 2, 4)];
        assert_eq!(sizes, expected.map(|(name, slots, spares)| (name.to_owned(), slots, spares)));
        let pool = |name| {
            let kind = config.kinds.iter().find(|kind| kind.name == name).unwrap();
            config.pool_of(kind).0
        };
        assert_eq!(["noop", "factorial", "sleep", "x"].map(pool), [0, 0, 1, 2]);
    }

    #[test]
    fn a_pool_of_a_system_daemon_lends_as_many_slots_as_it_has_workers_unless_told() {
        let text = "workers = 3\nrunning_max = 2\n[pools.gpu]\nlend_max = 0\nrunning_max = 1\n[pools.heavy]\nworkers = 4\n\
                    [kinds.sleep]\npool = \"heavy\"\n[kinds.factorial]\npool = \"gpu\"\n";
        let lent = |config: &bulkhead_core::config::Config| {
            config.all_pools().map(|pool| (pool.lend_max, pool.running_max)).collect::<Vec<_>>()
        };
        let system = core_config_of(&format!("mode = \"system\"\n{text}")).unwrap();
        assert_eq!(lent(&system), [(3, Some(2)), (0, Some(1)), (4, None)]);
        assert_eq!(system.lend_after_ms, Some(5000));
        let own = core_config_of(text).unwrap();
        assert_eq!(lent(&own), [(0, Some(2)), (0, Some(1)), (0, None)], "one user waits behind nobody else");
        assert_eq!(own.lend_after_ms, None);
        let slow = core_config_of("mode = \"system\"\nlend_after_seconds = 60\nlend_max = 1").unwrap();
        assert_eq!((slow.lend_after_ms, slow.lend_max), (Some(60_000), 1));
    }

    #[test]
    fn a_pool_recycles_as_the_default_pool_does_unless_told() {
        let tables = "[pools.own]\n[pools.lax]\nrecycle_strict = false\n[pools.firm]\nrecycle_strict = true\n\
                      [kinds.x]\npool = \"own\"\n[kinds.y]\npool = \"lax\"\n[kinds.z]\npool = \"firm\"\n";
        let strict = |keys: &str| {
            let config = core_config_of(&format!("{keys}\n{tables}")).unwrap();
            let mut pools: Vec<_> =
                config.all_pools().map(|pool| (pool.name.clone(), pool.recycle_strict)).collect();
            pools.sort();
            pools.into_iter().filter(|(_, strict)| *strict).map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(strict("recycle_tasks = 3"), ["firm"]);
        assert_eq!(strict("recycle_tasks = 3\nrecycle_strict = true"), ["default", "firm", "own"]);
    }

    #[test]
    fn workers_of_others_serve_one_user_each_in_a_system_daemon_unless_told() {
        let own = "[pools.own]\nworker_program = \"/x\"\n[pools.open]\nworker_program = \"/x\"\none_user = false\n\
                   [pools.ours]\n[kinds.sleep]\npool = \"own\"\n[kinds.factorial]\npool = \"open\"\n\
                   [kinds.sha256]\npool = \"ours\"\n";
        let serve_one = |text: &str| {
            let config = core_config_of(text).unwrap();
            let of = |name: &str| config.all_pools().find(|pool| pool.name == name).unwrap().one_user;
            ["default", "own", "open", "ours"].map(of)
        };
        assert_eq!(serve_one(&format!("mode = \"system\"\n{own}")), [false, true, false, false]);
        assert_eq!(serve_one(own), [false; 4], "one user alone");
        let all = format!("mode = \"system\"\nworker_program = \"/y\"\n{own}");
        assert_eq!(
            serve_one(&all),
            [true, true, false, true],
            "a pool without a program has that of the default pool"
        );
        assert_eq!(
            serve_one(&format!("mode = \"system\"\none_user = true\n{own}")),
            [true, true, false, false]
        );
    }

    #[test]
    fn what_does_not_fit_together_is_named() {
        for (text, fault) in [
            (
                "[kinds.x]\npool = \"big\"",
                "kinds.x.pool = \"big\" is no pool: declare it with a table [pools.big]",
            ),
            ("[pools.default]", "pools.default: this name is reserved"),
            ("[pools.Big]", "pool name \"Big\" is not valid"),
            ("[pools.big]\nworkers = 0", "pools.big.workers = 0 is not from 1 to 1024"),
            ("[pools.big]\nspares = 1025", "pools.big.spares = 1025 is not from 0 to 1024"),
            ("[pools.big]", "pools.big has nothing to run: set kinds.NAME.pool = \"big\" for a kind"),
            ("running_max = 0", "running_max = 0 is not from 1 to 1024: leave it out"),
            (
                "[pools.big]\nrunning_max = 1025\n[kinds.noop]\npool = \"big\"",
                "pools.big.running_max = 1025 is not from 1 to 1024",
            ),
            ("lend_max = 1025", "lend_max = 1025 is not from 0 to 1024"),
            (
                "mode = \"system\"\nlend_max = 1024\n[pools.big]\n[kinds.noop]\npool = \"big\"",
                "lend_max of all pools together are 1025, the limit is 1024",
            ),
            ("[pools.big]\nworker = 1", "unknown field `worker`"),
            (
                "workers = 1000\n[pools.big]\nworkers = 25\n[kinds.noop]\npool = \"big\"",
                "workers of all pools together are 1025, the limit is 1024",
            ),
            (
                "builtin_kinds = false\n[pools.big]\n[kinds.x]\npool = \"big\"",
                "the default pool has nothing to run, as every kind names another one",
            ),
        ] {
            let error = core_config_of(text).unwrap_err().to_string();
            assert!(error.contains(fault), "{text}: {error}");
        }
    }
}
