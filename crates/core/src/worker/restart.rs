//! Restart intensity: what happens when workers of a pool keep dying and no job is to blame.
//!
//! As with an OTP supervisor, two numbers: more than `restart_intensity` such faults within `restart_period_ms`
//! and the pool is degraded. Where OTP gives up, we go on with exponential backoff and jitter, and say so; the
//! daemon never exits because of its workers. A pool is degraded, too, when as many workers in a row did not come up as
//! it has places; the other pools go on as if nothing were. A worker that came up since and ends a task, or lives for a period, makes it healthy again.

use std::collections::VecDeque;

use bulkhead_proto::client::record::What;
use bulkhead_proto::ids::{PoolId, WorkerId};

use crate::action::Action;
use crate::machine::Core;
use crate::turn::{WorkerAlarm, doubled, ms};
use crate::worker::pools::Pool;

/// A pool in trouble.
#[derive(Debug)]
pub(crate) struct Degraded {
    /// What was seen when it degraded, in words.
    seen: String,
    /// The last fault.
    last: String,
    pub(crate) since_ns: u64,
    /// Faults since then.
    level: u32,
}

impl Degraded {
    /// Why, in words, as it stands now.
    pub(crate) fn reason(&self) -> String {
        let Self { seen, last, level, .. } = self;
        let more = if *level > 0 { format!(", {level} more since") } else { String::new() };
        format!("{seen}{more}; the last one: {last}")
    }
}

/// What is remembered of faults.
#[derive(Debug, Default)]
pub(crate) struct Restart {
    faults: VecDeque<u64>,
    /// Workers that did not come up since one did.
    stillborn: usize,
    pub(crate) degraded: Option<Degraded>,
    /// Whether a worker was ever ready.
    pub(crate) came_up: bool,
}

impl Pool {
    /// Whether a whole pool of workers was tried and not one came up: slow failures, such as a worker that hangs
    /// before it is up, never exceed the intensity.
    fn nobody_comes_up(&self) -> bool {
        self.restart.stillborn >= self.size() + usize::from(self.spares_wanted)
    }
}

impl Core {
    /// A worker died, or did not come up, and no job is to blame.
    pub(crate) fn fault(&mut self, id: PoolId, what: &str) {
        let now_ns = self.turn.now_ns();
        let period_ns = ms(self.turn.config().restart_period_ms);
        let pool = &mut self.pools[id];
        let faults = &mut pool.restart.faults;
        faults.push_back(now_ns);
        while faults.front().is_some_and(|&at_ns| at_ns.saturating_add(period_ns) < now_ns) {
            faults.pop_front();
        }
        let count = faults.len();
        if let Some(degraded) = &mut pool.restart.degraded {
            degraded.level += 1;
            degraded.last = what.to_owned();
            faults.clear();
        } else if count > self.turn.config().restart_intensity as usize {
            let period_ms = self.turn.config().restart_period_ms;
            let seen = format!("{count} workers ended within {period_ms} ms and no job is to blame");
            self.degrade(id, seen, what);
        } else if pool.nobody_comes_up() {
            let seen = format!("{} workers in a row did not come up", pool.restart.stillborn);
            self.degrade(id, seen, what);
        }
        let pause_ns = self.spawn_pause_ns(id);
        self.pools[id].next_spawn_ns = self.pools[id].next_spawn_ns.max(now_ns + pause_ns);
    }

    fn degrade(&mut self, id: PoolId, seen: String, last: &str) {
        let degraded = Degraded { seen, last: last.to_owned(), since_ns: self.turn.now_ns(), level: 0 };
        let reason = degraded.reason();
        let pool = &mut self.pools[id];
        pool.restart.faults.clear();
        pool.restart.degraded = Some(degraded);
        let name = pool.name.clone();
        self.turn.record(What::Degraded { pool: name, reason }, None);
        // Another pool may come up in a moment, and then there is better to say.
        if self.pools.iter().all(|pool| pool.restart.degraded.is_some()) {
            let (_, reasons) = self.health();
            self.say_ready(format!("degraded: {reasons}"));
        }
        self.notify_waiting(id);
    }

    /// A worker could not be brought up: the next one of its pool waits at least the least backoff.
    pub(crate) fn spawn_fault(&mut self, (worker, id): (WorkerId, PoolId), error: String) {
        self.pools[id].restart.stillborn += 1;
        self.fault(id, &error);
        let least_ns = ms(self.turn.config().backoff_min_ms);
        let now_ns = self.turn.now_ns();
        let next_ns = self.pools[id].next_spawn_ns.max(now_ns + least_ns);
        self.pools[id].next_spawn_ns = next_ns;
        let retry_after_ms = (next_ns - now_ns).div_ceil(1_000_000);
        self.turn.record(What::SpawnFailed { worker, error, retry_after_ms }, None);
    }

    /// The pause between two spawns of a pool, in nanoseconds.
    pub(crate) fn spawn_pause_ns(&mut self, pool: PoolId) -> u64 {
        match &self.pools[pool].restart.degraded {
            None => ms(self.turn.config().respawn_delay_ms),
            Some(degraded) => {
                let span = doubled(
                    self.turn.config().backoff_min_ms,
                    degraded.level,
                    self.turn.config().backoff_max_ms,
                );
                ms(self.turn.jitter(span).max(self.turn.config().respawn_delay_ms))
            }
        }
    }

    /// Looks again at a worker that came up in a degraded pool, a period from now.
    pub(crate) fn watch_survival(&mut self, id: WorkerId) {
        let pool = self.pools.of_worker(id);
        let restart = &mut self.pools[pool].restart;
        (restart.came_up, restart.stillborn) = (true, 0);
        let is_degraded = restart.degraded.is_some();
        let Some(worker) = self.pools.workers.get_mut(&id) else { return };
        if is_degraded {
            let at_ns = self.turn.now_ns().saturating_add(ms(self.turn.config().restart_period_ms));
            worker.set(&mut self.turn, id, WorkerAlarm::Survival, at_ns);
        }
    }

    /// A worker lived on, or ended a task: if it came up since the pool degraded, all is well again.
    pub(crate) fn worker_works(&mut self, id: WorkerId) {
        let Some(worker) = self.pools.workers.get(&id) else { return };
        let (pool_id, ready_ns, is_killed) = (worker.pool, worker.ready_ns, worker.duty.cause().is_some());
        let pool = &mut self.pools[pool_id];
        let Some(degraded) = &pool.restart.degraded else { return };
        if ready_ns >= degraded.since_ns && !is_killed {
            pool.restart.degraded = None;
            pool.restart.faults.clear();
            pool.next_spawn_ns = self.turn.now_ns();
            let name = pool.name.clone();
            self.turn.record(What::Recovered { pool: name }, None);
            self.notify_recovered(pool_id);
        }
    }

    /// Tells whoever waits for the start, once.
    pub(crate) fn say_ready(&mut self, status: String) {
        if !std::mem::replace(&mut self.ready_said, true) {
            self.turn.act(Action::Ready { status });
        }
    }
}
