//! Restart intensity: what a pool does when its workers keep dying and no job is charged.
//!
//! Two numbers, as in an OTP supervisor: more than `restart_intensity` such faults within `restart_period_ms` degrade the
//! pool. Where OTP gives up, a degraded pool goes on with exponential backoff and jitter, and says so; the daemon never
//! exits because of its workers. A pool is also degraded when as many workers in a row did not come up as it has slots and
//! spares (a spare on demand counts). Other pools are not affected. A worker that came up since then and ends a task, or lives for a period, makes
//! the pool healthy again.

use std::collections::VecDeque;

use bulkhead_proto::client::record::What;
use bulkhead_proto::client::view::PoolHealth;
use bulkhead_proto::ids::{PoolId, WorkerId};

use crate::turn::{Owner, Turn, WorkerAlarm, doubled, ms};
use crate::worker::{NowDegraded, NowHealthy, Pool, Workers};

/// Why a pool is degraded.
#[derive(Debug)]
pub(super) struct Degraded {
    /// What degraded it, in words.
    seen: String,
    /// The last fault, in words.
    last: String,
    since_ns: u64,
    /// Faults since then.
    level: u32,
}

impl Degraded {
    /// The reason that clients and records get.
    pub(super) fn reason(&self) -> String {
        let Self { seen, last, level, .. } = self;
        let more = if *level > 0 { format!(", {level} more since") } else { String::new() };
        format!("{seen}{more}; the last one: {last}")
    }
}

/// The faults of a pool.
#[derive(Debug, Default)]
pub(super) struct Restart {
    faults: VecDeque<u64>,
    /// Workers that did not come up since the last one that did.
    stillborn: usize,
    pub(super) degraded: Option<Degraded>,
    /// Whether a worker was ever ready.
    pub(super) came_up: bool,
}

impl Pool {
    /// Whether as many spawns in a row failed as the pool has slots and spares. Slow failures, such as a worker that hangs
    /// before it is ready, never exceed the intensity.
    fn nobody_comes_up(&self) -> bool {
        self.restart.stillborn >= self.size() + usize::from(self.spares_usual.max(1))
    }

    /// In words, that the pool is degraded, has no worker, and that nobody comes up. `None`: it is otherwise.
    pub(crate) fn stands_empty(&self) -> Option<String> {
        let Degraded { last, .. } = self.restart.degraded.as_ref()?;
        let stillborn = self.restart.stillborn;
        let stands_empty = self.filled() == 0 && self.nobody_comes_up();
        stands_empty.then(|| format!("{stillborn} workers in a row did not come up; the last one: {last}"))
    }
}

impl<T: Copy> Workers<T> {
    /// A worker died or did not come up, and no job is charged. Gives the pool if this degrades it.
    pub(crate) fn fault(&mut self, turn: &mut Turn, id: PoolId, what: &str) -> Option<NowDegraded> {
        let now_ns = turn.now_ns();
        let (period_ms, intensity) =
            (turn.config().restart_period_ms, turn.config().restart_intensity as usize);
        let pool = self.pool_mut(id);
        let faults = &mut pool.restart.faults;
        faults.push_back(now_ns);
        while faults.front().is_some_and(|&at_ns| at_ns.saturating_add(ms(period_ms)) < now_ns) {
            faults.pop_front();
        }
        let count = faults.len();
        let mut seen = None;
        if let Some(degraded) = &mut pool.restart.degraded {
            degraded.level += 1;
            degraded.last = what.to_owned();
            faults.clear();
        } else if count > intensity {
            seen = Some(format!("{count} workers ended within {period_ms} ms and no job is to blame"));
        } else if pool.nobody_comes_up() {
            seen = Some(format!("{} workers in a row did not come up", pool.restart.stillborn));
        }
        let now_degraded = seen.map(|seen| self.degrade(turn, id, seen, what));
        let pause_ns = self.spawn_pause_ns(turn, id);
        let pool = self.pool_mut(id);
        pool.next_spawn_ns = pool.next_spawn_ns.max(now_ns + pause_ns);
        now_degraded
    }

    /// # Panics
    /// If the pool is degraded already.
    pub(super) fn degrade(&mut self, turn: &mut Turn, id: PoolId, seen: String, last: &str) -> NowDegraded {
        let degraded = Degraded { seen, last: last.to_owned(), since_ns: turn.now_ns(), level: 0 };
        let reason = degraded.reason();
        let pool = self.pool_mut(id);
        assert!(pool.restart.degraded.is_none(), "pool {} degrades and is degraded already", pool.name);
        pool.restart.faults.clear();
        pool.restart.degraded = Some(degraded);
        turn.record(What::Degraded { pool: pool.name.clone(), reason }, Owner::Service);
        // While another pool is not degraded, a worker of it may still come up and send a better status.
        if self.pools.iter().all(|pool| pool.restart.degraded.is_some()) {
            let (_, reasons) = self.health();
            self.say_ready(turn, || format!("degraded: {reasons}"));
        }
        NowDegraded(id)
    }

    /// A worker did not come up: the next spawn of its pool waits at least `backoff_min_ms`. Gives the pool if this degrades
    /// it.
    pub(crate) fn spawn_fault(
        &mut self,
        turn: &mut Turn,
        (worker, id): (WorkerId, PoolId),
        error: String,
    ) -> Option<NowDegraded> {
        self.pool_mut(id).restart.stillborn += 1;
        let now_degraded = self.fault(turn, id, &error);
        let (now_ns, least_ns) = (turn.now_ns(), ms(turn.config().backoff_min_ms));
        let pool = self.pool_mut(id);
        pool.next_spawn_ns = pool.next_spawn_ns.max(now_ns + least_ns);
        let retry_after_ms = (pool.next_spawn_ns - now_ns).div_ceil(1_000_000);
        turn.record(What::SpawnFailed { worker, error, retry_after_ms }, Owner::Service);
        now_degraded
    }

    /// The pause between two spawns of a pool, in nanoseconds.
    pub(super) fn spawn_pause_ns(&self, turn: &mut Turn, pool: PoolId) -> u64 {
        let (least_ms, most_ms) = (turn.config().backoff_min_ms, turn.config().backoff_max_ms);
        let respawn_ms = turn.config().respawn_delay_ms;
        match &self.pool(pool).restart.degraded {
            None => ms(respawn_ms),
            Some(degraded) => {
                let span = doubled(least_ms, degraded.level, most_ms);
                ms(turn.jitter(span).max(respawn_ms))
            }
        }
    }

    /// A worker came up. In a degraded pool the alarm `Survival` is set for a period from now.
    pub(super) fn note_came_up(&mut self, turn: &mut Turn, id: WorkerId) {
        let Some(worker) = self.table.get_mut(&id) else { return };
        let restart = &mut self.pools[usize::from(worker.pool.0)].restart;
        (restart.came_up, restart.stillborn) = (true, 0);
        if restart.degraded.is_some() {
            let at_ns = turn.after_ms(turn.config().restart_period_ms);
            worker.set(turn, id, WorkerAlarm::Survival, at_ns);
        }
    }

    /// A worker of a degraded pool has lived for a whole period.
    ///
    /// # Panics
    /// If its alarm was not set.
    pub(crate) fn survived(&mut self, turn: &mut Turn, id: WorkerId) -> Option<NowHealthy> {
        self.table.get_mut(&id)?.rang(WorkerAlarm::Survival);
        self.note_alive(turn, id)
    }

    /// A worker ended a task or survived a period. If it came up since its pool degraded, the pool is healthy again.
    pub(crate) fn note_alive(&mut self, turn: &mut Turn, id: WorkerId) -> Option<NowHealthy> {
        // Asked after each task, and nearly always in vain.
        if self.pools.iter().all(|pool| pool.restart.degraded.is_none()) {
            return None;
        }
        let worker = self.table.get(&id)?;
        let (pool_id, ready_ns, is_killed) = (worker.pool, worker.process.ready_ns, worker.is_killed());
        let pool = self.pool_mut(pool_id);
        let degraded = pool.restart.degraded.as_ref()?;
        if ready_ns < degraded.since_ns || is_killed {
            return None;
        }
        pool.restart.degraded = None;
        pool.restart.faults.clear();
        pool.next_spawn_ns = turn.now_ns();
        turn.record(What::Recovered { pool: pool.name.clone() }, Owner::Service);
        Some(NowHealthy(pool_id))
    }

    /// The worst health of all pools, and the reasons if it is not healthy; with several pools each reason names its pool.
    pub(crate) fn health(&self) -> (PoolHealth, String) {
        let all: Vec<(&Pool, (PoolHealth, String))> =
            self.pools.iter().map(|pool| (pool, pool.health())).collect();
        let worst = [PoolHealth::Degraded, PoolHealth::Starting].into_iter();
        let worst = worst.into_iter().find(|worst| all.iter().any(|(_, (health, _))| health == worst));
        let Some(worst) = worst else { return (PoolHealth::Healthy, String::new()) };
        let ill = all.iter().filter(|(_, (health, _))| *health == worst);
        let reasons = ill.map(|(pool, (_, reason))| match all.len() {
            1 => reason.clone(),
            _ => format!("pool {}: {reason}", pool.name),
        });
        (worst, reasons.collect::<Vec<_>>().join("; "))
    }
}
